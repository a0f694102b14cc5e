/**
 * The metadata file, format 2.0: for every stripe of a disk one byte that says where its data is. Sectors of
 * 512 bytes; with `[encryption]` each is enciphered like a sector of the disk, numbered from 0 in this file.
 *
 *     sector 0, header                              sector 1 + g, group g
 *     0    magic "BDEV_UBI", 00        9 bytes      0    flags of stripe 508 g + 0
 *     9    version major = 2           u16          1    flags of stripe 508 g + 1
 *     11   version minor = 0           u16          ...
 *     13   stripe size: 2^n sectors    u8           507  flags of stripe 508 g + 507
 *     14   number of stripes           u32               (zero after the last stripe)
 *     18   a note (below), or zero                  508  CRC-32 of bytes 0 to 507
 *     508  CRC-32 of bytes 0 to 507
 *
 *     flags   bit 0 FETCHED, bit 1 WRITTEN, bit 2 HAS_SOURCE, bit 3 CHANGED; the others are kept as they are
 *
 *     note    18 "UBIARCH1" | 26 SHA-256 of a stripe-mapping | 58 mtime | 66 ctime of the data file, nanoseconds u64
 *
 * The note says that an archive with this map has the disk as it was when CHANGED was cleared, and that the data file was
 * written by nobody but those who set CHANGED, up to these times. Other programs pass over it, and over CHANGED; their
 * writes move the times, so that the note counts for nothing any more.
 *
 * Numbers are little-endian; the CRC is that of zlib. The file may be longer than what it needs.
 *
 * In memory it is one byte a stripe, with no object of any other kind.
 */
import { SECTOR_BYTES } from "./virtio-blk.ts";

export const STRIPE_FLAG = {
  FETCHED: 1,
  WRITTEN: 2,
  HAS_SOURCE: 4,
  /** Written since the archive of the note; kept only where there is a note. */
  CHANGED: 8,
} as const;
export const STRIPES_PER_GROUP = 508;
/** 64 MiB: the largest that a reader accepts. */
export const STRIPE_SHIFT_MAX = 17;
export const STRIPE_COUNT_MAX = 2 ** 32 - 1;
export const METADATA_VERSION = { major: 2, minor: 0 } as const;

/** What the header says. */
export interface MetadataHeader {
  /** A stripe has 2^shift sectors. */
  readonly stripeShift: number;
  readonly stripeCount: number;
  readonly note?: ArchiveNote;
}

/** Which archive has the disk but for its CHANGED stripes, and when the data file was last written by then. */
export interface ArchiveNote extends FileTimes {
  /** SHA-256 of its `stripe-mapping`. */
  readonly mapping: Uint8Array;
}

/** Of a file, in nanoseconds since 1970. */
export interface FileTimes {
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
}

export interface Metadata extends MetadataHeader {
  /** One byte of STRIPE_FLAG bits a stripe, with its reserved bits. May be memory shared with other threads. */
  readonly flags: Uint8Array;
}

/** Where metadata is read from and written to, in the clear: a file with its cipher, or plain memory. */
export interface MetadataMedium {
  readonly sizeBytes: number;
  /** At least a sector. What is read appears in it, and what is written is put into it before. */
  readonly buffer: Uint8Array;
  read(sector: number, sectorCount: number): void;
  /** Afterwards the buffer has no content that is of use. */
  write(sector: number, sectorCount: number): void;
  /** What was written before survives a crash from here on. */
  sync(): void;
}

/** Number of stripes of a disk: the last one may be short. */
export function stripesOf(sectors: number, stripeShift: number): number {
  return Math.ceil(sectors / 2 ** stripeShift);
}

export function stripeBytes({ stripeShift }: Pick<MetadataHeader, "stripeShift">): number {
  return 2 ** stripeShift * SECTOR_BYTES;
}

export function groupsOf(stripeCount: number): number {
  return Math.ceil(stripeCount / STRIPES_PER_GROUP);
}

export function groupOfStripe(stripe: number): number {
  return Math.floor(stripe / STRIPES_PER_GROUP);
}

/** The sector of the metadata file that holds the flags of a group. */
export function sectorOfGroup(group: number): number {
  return group + 1;
}

/** Bytes that the file needs at least. */
export function metadataBytes(stripeCount: number): number {
  return SECTOR_BYTES * (1 + groupsOf(stripeCount));
}

/** How many stripes a file of metadata can tell of. */
export function stripesFitting(fileBytes: number): number {
  return Math.max(0, Math.floor(fileBytes / SECTOR_BYTES) - 1) * STRIPES_PER_GROUP;
}

/** Metadata of a disk to which nothing has been done yet. */
export function newMetadata(
  header: MetadataHeader,
  hasSource: (stripe: number) => boolean,
): Metadata {
  const flags = new Uint8Array(header.stripeCount);
  for (let stripe = 0; stripe < flags.length; stripe += 1) {
    flags[stripe] = hasSource(stripe) ? STRIPE_FLAG.HAS_SOURCE : 0;
  }
  return { ...header, flags };
}

export interface StripeCounts {
  readonly fetched: number;
  readonly written: number;
  readonly hasSource: number;
  /** In the source and not yet fetched: 0 says that the source is needed no more. */
  readonly unfetched: number;
  /** With a bit that this version does not know. */
  readonly reserved: number;
}

export function countStripes(flags: Uint8Array): StripeCounts {
  const histogram = new Float64Array(256);
  for (let stripe = 0; stripe < flags.length; stripe += 1) {
    const value = flags[stripe] ?? 0;
    histogram[value] = (histogram[value] ?? 0) + 1;
  }
  const sum = (holds: (value: number) => boolean) =>
    histogram.reduce((total, count, value) => total + (holds(value) ? count : 0), 0);
  const { FETCHED, WRITTEN, HAS_SOURCE, CHANGED } = STRIPE_FLAG;
  return {
    fetched: sum((value) => (value & FETCHED) !== 0),
    written: sum((value) => (value & WRITTEN) !== 0),
    hasSource: sum((value) => (value & HAS_SOURCE) !== 0),
    unfetched: sum((value) => (value & (FETCHED | HAS_SOURCE)) === HAS_SOURCE),
    reserved: sum((value) => (value & ~(FETCHED | WRITTEN | HAS_SOURCE | CHANGED)) !== 0),
  };
}
