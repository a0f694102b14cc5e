/** Reads a key-encryption key that a tool was given as a file or pipe. */

import { UbiError } from "../errors.ts";
import { log } from "../log.ts";
import { base64Size, decodeBase64 } from "./base64.ts";
import { KEK_BYTES } from "./envelope.ts";
import { inspectFileSource, readSecretFile } from "./secret-sources.ts";

export interface KekFile {
  /** The caller owns, and wipes it. */
  readonly kek: Uint8Array;
  /** How it is written there; both cannot be meant, since the lengths differ. */
  readonly encoding: "plaintext" | "base64";
}

/** @throws UbiError E_SECRET_READ, E_SECRET_SIZE; the signal's reason */
export async function readKekFile(path: string, signal: AbortSignal): Promise<KekFile> {
  const warn = (message: string) => log.warn(message);
  const policy = { mayReadRegularFiles: true, warn, signal };
  const limits = { what: "the KEK", bytesMax: TEXT_BYTES_MAX, timeoutMs: TIMEOUT_MS };
  inspectFileSource(path, policy);
  const raw = await readSecretFile(path, limits, policy);
  if (raw.length === KEK_BYTES) {
    return { kek: raw, encoding: "plaintext" };
  }
  try {
    if (base64Size(raw) !== KEK_BYTES) {
      throw wrongKekSize(raw.length, path);
    }
    return { kek: decodeBase64(raw), encoding: "base64" };
  } finally {
    raw.fill(0);
  }
}

export function wrongKekSize(sizeBytes: number, name: string): UbiError {
  const size = sizeBytes > TEXT_BYTES_MAX ? `more than ${TEXT_BYTES_MAX}` : `${sizeBytes}`;
  const hint = `a KEK has exactly ${KEK_BYTES}, without a newline, or is base64 of ${KEK_BYTES}`;
  return new UbiError("E_SECRET_SIZE", `KEK ${name} has ${size} bytes; ${hint}`);
}

// --- internal ---

/** Base64 of a KEK with room for line breaks. */
const TEXT_BYTES_MAX = 256;
const TIMEOUT_MS = 300_000;
