/** What the kernel is told of a disk that it is to show as a block device, and which way data goes. */
import type { DeviceConfig } from "../config/index.ts";
import type { DiskDescription } from "../device/disk-device.ts";
import { DISCARD_SECTORS_MAX, WRITE_ZEROES_SECTORS_MAX } from "../disk/range-lists.ts";
import { ATTRIBUTE, type DeviceParameters, FEATURE } from "../formats/ublk.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";

/** Of a disk, as the front end sees it. */
export type ParameterDisk = Pick<
  DiskDescription,
  | "sectors"
  | "blockBytes"
  | "physicalBlockBytes"
  | "optimalIoBytes"
  | "memoryAlignBytes"
  | "discardUnitBytes"
  | "isReadOnly"
  | "isNull"
  | "isWriteThrough"
  | "isDiscardOffered"
  | "cipherContext"
  | "stripes"
>;

/**
 * The logical block is a sector as for vhost-user, whatever the medium has: a partition table means the same
 * with both.
 * @param isZeroCopy I/O works on the memory of whoever asked, which has to be aligned as the disk needs it
 */
export function deviceParameters(
  disk: ParameterDisk,
  ioBytesMax: number,
  isZeroCopy: boolean,
): DeviceParameters {
  const physicalShift = shiftOf(Math.max(disk.physicalBlockBytes, disk.blockBytes, SECTOR_BYTES));
  const optimalBytes = Math.min(disk.optimalIoBytes, ioBytesMax);
  return {
    attributes: attributesOf(disk),
    logicalBlockShift: shiftOf(SECTOR_BYTES),
    physicalBlockShift: physicalShift,
    minimalIoShift: physicalShift,
    optimalIoShift: Math.max(physicalShift, optimalBytes < 1 ? 0 : shiftOf(optimalBytes)),
    ioSectorsMax: ioBytesMax / SECTOR_BYTES,
    sectors: disk.sectors,
    discardGranularityBytes: Math.max(disk.discardUnitBytes, disk.blockBytes, SECTOR_BYTES),
    discardSectorsMax: disk.isDiscardOffered ? DISCARD_SECTORS_MAX : 0,
    writeZeroesSectorsMax: disk.isReadOnly ? 0 : WRITE_ZEROES_SECTORS_MAX,
    memoryAlignBytes: isZeroCopy ? Math.max(disk.memoryAlignBytes, 4) : undefined,
  };
}

/**
 * Whether requests' own memory can go to the disk without a copy: the kernel offers it, nothing here has to see
 * the data (a cipher, stripes that are fetched, blocks larger than sectors), and io_uring does the I/O.
 */
export function mayCopyNothing(
  disk: ParameterDisk,
  features: number,
  ioEngine: DeviceConfig["tuning"]["ioEngine"],
): boolean {
  return (
    (features & FEATURE.autoBufferRegistration) !== 0 &&
    ioEngine === "io_uring" &&
    disk.cipherContext === 0 &&
    disk.stripes === undefined &&
    disk.blockBytes === SECTOR_BYTES &&
    !disk.isNull
  );
}

// --- internal ---

function attributesOf(disk: ParameterDisk): number {
  if (disk.isReadOnly) {
    return ATTRIBUTE.readOnly;
  }
  return disk.isWriteThrough ? 0 : ATTRIBUTE.volatileCache | ATTRIBUTE.fua;
}

/** Of the largest power of two in `bytes`. */
function shiftOf(bytes: number): number {
  return Math.floor(Math.log2(bytes));
}
