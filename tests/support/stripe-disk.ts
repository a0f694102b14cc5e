/** A small disk with lazy stripes for simulations, where a sector is one number, and its metadata in memory. */
import {
  type MetadataMedium,
  metadataBytes,
  newMetadata,
  STRIPE_FLAG,
} from "../../src/formats/metadata.ts";
import { encodeMetadata } from "../../src/formats/metadata-codec.ts";

export const STRIPE_SECTORS = 4;
const STRIPE_SHIFT = 2;
/** Two groups of metadata, and a last stripe of two sectors. */
export const DISK_SECTORS = 511 * STRIPE_SECTORS + 2;
const STRIPES = 512;
/** Stripes that the guest uses: some of both groups, and the last. */
export const USED = [0, 1, 2, 3, 506, 507, 508, 509, 510, 511] as const;
/** What the host left on the medium: no guest may ever see it. */
export const STALE = 0x5a5a_5a5a;
/** Sources that end inside a stripe, and with the disk. */
export const SOURCE_SIZES = [509 * STRIPE_SECTORS + 1, DISK_SECTORS] as const;

/** What the source holds: some stripes are all zeros, and so is what lies behind its end. */
export function sourceValue(sector: number, sourceSectors: number): number {
  const stripe = Math.floor(sector / STRIPE_SECTORS);
  return sector >= sourceSectors || stripe === 2 || stripe === 507 ? 0 : -(sector + 1);
}

/** A disk to which nothing was done: what is not in the source reads as zeros, all else is the host's. */
export function freshDisk(kind: {
  readonly isEnciphered: boolean;
  readonly sourceSectors: number;
}): {
  readonly base: Int32Array;
  readonly flags: Uint8Array;
} {
  const { flags } = newMetadata(
    { stripeShift: STRIPE_SHIFT, stripeCount: STRIPES },
    (stripe) => stripe * STRIPE_SECTORS < kind.sourceSectors,
  );
  const base = Int32Array.from({ length: DISK_SECTORS }, (_, sector) => {
    const stripe = Math.floor(sector / STRIPE_SECTORS);
    const hasSource = ((flags[stripe] ?? 0) & STRIPE_FLAG.HAS_SOURCE) !== 0;
    return hasSource ? STALE : kind.isEnciphered ? maskOf(sector) : 0;
  });
  return { base, flags };
}

/** A metadata file in memory, as a medium. */
export function mediumOf(words: Int32Array): MetadataMedium {
  const bytes = new Uint8Array(words.buffer);
  const buffer = new Uint8Array(8 * 512);
  return {
    sizeBytes: bytes.length,
    buffer,
    read: (sector, count) => buffer.set(bytes.subarray(sector * 512, (sector + count) * 512)),
    write: (sector, count) => bytes.set(buffer.subarray(0, count * 512), sector * 512),
    sync: () => {},
  };
}

export function encodedMetadata(flags: Uint8Array): Int32Array {
  const words = new Int32Array(metadataBytes(flags.length) / 4);
  encodeMetadata({ stripeShift: STRIPE_SHIFT, stripeCount: flags.length, flags }, mediumOf(words));
  return words;
}

/** What a sector is enciphered with. */
export function maskOf(sector: number): number {
  return Math.imul(sector + 1, 0x9e37_79b1);
}

/** A sector begins with its value. */
export function byteOfSector(value: number, offset: number): number {
  return offset < 4 ? (value >>> (8 * offset)) & 0xff : 0;
}
