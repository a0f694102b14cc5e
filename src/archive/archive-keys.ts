/**
 * The keys of an archive: one enciphers its stripes and their map, one authenticates its manifest. Both are random
 * and lie in `metadata.json`, wrapped with the key-encryption key (KEK) of the config, or in clear without one.
 */
import { openEnvelope, sealEnvelope } from "../config/envelope.ts";
import { UbiError } from "../errors.ts";
import { XTS_KEY_BYTES } from "../ffi/xts.ts";
import { HMAC_KEY_BYTES } from "../formats/archive-metadata.ts";

export interface ArchiveKeys {
  /** 64 bytes; undefined where stripes are not enciphered. */
  readonly xtsKey: Uint8Array | undefined;
  /** 32 bytes. */
  readonly hmacKey: Uint8Array;
}

/** Random keys for a new archive. */
export function newArchiveKeys(isEncrypted: boolean): ArchiveKeys {
  return {
    xtsKey: isEncrypted ? crypto.getRandomValues(new Uint8Array(XTS_KEY_BYTES)) : undefined,
    hmacKey: crypto.getRandomValues(new Uint8Array(HMAC_KEY_BYTES)),
  };
}

/** A key as it is stored: wrapped anew, or as it is without a KEK. */
export function wrapKey(key: Uint8Array, kek: Uint8Array | undefined): Uint8Array {
  return kek === undefined ? key : sealEnvelope(key, { kek, context: CONTEXT });
}

/**
 * The key behind stored bytes.
 * @param what names it: `hmac_key`
 * @param keyBytes the size that it must have
 * @throws UbiError E_ARCHIVE_KEY that does not name the archive
 */
export function unwrapKey(options: {
  readonly stored: Uint8Array;
  readonly what: string;
  readonly keyBytes: number;
  readonly kek: Uint8Array | undefined;
}): Uint8Array {
  const { stored, what, keyBytes, kek } = options;
  const wrappedBytes = keyBytes + OVERHEAD_BYTES;
  if (kek === undefined && stored.length === wrappedBytes) {
    throw new UbiError(
      "E_ARCHIVE_KEY",
      `its ${what} is wrapped with a key-encryption key and this config has none; set archive_kek (init: --archive-kek)`,
    );
  }
  if (kek !== undefined && stored.length === keyBytes) {
    throw new UbiError(
      "E_ARCHIVE_KEY",
      `its ${what} lies there in clear though this config has archive_kek: it was made without one, ` +
        "or was exchanged; remove archive_kek only if you know that it was made without",
    );
  }
  const expectedBytes = kek === undefined ? keyBytes : wrappedBytes;
  if (stored.length !== expectedBytes) {
    throw new UbiError(
      "E_ARCHIVE_KEY",
      `its ${what} has ${stored.length} bytes, and ${expectedBytes} are expected; bring metadata.json back from a copy`,
    );
  }
  return kek === undefined ? stored : opened(stored, what, kek);
}

// --- internal ---

/** The envelope's additional authenticated data. */
const CONTEXT = new TextEncoder().encode("ubiblk_archive");
/** What an envelope adds: nonce and tag. */
const OVERHEAD_BYTES = 28;

function opened(stored: Uint8Array, what: string, kek: Uint8Array): Uint8Array {
  try {
    return openEnvelope(stored, { kek, context: CONTEXT });
  } catch (cause) {
    throw new UbiError(
      "E_ARCHIVE_KEY",
      `its ${what} cannot be unwrapped: archive_kek is not the key it was wrapped with, or metadata.json is ` +
        "damaged; name the right key",
      { cause },
    );
  }
}
