/**
 * Reads and writes the metadata file through a medium, some sectors at a time. metadata.ts draws the layout.
 *
 * Order of checks: length, header (CRC, magic, version, stripe size, count), then the CRC of every group in use.
 *
 * Cost: 16 million stripes are checked and copied in about 30 ms.
 */
import { assert, UbiError } from "../errors.ts";
import { viewBytes } from "./little-endian.ts";
import {
  type ArchiveNote,
  groupOfStripe,
  groupsOf,
  METADATA_VERSION,
  type Metadata,
  type MetadataHeader,
  type MetadataMedium,
  metadataBytes,
  STRIPE_COUNT_MAX,
  STRIPE_SHIFT_MAX,
  STRIPES_PER_GROUP,
  sectorOfGroup,
} from "./metadata.ts";
import { SECTOR_BYTES } from "./virtio-blk.ts";

/**
 * Reads metadata; what follows the last group in use is not looked at.
 * @param allocate memory for the flags, zeroed, one byte a stripe
 * @throws UbiError E_METADATA that names the header or the group and does not name the file
 */
export function decodeMetadata(
  medium: MetadataMedium,
  allocate: (stripeCount: number) => Uint8Array = (stripeCount) => new Uint8Array(stripeCount),
): Metadata {
  checkLength(medium.sizeBytes);
  medium.read(0, 1);
  const header = decodeHeader(medium.buffer.subarray(0, SECTOR_BYTES), medium.sizeBytes);
  const flags = allocate(header.stripeCount);
  assert(flags.length === header.stripeCount, "there is one byte a stripe");
  const groups = groupsOf(header.stripeCount);
  const stride = sectorsIn(medium.buffer);
  for (let first = 0; first < groups; first += stride) {
    const count = Math.min(stride, groups - first);
    medium.read(sectorOfGroup(first), count);
    for (let i = 0; i < count; i += 1) {
      const sector = medium.buffer.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES);
      decodeGroup(sector, first + i, flags);
    }
  }
  return { ...header, flags };
}

/**
 * Writes metadata over the whole medium, zeros behind the last group. Safe against crashes: the header goes
 * last, when all else is durable, and before anything else its place gets a mark that no reader accepts.
 */
export function encodeMetadata(metadata: Metadata, medium: MetadataMedium): void {
  const sectors = medium.sizeBytes / SECTOR_BYTES;
  assert(medium.sizeBytes >= metadataBytes(metadata.stripeCount), "metadata fits its file");
  assert(Number.isInteger(sectors), "a metadata file is whole sectors");
  encodeUnfinished(medium.buffer.subarray(0, SECTOR_BYTES));
  medium.write(0, 1);
  medium.sync();
  const groups = groupsOf(metadata.stripeCount);
  const stride = sectorsIn(medium.buffer);
  for (let first = 1; first < sectors; first += stride) {
    const count = Math.min(stride, sectors - first);
    for (let i = 0; i < count; i += 1) {
      const sector = medium.buffer.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES);
      const group = first + i - 1;
      if (group < groups) {
        encodeGroup(metadata.flags, group, sector);
      } else {
        sector.fill(0);
      }
    }
    medium.write(first, count);
  }
  medium.sync();
  encodeHeader(metadata, medium.buffer.subarray(0, SECTOR_BYTES));
  medium.write(0, 1);
  medium.sync();
}

/**
 * Appends stripes. Safe against crashes: their groups lie where no reader looks until the header counts them, and the
 * header goes last, when all else is durable. Every cut leaves the metadata of before or all of the new one.
 *
 *   groups behind the last one -> sync -> header -> sync
 *
 * @param metadata all of it, as it is to be: the old stripes are what the medium holds, the new ones have no flags
 * @param medium long enough
 */
export function appendStripes(
  metadata: Metadata,
  stripesBefore: number,
  medium: MetadataMedium,
): void {
  const { flags, stripeCount } = metadata;
  assert(stripeCount > stripesBefore, "stripes are added, never taken away");
  assert(medium.sizeBytes >= metadataBytes(stripeCount), "metadata fits its file");
  clearTail(flags, stripesBefore, medium);
  const groups = groupsOf(stripeCount);
  const stride = sectorsIn(medium.buffer);
  for (let first = groupsOf(stripesBefore); first < groups; first += stride) {
    const count = Math.min(stride, groups - first);
    for (let i = 0; i < count; i += 1) {
      const sector = medium.buffer.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES);
      encodeGroup(flags, first + i, sector);
    }
    medium.write(sectorOfGroup(first), count);
  }
  medium.sync();
  encodeHeader(metadata, medium.buffer.subarray(0, SECTOR_BYTES));
  medium.write(0, 1);
  medium.sync();
}

/** Replaces the note of the header, durably, and nothing else of it; undefined removes it. */
export function replaceNote(medium: MetadataMedium, note: ArchiveNote | undefined): void {
  const sector = medium.buffer.subarray(0, SECTOR_BYTES);
  medium.read(0, 1);
  const { stripeShift, stripeCount } = decodeHeader(sector, medium.sizeBytes);
  encodeHeader({ stripeShift, stripeCount, ...(note === undefined ? {} : { note }) }, sector);
  medium.write(0, 1);
  medium.sync();
}

