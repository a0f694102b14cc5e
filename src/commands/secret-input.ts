/** Where the tools for secrets read from: standard input or a file, and a KEK. No secret is ever an argument. */
import { readSync } from "node:fs";
import { isatty } from "node:tty";
import { Base64Error, decodeBase64 } from "../config/base64.ts";
import { KEK_BYTES } from "../config/envelope.ts";
import { readKekFile, wrongKekSize } from "../config/kek-file.ts";
import { SECRET_BYTES_MAX } from "../config/schema.ts";
import { inspectFileSource, readSecretFile } from "../config/secret-sources.ts";
import { errorText, UbiError } from "../errors.ts";
import { log } from "../log.ts";

/** How the bytes of a secret are written, in a file or on a stream; the words are those of documents. */
export const SECRET_ENCODINGS = ["plaintext", "base64"] as const;
export type SecretEncoding = (typeof SECRET_ENCODINGS)[number];

export function secretEncoding(text: string | undefined): SecretEncoding {
  return text === "base64" ? "base64" : "plaintext";
}

export interface InputOptions {
  /** Undefined: standard input. */
  readonly path: string | undefined;
  readonly encoding: SecretEncoding;
  /** What it is, for messages: "the secret". */
  readonly what: string;
  readonly signal: AbortSignal;
}

/** Reads and decodes; the caller owns the bytes. @throws UbiError E_USAGE, E_SECRET_READ, E_SECRET_SIZE, E_SECRET */
export async function readSecretInput(options: InputOptions): Promise<Uint8Array> {
  const { path, encoding, what, signal } = options;
  const raw = path === undefined ? readStandardInput(what) : await readFile(path, what, signal);
  try {
    const bytes = encoding === "base64" ? decode(raw, what) : raw.slice();
    const place = path ?? "standard input";
    if (bytes.length === 0) {
      throw new UbiError("E_SECRET_SIZE", `${place} is empty; ${what} is expected there`);
    }
    if (bytes.length > SECRET_BYTES_MAX || raw.length > TEXT_BYTES_MAX) {
      bytes.fill(0);
      const message = `${place} is too large: ${what} has at most ${SECRET_BYTES_MAX} bytes`;
      throw new UbiError("E_SECRET_SIZE", message);
    }
    return bytes;
  } finally {
    raw.fill(0);
  }
}

/** The caller owns it. @throws UbiError E_SECRET_READ, E_SECRET_SIZE */
export async function readKek(path: string, signal: AbortSignal): Promise<Uint8Array> {
  return (await readKekFile(path, signal)).kek;
}

/** A secret of a document that is used as KEK. @throws UbiError E_SECRET_SIZE */
export function checkKekSize({ length }: Uint8Array, name: string): void {
  if (length !== KEK_BYTES) {
    throw wrongKekSize(length, JSON.stringify(name));
  }
}

// --- internal ---

/** Base64 of the largest secret with room for line breaks. */
const TEXT_BYTES_MAX = 16_384;
const TIMEOUT_MS = 300_000;
const RETRY_MS = 1;

/** A file or a pipe. */
async function readFile(path: string, what: string, signal: AbortSignal): Promise<Uint8Array> {
  const warn = (message: string) => log.warn(message);
  const policy = { mayReadRegularFiles: true, warn, signal };
  inspectFileSource(path, policy);
  return await readSecretFile(
    path,
    { what, bytesMax: TEXT_BYTES_MAX, timeoutMs: TIMEOUT_MS },
    policy,
  );
}

function decode(raw: Uint8Array, what: string): Uint8Array {
  try {
    return decodeBase64(raw);
  } catch (cause) {
    if (cause instanceof Base64Error) {
      throw new UbiError("E_SECRET", `${what} is not valid base64: ${cause.message}`);
    }
    throw cause;
  }
}

/** All of the input, or one byte more than is accepted. The caller wipes it. */
function readStandardInput(what: string): Uint8Array {
  if (isatty(0)) {
    const advice = "send it through a pipe, or name a file with --input";
    throw new UbiError("E_USAGE", `${what} is expected on standard input; ${advice}`);
  }
  const buffer = new Uint8Array(TEXT_BYTES_MAX + 1);
  try {
    return buffer.slice(0, fill(buffer));
  } finally {
    buffer.fill(0);
  }
}

/** How many bytes came. @throws UbiError E_SECRET_READ */
function fill(buffer: Uint8Array): number {
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
