/**
 * The envelope that wraps a secret with a key-encryption key (KEK), AES-256-GCM:
 *
 *     offset  0          12                    12 + n        12 + n + 16
 *             +----------+---------------------+-------------+
 *             | nonce 12 | ciphertext n        | tag 16      |
 *             +----------+---------------------+-------------+
 *
 * The additional authenticated data binds it to its use: for a secret of a config its own name.
 */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { assert, UbiError } from "../errors.ts";

export const KEK_BYTES = 32;

export interface EnvelopeKey {
  /** Exactly `KEK_BYTES`. */
  readonly kek: Uint8Array;
  /** The additional authenticated data. */
  readonly context: Uint8Array;
}

/**
 * Unwraps an envelope. The caller owns the result and wipes it.
 *
 * @throws UbiError E_SECRET_ENVELOPE: too short, or not authentic.
 */
export function openEnvelope(envelope: Uint8Array, key: EnvelopeKey): Uint8Array {
  assert(key.kek.length === KEK_BYTES, "a KEK has 32 bytes");
  if (envelope.length < ENVELOPE_OVERHEAD_BYTES) {
    const sizes = `${envelope.length} bytes, at least ${ENVELOPE_OVERHEAD_BYTES}`;
    throw new UbiError("E_SECRET_ENVELOPE", `the encrypted data is too short: ${sizes} expected`);
  }
  const tagOffset = envelope.length - TAG_BYTES;
  const cipher = createDecipheriv("aes-256-gcm", key.kek, envelope.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  });
  cipher.setAAD(key.context);
  cipher.setAuthTag(envelope.subarray(tagOffset));
  const content = cipher.update(envelope.subarray(NONCE_BYTES, tagOffset));
  try {
    cipher.final();
    return Uint8Array.from(content);
  } catch (cause) {
    throw new UbiError("E_SECRET_ENVELOPE", "the encrypted data is not authentic", { cause });
  } finally {
    content.fill(0);
  }
}

/** Wraps `content` under a fresh random nonce. */
export function sealEnvelope(content: Uint8Array, key: EnvelopeKey): Uint8Array {
  assert(key.kek.length === KEK_BYTES, "a KEK has 32 bytes");
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key.kek, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(key.context);
  const ciphertext = cipher.update(content);
  cipher.final();
  return Uint8Array.from(Buffer.concat([nonce, ciphertext, cipher.getAuthTag()]));
}

// --- internal ---

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** What an envelope is longer than its content. */
export const ENVELOPE_OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES;
