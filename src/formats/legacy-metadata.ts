/**
 * The metadata file of version 0: read only, so that a stripe server can serve disks of that age.
 *
 *     0    magic "BDEV_UBI", 00        9 bytes
 *     9    version major = 0           u16
 *     11   version minor = 0           u16
 *     13   stripe size: 2^n sectors    u8
 *     512  one byte a stripe: 0 not fetched yet, anything else: on the disk
 *
 * It has neither a number of stripes, which is that of the disk, nor a CRC.
 */
import { assert, UbiError } from "../errors.ts";
import {
  type Metadata,
  type MetadataHeader,
  type MetadataMedium,
  STRIPE_FLAG,
  stripesOf,
} from "./metadata.ts";
import { SECTOR_BYTES } from "./virtio-blk.ts";

const MAGIC = Uint8Array.of(0x42, 0x44, 0x45, 0x56, 0x5f, 0x55, 0x42, 0x49, 0x00);
const MAJOR_OFFSET = 9;
const SHIFT_OFFSET = 13;
const SHIFT_MAX = 16;

/** Whether a first sector, in the clear, is that of a version 0 file. */
export function isLegacyMetadata(sector: Uint8Array): boolean {
  assert(sector.length >= SECTOR_BYTES, "a header has a sector");
  const isOurs = MAGIC.every((byte, i) => sector[i] === byte);
  return (
    isOurs &&
    sector[MAJOR_OFFSET] === 0 &&
    sector[MAJOR_OFFSET + 1] === 0 &&
    !isUnfinishedHeader(sector)
  );
}

/**
 * Reads metadata of version 0, with flags as version 2 has them.
 * @throws UbiError E_METADATA that does not name the file
 */
export function decodeLegacyMetadata(medium: MetadataMedium, diskSectors: number): Metadata {
  const header = readHeader(medium, diskSectors);
  const flags = new Uint8Array(header.stripeCount);
  const stride = Math.floor(medium.buffer.length / SECTOR_BYTES) * SECTOR_BYTES;
  for (let first = 0; first < flags.length; first += stride) {
    const count = Math.min(stride, flags.length - first);
    medium.read(1 + first / SECTOR_BYTES, Math.ceil(count / SECTOR_BYTES));
    for (let i = 0; i < count; i += 1) {
      flags[first + i] = medium.buffer[i] === 0 ? STRIPE_FLAG.HAS_SOURCE : STRIPE_FLAG.WRITTEN;
    }
  }
  return { ...header, flags };
}

// --- internal ---

function readHeader(medium: MetadataMedium, diskSectors: number): MetadataHeader {
  medium.read(0, 1);
  assert(isLegacyMetadata(medium.buffer), "the header is of version 0");
  const stripeShift = medium.buffer[SHIFT_OFFSET] ?? 0;
  if (stripeShift > SHIFT_MAX) {
    const limit = `version 0 has at most ${SHIFT_MAX}`;
    throw new UbiError("E_METADATA", `header: a stripe of 2^${stripeShift} sectors; ${limit}`);
  }
  const stripeCount = stripesOf(diskSectors, stripeShift);
  const sectors = Math.floor(medium.sizeBytes / SECTOR_BYTES);
  if (1 + Math.ceil(stripeCount / SECTOR_BYTES) > sectors) {
    const counts = `${stripeCount} stripes, the file has ${medium.sizeBytes} bytes`;
    throw new UbiError("E_METADATA", `the disk has ${counts}: it was cut, or is of another disk`);
  }
  return { stripeShift, stripeCount };
}

/** A mark of version 2 (metadata-codec.ts) looks like a header of stripes of one sector: none was ever made. */
function isUnfinishedHeader(sector: Uint8Array): boolean {
  return sector.subarray(MAGIC.length, SECTOR_BYTES).every((byte) => byte === 0);
}
