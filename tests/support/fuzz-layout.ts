/**
 * Where a fuzzing guest keeps its things, so that whatever its hostile half makes a device do can be told from harm.
 *
 * Memory of the guest is one file with two halves. The trusted one holds the ring and all requests whose result is
 * checked; the hostile one holds what the other chains are made of, and may change while the device reads it.
 *
 *     guest address      file
 *     0x5000_0000_0000   0            ring | headers | statuses | tables | data of checked requests
 *     0x1_0000_0000      HOSTILE      tables | headers | ranges | source ...      two regions that touch,
 *     0x1_0008_0000      + 0x80000    sink ...                                    then nothing
 *
 * No byte of hostile memory lies between 0x40 and 0x7f, whatever is written to it or read from the disk into it. The
 * trusted addresses and the checked sectors do have such a byte at a place of their own (bits 40 to 47, and 24 to 31).
 * So no descriptor and no request that a device reads out of hostile memory, at any alignment and halfway through any
 * change, can begin in them; and none is long enough to reach them from below.
 */

/** Requests of a batch whose result is checked. */
export const SLOTS = 256;
export const STATUS_STRIDE = 16;

/** Offsets in the trusted half. */
export const AVAILABLE = 0x4000;
export const USED = 0x5000;
export const HEADERS = 0x8000;
export const STATUSES = 0x9000;
export const TABLES = 0xa000;
export const TABLE_BYTES = 0x280;
const TABLE_ENTRIES = TABLE_BYTES / 16;
/** Data descriptors of a checked request: its table also has its header and its status. */
export const SEGMENTS_MAX = TABLE_ENTRIES - 3;
export const DATA = 0x40000;
/** A page that stays as it is, up to a page of shift, the data. */
export const DATA_STRIDE = 0x6000;
export const DATA_BYTES = 0x4000;
/** Behind the last slot: one request far larger than a piece of the device. */
export const LARGE_DATA = DATA + SLOTS * DATA_STRIDE;
export const LARGE_DATA_BYTES = 0x90000;

/** The trusted half ends and the hostile one begins: what follows are offsets in the file, too. */
export const HOSTILE = 0x700000;
export const HOSTILE_REGION_BYTES = 0x80000;
export const HOSTILE_BYTES = 2 * HOSTILE_REGION_BYTES;
export const HOSTILE_TABLES = HOSTILE + 0x1000;
export const HOSTILE_TABLE_ENTRIES = 64;
export const HOSTILE_TABLE_COUNT = 12;
export const HOSTILE_HEADERS = HOSTILE + 0x10000;
export const HOSTILE_HEADER_COUNT = 64;
export const HOSTILE_RANGES = HOSTILE + 0x11000;
export const HOSTILE_RANGE_COUNT = 64;
const HOSTILE_SOURCE = HOSTILE + 0x20000;
const HOSTILE_SINK = HOSTILE + HOSTILE_REGION_BYTES;
export const FILE_BYTES = HOSTILE + HOSTILE_BYTES;

export const TRUSTED_BASE = 0x5000_0000_0000;
export const HOSTILE_BASE = 0x1_0000_0000;

/** Sectors whose content is checked, and the end of the disk right behind them. */
export const CHECKED_SECTOR = 0x5000_0000;
export const CHECKED_SECTORS = 0x4000;
export const DISK_SECTORS = CHECKED_SECTOR + CHECKED_SECTORS;
/** What hostile requests can reach ends before this one. */
export const HOSTILE_END_SECTOR = 0x4100_0000;
/** The serial number of the disk: a guest reads it into hostile memory as well. */
export const DEVICE_ID = "0123456789";

/** The guest address of a byte of the file. */
export function guestAddress(offset: number): number {
  return offset < HOSTILE ? TRUSTED_BASE + offset : HOSTILE_BASE + offset - HOSTILE;
}

/** A guest address that no region holds. */
export const NOWHERE = 0x97_0000_0000;
const HOSTILE_END = HOSTILE_BASE + HOSTILE_BYTES;

/** What a hostile descriptor points at: headers most of all, edges, and places that are not there. */
export const HOSTILE_ADDRESSES: readonly number[] = [
  ...[0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15].map((i) => guestAddress(HOSTILE_HEADERS + i * 16)),
  guestAddress(HOSTILE_HEADERS + 4),
  guestAddress(HOSTILE_HEADERS + 10),
  guestAddress(HOSTILE_RANGES),
  guestAddress(HOSTILE_RANGES + 0x130),
  ...[0, 1, 7, 0x200, 0x1000, 0x3000].map((shift) => guestAddress(HOSTILE_SOURCE + shift)),
  ...[0, 1, 8, 0x1ff, 0x1000, 0x3008].map((shift) => guestAddress(HOSTILE_SINK + shift)),
  ...[1, 8, 512, 4096].map((bytes) => guestAddress(HOSTILE_SINK) - bytes),
  ...[0, 1, 16, 512].map((bytes) => HOSTILE_END - bytes),
  ...[NOWHERE, 0, 16, 2 ** 52, 2 ** 63, 2 ** 64 - 2048],
  HOSTILE_BASE - 16,
];

export const HOSTILE_LENGTHS: readonly number[] = [
  ...[0, 1, 1, 4, 8, 12, 15, 16, 16, 16, 17, 20, 32, 48, 511, 512, 512, 512, 513, 1024, 1024],
  ...[4096, 4096, 0x3000, 0x10000, 0x20000, HOSTILE_BYTES, 2 ** 31, 0xffff_fe00, 0xffff_ffff],
];

/** A request type, and now and then one that does not exist. */
export const HOSTILE_TYPES: readonly number[] = [
  ...[0, 0, 0, 1, 1, 1, 4, 8, 8, 11, 13, 13, 2, 3, 5, 9, 10, 14, 0x80000001, 0xffffffff],
];

/** Sectors as their lower and upper words; with no byte between 0x40 and 0x7f. */
export const HOSTILE_SECTORS: readonly (readonly [number, number])[] = [
  ...Array.from({ length: 24 }, (_, i) => [i * 2, 0] as const),
  ...[0x0100, 0x3ff, 0x800, 0x01_0000, 0x3f_ffff].map((sector) => [sector, 0] as const),
  [0x3fff_ff80, 0],
  [0x8000_0000, 0],
  [0xffff_ffff, 0],
  [0, 2],
  [0xffff_fff8, 0x001f_ffff],
  [0, 0x0020_0000],
  [0xffff_ffff, 0xffff_ffff],
  [0, 0x8000_0000],
];

/** Sectors of a range; the last are more than any request may name. */
export const HOSTILE_COUNTS: readonly number[] = [
  ...[0, 1, 1, 8, 8, 16, 63, 0x80, 0x1000, 0x1_0000, 0x1_0001, 0x3f_ffff, 0x80_0000, 0xffff_ffff],
];

export const HOSTILE_RANGE_FLAGS: readonly number[] = [0, 0, 0, 1, 1, 2, 0x8000_0000, 0xffff_ffff];

/** NEXT and WRITE mostly, INDIRECT seldom, a bit without meaning now and then. */
export const HOSTILE_FLAGS: readonly number[] = [
  ...[0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 1, 3, 2, 4, 5, 6, 7, 0x80, 0x8001, 0x8002],
];

/** Lengths of indirect tables. */
export const HOSTILE_TABLE_LENGTHS: readonly number[] = [
  ...[16, 32, 48, 48, 48, 48, 160, 256, 272, 1024, 0, 8, 24, 0x8_0000, 0x10_0000, 0xffff_fff0],
];
