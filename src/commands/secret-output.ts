/** Where the tools for secrets write a secret: to a new file that only its owner reads, or standard output. */
import { isatty } from "node:tty";
import { statusIfSeen } from "../copy/input-file.ts";
import { OutputFile } from "../copy/output-file.ts";
import { UbiError } from "../errors.ts";
import { log } from "../log.ts";
import { SECRET_ENCODINGS, type SecretEncoding, secretEncoding } from "./secret-input.ts";
import { writeBytes } from "./standard-output.ts";

/** The flags of who writes a secret. */
export const SECRET_OUTPUT_FLAGS = {
  encoding: {
    type: "enum" as const,
    options: [...SECRET_ENCODINGS],
    default: "plaintext",
    description: "how the secret is written: its bytes, or base64; as `encoding` in a document",
  },
  output: {
    type: "string" as const,
    alias: "o",
    valueHint: "FILE",
    description: "write to a new file with mode 0600 (default: standard output)",
  },
  force: { type: "boolean" as const, default: false, description: "replace the file of --output" },
  show: {
    type: "boolean" as const,
    default: false,
    description: "write a secret to a terminal as well",
  },
};

export interface SecretDestination {
  /** Undefined: standard output. */
  readonly path: string | undefined;
  readonly mayReplace: boolean;
  readonly encoding: SecretEncoding;
}

/** From the values of those flags. @throws UbiError E_USAGE where a secret would stand on a terminal */
export function secretDestination(flags: {
  readonly encoding?: string | undefined;
  readonly output?: string | undefined;
  readonly force: boolean;
  readonly show: boolean;
}): SecretDestination {
  if (flags.output === undefined && isatty(1) && !flags.show) {
    const advice = "name a file with --output, redirect it, or give --show";
    throw new UbiError("E_USAGE", `the secret would stand on the terminal; ${advice}`);
  }
  if (flags.output === undefined && flags.force) {
    throw new UbiError("E_USAGE", "--force: only with --output");
  }
  return {
    path: flags.output,
    mayReplace: flags.force,
    encoding: secretEncoding(flags.encoding),
  };
}

/** @throws UbiError E_SECRET_OUTPUT, E_DISK_IO */
export function writeSecret(
  secret: Uint8Array,
  { path, encoding, mayReplace }: SecretDestination,
): void {
  const isTerminal = path === undefined && isatty(1);
  const isBase64 = encoding === "base64" || (isTerminal && !isText(secret));
  if (isBase64 && encoding !== "base64") {
    log.warn("shown in base64: the secret is no text");
  }
  const bytes = isBase64 ? new TextEncoder().encode(secret.toBase64()) : secret;
  if (path !== undefined) {
    writeFile(path, bytes, mayReplace);
  } else {
    if (!writeBytes(1, bytes)) {
      throw new UbiError(
        "E_SECRET_OUTPUT",
        "the secret is lost: nobody reads standard output; name a file with --output",
      );
    }
    if (isTerminal) {
      writeBytes(1, NEWLINE); // elsewhere it would be a part of the secret
    }
  }
}

// --- internal ---

const NEWLINE = new Uint8Array([0x0a]);

function writeFile(path: string, bytes: Uint8Array, mayReplace: boolean): void {
  const existing = statusIfSeen(path);
  if (existing !== undefined && !existing.isFile()) {
    throw new UbiError(
      "E_SECRET_OUTPUT",
      `${path} is no regular file; name one that is to be made`,
    );
  }
  using file = OutputFile.create(path, {
    inputs: [],
    mayReplace,
    whyKept: "give --force to replace it",
    code: "E_SECRET_OUTPUT",
  });
  file.write(bytes);
  file.commit();
}

/** Printable in one line. */
function isText(bytes: Uint8Array): boolean {
  try {
    return !/\p{C}/u.test(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return false;
  }
}
