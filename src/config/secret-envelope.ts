/** The envelopes of secrets of a document: what is authenticated with one is its secret's own name. */
import { UbiError } from "../errors.ts";
import { openEnvelope, sealEnvelope } from "./envelope.ts";

export interface SecretEnvelopeKey {
  /** The NAME of `[secrets.NAME]`. */
  readonly name: string;
  /** Exactly `KEK_BYTES`. */
  readonly kek: Uint8Array;
}

/** Wraps the content of a secret under a fresh nonce. */
export function sealSecret(content: Uint8Array, { name, kek }: SecretEnvelopeKey): Uint8Array {
  return sealEnvelope(content, { kek, context: new TextEncoder().encode(name) });
}

/**
 * Unwraps a secret. The caller owns the result and wipes it.
 * @param kekText the KEK as the user knows it, for messages
 * @throws UbiError E_SECRET_ENVELOPE
 */
export function openSecret(
  envelope: Uint8Array,
  { name, kek }: SecretEnvelopeKey,
  kekText: string,
): Uint8Array {
  try {
    return openEnvelope(envelope, { kek, context: new TextEncoder().encode(name) });
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    const other = `another name than ${JSON.stringify(name)}`;
    const why = `wrong KEK, damaged data, or made for a secret of ${other} (the name is authenticated)`;
    const message = `cannot unwrap with KEK ${kekText}: ${error.message}; ${why}`;
    throw new UbiError(error.code, message, { cause: error });
  }
}
