/**
 * `stripe-mapping`, the map of an archive: which stripes it holds and the hashes that name their objects. CBOR:
 *
 *   a5  "domain"         array of 29 integers, the bytes of `ubiblk-archive-stripe-mapping`
 *       "version"        1
 *       "ciphertext"     array of integers, one a byte: plaintext, padded to sectors, perhaps enciphered
 *       "plaintext_len"  bytes of the plaintext without padding
 *       "hmac_tag"       byte string of 32
 *
 *   plaintext | map: stripe -> "Zero", or {"Some": byte string of 32} | zeros ... | UBISIZE1, size of the disk 8 |
 *             '- plaintext_len bytes                                 '- padding to a multiple of 512
 *
 * The first sector is enciphered as sector 2^60. The tag is HMAC-SHA-256 over domain, version (4 bytes little
 * endian), plaintext_len (8) and the bytes of `ciphertext`.
 *
 * The padding ends with the exact size of a disk that is not whole stripes; other readers take it for padding.
 * A stripe without an entry was not archived; the last one always has one, so that the map tells the disk's size.
 */
import { viewBytes, writeNumber64 } from "./little-endian.ts";
import { SECTOR_BYTES } from "./virtio-blk.ts";

export const HASH_BYTES = 32;
export const MAPPING_VERSION = 1;
export const MAPPING_DOMAIN = new TextEncoder().encode("ubiblk-archive-stripe-mapping");
export const SIZE_MAGIC = new TextEncoder().encode("UBISIZE1");
/** The record at the end of the padding. */
export const SIZE_RECORD_BYTES = 16;
/** The plaintext's first sector number is 2^60: its upper half, as the tweak wants it in two words. */
export const MAPPING_SECTOR_HIGH = 2 ** 28;
/** What a reader accepts; 256 TiB in stripes of 1 MiB. */
export const MAPPED_STRIPES_MAX = 2 ** 28;

export type StripeKind = "absent" | "zero" | "stored";

/** What `hmac_tag` authenticates in front of the ciphertext. */
export function mappingHmacPrefix(plaintextBytes: number): Uint8Array {
  const bytes = new Uint8Array(MAPPING_DOMAIN.length + 12);
  bytes.set(MAPPING_DOMAIN);
  const view = viewBytes(bytes);
  view.setUint32(MAPPING_DOMAIN.length, MAPPING_VERSION, true);
  writeNumber64(view, MAPPING_DOMAIN.length + 4, plaintextBytes);
  return bytes;
}

export function padToSectors(lengthBytes: number): number {
  return Math.ceil(lengthBytes / SECTOR_BYTES) * SECTOR_BYTES;
}