/**
 * The flags of one stripe, as the medium has them now.
 * @throws UbiError E_METADATA that names the group and does not name the file
 */
export function readStripeFlags(
  medium: MetadataMedium,
  { stripeCount }: Pick<MetadataHeader, "stripeCount">,
  stripe: number,
): number {
  assert(stripe < stripeCount, "it is a stripe of the disk");
  const group = groupOfStripe(stripe);
  medium.read(sectorOfGroup(group), 1);
  const sector = medium.buffer.subarray(0, SECTOR_BYTES);
  checkGroup(sector, group, stripeCount);
  return sector[stripe % STRIPES_PER_GROUP] ?? 0;
}

/** Fills a sector with the flags of a group. */
export function encodeGroup(flags: Uint8Array, group: number, sector: Uint8Array): void {
  assert(sector.length === SECTOR_BYTES, "a group has a sector");
  const first = group * STRIPES_PER_GROUP;
  assert(first < flags.length, "the group is in use");
  const last = Math.min(first + STRIPES_PER_GROUP, flags.length);
  sector.fill(0);
  sector.set(flags.subarray(first, last));
  viewBytes(sector).setUint32(CRC_OFFSET, checksum(sector), true);
}

/** Whether a header sector is the mark that `encodeMetadata` leaves when it is cut short. */
export function isUnfinished(sector: Uint8Array): boolean {
  return hasMagic(sector) && sector.subarray(MAGIC.length).every((byte) => byte === 0);
}

// --- internal ---

const MAGIC = Uint8Array.of(0x42, 0x44, 0x45, 0x56, 0x5f, 0x55, 0x42, 0x49, 0x00);
/** Byte offsets in the header. */
const HEADER = { MAJOR: 9, MINOR: 11, SHIFT: 13, COUNT: 14, NOTE: 18 } as const;
const NOTE_MAGIC = Uint8Array.from("UBIARCH1", (digit) => digit.charCodeAt(0));
/** Byte offsets in the note. */
const NOTE = { MAPPING: 8, MODIFIED: 40, CHANGED: 48, END: 56 } as const;
const CRC_OFFSET = 508;
const ADVICE = "name the right file and key, or bring the file back from a copy";

function checkLength(sizeBytes: number): void {
  if (sizeBytes < SECTOR_BYTES) {
    throw new UbiError(
      "E_METADATA",
      `it has ${sizeBytes} bytes and no room for a header; run init-metadata first`,
    );
  }
  if (sizeBytes % SECTOR_BYTES !== 0) {
    throw new UbiError(
      "E_METADATA",
      `it has ${sizeBytes} bytes, which is not a multiple of ${SECTOR_BYTES}: it was cut, or is no metadata`,
    );
  }
}

function decodeHeader(sector: Uint8Array, sizeBytes: number): MetadataHeader {
  const view = viewBytes(sector);
  if (view.getUint32(CRC_OFFSET, true) !== checksum(sector)) {
    throw headerError(`its CRC-32 does not fit: ${reasonOfBadHeader(sector)}`);
  }
  if (!hasMagic(sector)) {
    throw headerError("wrong magic: this is no metadata file");
  }
  const major = view.getUint16(HEADER.MAJOR, true);
  const minor = view.getUint16(HEADER.MINOR, true);
  if (major !== METADATA_VERSION.major || minor !== METADATA_VERSION.minor) {
    throw headerError(`its format is version ${major}.${minor}, and only 2.0 can be read`);
  }
  const stripeShift = view.getUint8(HEADER.SHIFT);
  if (stripeShift > STRIPE_SHIFT_MAX) {
    const limit = `at most ${STRIPE_SHIFT_MAX} is accepted`;
    throw headerError(`a stripe of 2^${stripeShift} sectors is too large; ${limit}`);
  }
  const stripeCount = view.getUint32(HEADER.COUNT, true);
  if (metadataBytes(stripeCount) > sizeBytes) {
    const needed = `${metadataBytes(stripeCount)} bytes`;
    throw headerError(`${stripeCount} stripes need ${needed}, the file was cut to ${sizeBytes}`);
  }
  const note = decodeNote(sector.subarray(HEADER.NOTE, HEADER.NOTE + NOTE.END));
  return { stripeShift, stripeCount, ...(note === undefined ? {} : { note }) };
}

function decodeNote(bytes: Uint8Array): ArchiveNote | undefined {
  if (!NOTE_MAGIC.every((byte, i) => bytes[i] === byte)) {
    return undefined;
  }
  const view = viewBytes(bytes);
  return {
    mapping: bytes.slice(NOTE.MAPPING, NOTE.MODIFIED),
    modifiedNs: view.getBigUint64(NOTE.MODIFIED, true),
    changedNs: view.getBigUint64(NOTE.CHANGED, true),
  };
}

