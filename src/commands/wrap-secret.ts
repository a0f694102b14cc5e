/** `ubiblk wrap-secret`: makes the envelope that a secret with `encrypted_by` is. Neither secret nor key is an argument. */
import { readSync } from "node:fs";
import { defineCommand } from "citty";
import { ENVELOPE_OVERHEAD_BYTES, KEK_BYTES, sealEnvelope } from "../config/envelope.ts";
import { SECRET_BYTES_MAX } from "../config/schema.ts";
import { inspectFileSource, readSecretFile } from "../config/secret-sources.ts";
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";
import { hardenOrWarn } from "./hardening.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "wrap-secret",
    description:
      "Encrypts the secret on standard input for [secrets.NAME] with encrypted_by, and prints it in base64",
  },
  args: {
    name: {
      type: "string",
      required: true,
      valueHint: "NAME",
      description: "name of the secret, which is authenticated with it",
    },
    kek: {
      type: "string",
      required: true,
      valueHint: "FILE",
      description: `file or pipe with the key-encryption key, ${KEK_BYTES} bytes`,
    },
  },
  run: ({ args }) => wrap(args.name, args.kek),
});

// --- internal ---

/** The envelope counts as the size of the secret. */
const WRAPPED_BYTES_MAX = SECRET_BYTES_MAX - ENVELOPE_OVERHEAD_BYTES;
const KEK_TIMEOUT_MS = 300_000;
const RETRY_MS = 1;

async function wrap(name: string, kekPath: string): Promise<void> {
  hardenOrWarn();
  if (name === "") {
    throw new UbiError("E_USAGE", "--name: empty; give the NAME of [secrets.NAME]");
  }
  const kek = await readKek(kekPath);
  const content = new Uint8Array(WRAPPED_BYTES_MAX + 1);
  try {
    const secret = content.subarray(0, readStandardInput(content));
    checkSecret(secret);
    const envelope = sealEnvelope(secret, { kek, context: new TextEncoder().encode(name) });
    writePieces(1, [`${envelope.toBase64()}\n`]);
  } finally {
    content.fill(0);
    kek.fill(0);
  }
}

async function readKek(path: string): Promise<Uint8Array> {
  const policy = { mayReadRegularFiles: true, warn: (message: string) => log.warn(message) };
  const limits = { what: "the KEK", bytesMax: KEK_BYTES, timeoutMs: KEK_TIMEOUT_MS };
  inspectFileSource(path, policy);
  const kek = await readSecretFile(path, limits, policy);
  if (kek.length !== KEK_BYTES) {
    const { length } = kek;
    kek.fill(0);
    const size = length > KEK_BYTES ? `more than ${KEK_BYTES} bytes` : `${length} bytes`;
    const hint = `a KEK has exactly ${KEK_BYTES}, without a newline; decode one in base64 first`;
    throw new UbiError("E_SECRET_SIZE", `KEK ${path} has ${size}; ${hint}`);
  }
  return kek;
}

function checkSecret(secret: Uint8Array): void {
  if (secret.length === 0) {
    throw new UbiError("E_SECRET_SIZE", "standard input is empty; the secret is expected there");
  }
  if (secret.length > WRAPPED_BYTES_MAX) {
    const message = `the secret is too large: at most ${WRAPPED_BYTES_MAX} bytes can be wrapped`;
    throw new UbiError("E_SECRET_SIZE", message);
  }
  if (secret.at(-1) === 0x0a) {
    log.warn("the secret ends in a newline, which is part of it");
  }
}

/** Fills `buffer` up to the end of the input; returns how many bytes came. @throws UbiError E_SECRET_READ */
function readStandardInput(buffer: Uint8Array): number {
  let length = 0;
  while (length < buffer.length) {
    try {
      const got = readSync(0, buffer, length, buffer.length - length, null);
      if (got === 0) {
        break;
      }
      length += got;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) {
        const message = `cannot read standard input: ${errorText(error)}`;
        throw new UbiError("E_SECRET_READ", message, { cause: error });
      }
      Bun.sleepSync(RETRY_MS); // a pipe that somebody made non-blocking
    }
  }
  return length;
}