function encodeNote(note: ArchiveNote, bytes: Uint8Array): void {
  assert(note.mapping.length === NOTE.MODIFIED - NOTE.MAPPING, "a SHA-256 has 32 bytes");
  bytes.set(NOTE_MAGIC);
  bytes.set(note.mapping, NOTE.MAPPING);
  const view = viewBytes(bytes);
  view.setBigUint64(NOTE.MODIFIED, note.modifiedNs, true);
  view.setBigUint64(NOTE.CHANGED, note.changedNs, true);
}

function decodeGroup(sector: Uint8Array, group: number, flags: Uint8Array): void {
  const { first, count } = checkGroup(sector, group, flags.length);
  flags.set(sector.subarray(0, count), first);
}

/** @returns the stripes of the group */
function checkGroup(
  sector: Uint8Array,
  group: number,
  stripeCount: number,
): { readonly first: number; readonly count: number } {
  const first = group * STRIPES_PER_GROUP;
  const count = Math.min(STRIPES_PER_GROUP, stripeCount - first);
  if (viewBytes(sector).getUint32(CRC_OFFSET, true) !== checksum(sector)) {
    throw new UbiError(
      "E_METADATA",
      `group ${group} (stripes ${first} to ${first + count - 1}, sector ${sectorOfGroup(group)}): its CRC-32 ` +
        "does not fit: the sector is damaged; bring the file back from a copy",
    );
  }
  return { first, count };
}

/** Stripes are added in the last group too, where this program leaves zeros: bytes of another one become no flags. */
function clearTail(flags: Uint8Array, stripesBefore: number, medium: MetadataMedium): void {
  const used = stripesBefore % STRIPES_PER_GROUP;
  if (used === 0) {
    return;
  }
  const group = groupsOf(stripesBefore) - 1;
  const sector = medium.buffer.subarray(0, SECTOR_BYTES);
  medium.read(sectorOfGroup(group), 1);
  if (sector.subarray(used, CRC_OFFSET).every((byte) => byte === 0)) {
    return;
  }
  encodeGroup(flags, group, sector);
  medium.write(sectorOfGroup(group), 1);
}

/** The likeliest of what makes the check of a header fail. */
function reasonOfBadHeader(sector: Uint8Array): string {
  if (sector.every((byte) => byte === 0)) {
    return "it is empty; run init-metadata first";
  }
  if (!hasMagic(sector)) {
    return `this is no metadata file, or one under another key, or the sector is damaged; ${ADVICE}`;
  }
  if (isUnfinished(sector)) {
    return "an earlier init-metadata was cut short; run it again";
  }
  return isVersion0(sector)
    ? "a file of version 0, which has none, cannot be read"
    : "the sector is damaged; bring the file back from a copy";
}

/** It had neither a number of stripes nor a CRC. */
function isVersion0(sector: Uint8Array): boolean {
  const isOld = viewBytes(sector).getUint16(HEADER.MAJOR, true) === 0;
  return isOld && sector.subarray(HEADER.COUNT).every((byte) => byte === 0);
}

function headerError(what: string): UbiError {
  return new UbiError("E_METADATA", `header: ${what}`);
}

/** Fills a sector with a header. */
function encodeHeader(header: MetadataHeader, sector: Uint8Array): void {
  assert(header.stripeShift <= STRIPE_SHIFT_MAX, "a stripe is no larger than readers accept");
  assert(header.stripeCount <= STRIPE_COUNT_MAX, "stripes are counted in 32 bits");
  encodeUnfinished(sector);
  const view = viewBytes(sector);
  view.setUint16(HEADER.MAJOR, METADATA_VERSION.major, true);
  view.setUint16(HEADER.MINOR, METADATA_VERSION.minor, true);
  view.setUint8(HEADER.SHIFT, header.stripeShift);
  view.setUint32(HEADER.COUNT, header.stripeCount, true);
  if (header.note !== undefined) {
    encodeNote(header.note, sector.subarray(HEADER.NOTE, HEADER.NOTE + NOTE.END));
  }
  view.setUint32(CRC_OFFSET, checksum(sector), true);
}

/** The magic without anything behind it: its check fails, so no reader takes it for a header. */
function encodeUnfinished(sector: Uint8Array): void {
  assert(sector.length === SECTOR_BYTES, "a header has a sector");
  sector.fill(0);
  sector.set(MAGIC);
}

function hasMagic(sector: Uint8Array): boolean {
  return MAGIC.every((byte, i) => sector[i] === byte);
}

/** 0x0FBB6D54 for zeros, so that an empty sector is not a valid one. */
function checksum(sector: Uint8Array): number {
  return Bun.hash.crc32(sector.subarray(0, CRC_OFFSET));
}

function sectorsIn(buffer: Uint8Array): number {
  const sectors = Math.floor(buffer.length / SECTOR_BYTES);
  assert(sectors > 0, "a medium's buffer holds a sector");
  return sectors;
}
