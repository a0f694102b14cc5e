/** What the device offers to a front end: feature words and the configuration space. */
import type { DiskDescription } from "../device/disk-device.ts";
import { DISCARD_SECTORS_MAX, RANGES_MAX, WRITE_ZEROES_SECTORS_MAX } from "../disk/range-lists.ts";
import { bitMask, PROTOCOL_FEATURE } from "../formats/vhost-user.ts";
import { encodeBlockConfig, FEATURE, SECTOR_BYTES } from "../formats/virtio-blk.ts";

/** Limits of a request that the config announces; larger ones are served all the same. */
export interface AnnouncedLimits {
  readonly segSizeMax: number;
  readonly segCountMax: number;
  readonly numQueues: number;
}

/** The word of GET_FEATURES. */
export function deviceFeatures(disk: DiskDescription): bigint {
  const always = bitMask(
    FEATURE.BLK_SIZE_MAX,
    FEATURE.BLK_SEG_MAX,
    FEATURE.BLK_BLK_SIZE,
    FEATURE.BLK_FLUSH,
    FEATURE.BLK_TOPOLOGY,
    FEATURE.BLK_CONFIG_WCE,
    FEATURE.BLK_MQ,
    FEATURE.RING_INDIRECT_DESC,
    FEATURE.RING_EVENT_IDX,
    FEATURE.RING_PACKED,
    FEATURE.VHOST_USER_PROTOCOL_FEATURES,
    FEATURE.VERSION_1,
  );
  const readOnly = disk.isReadOnly ? bitMask(FEATURE.BLK_RO) : bitMask(FEATURE.BLK_WRITE_ZEROES);
  const discard = disk.isDiscardOffered ? bitMask(FEATURE.BLK_DISCARD) : 0n;
  return always | readOnly | discard | (isMovable(disk) ? bitMask(FEATURE.LOG_ALL) : 0n);
}

/**
 * Whether the guest may be moved while it runs: without logging a front end refuses to. The backend on the other host
 * begins to serve with what it read when it was started, so nothing but the disk's data may change here; and what
 * was written has to be on the disk, not in this host's page cache.
 */
function isMovable(disk: DiskDescription): boolean {
  return disk.isDirect && disk.stripes === undefined;
}

/** The word of GET_PROTOCOL_FEATURES. */
export const PROTOCOL_FEATURES = bitMask(
  PROTOCOL_FEATURE.MQ,
  PROTOCOL_FEATURE.LOG_SHMFD,
  PROTOCOL_FEATURE.REPLY_ACK,
  PROTOCOL_FEATURE.BACKEND_REQ,
  PROTOCOL_FEATURE.CONFIG,
  PROTOCOL_FEATURE.INFLIGHT_SHMFD,
  PROTOCOL_FEATURE.RESET_DEVICE,
  PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS,
  PROTOCOL_FEATURE.STATUS,
);

/** The 60 bytes of the configuration space. @param sectors of the disk, now */
export function deviceConfig(
  disk: DiskDescription,
  sectors: number,
  limits: AnnouncedLimits,
  isWriteback: boolean,
): Uint8Array {
  const physicalSectors = Math.max(disk.physicalBlockBytes, disk.blockBytes) / SECTOR_BYTES;
  const mayWriteZeroes = !disk.isReadOnly;
  return encodeBlockConfig({
    capacitySectors: sectors,
    segmentSizeMax: limits.segSizeMax,
    segmentCountMax: limits.segCountMax,
    blockSize: SECTOR_BYTES,
    physicalBlockExponent: Math.floor(Math.log2(physicalSectors)),
    alignmentOffset: 0,
    ioSizeMin: physicalSectors,
    ioSizeOptimal: Math.max(physicalSectors, Math.floor(disk.optimalIoBytes / SECTOR_BYTES)),
    writeback: isWriteback ? 1 : 0,
    queueCount: limits.numQueues,
    discardSectorsMax: disk.isDiscardOffered ? DISCARD_SECTORS_MAX : 0,
    discardSegmentsMax: disk.isDiscardOffered ? RANGES_MAX : 0,
    discardSectorAlignment: disk.isDiscardOffered
      ? Math.max(1, Math.floor(disk.discardUnitBytes / SECTOR_BYTES))
      : 0,
    writeZeroesSectorsMax: mayWriteZeroes ? WRITE_ZEROES_SECTORS_MAX : 0,
    writeZeroesSegmentsMax: mayWriteZeroes ? RANGES_MAX : 0,
    writeZeroesMayUnmap:
      mayWriteZeroes && disk.isDiscardOffered && disk.cipherContext === 0 ? 1 : 0,
  });
}

/** Where some front ends (Cloud Hypervisor) believe the configuration space to start. */
const CONFIG_MMIO_OFFSET = 0x100;

/** The offset in the configuration space that a front end means. */
export function configOffset(offset: number): number {
  return offset >= CONFIG_MMIO_OFFSET ? offset - CONFIG_MMIO_OFFSET : offset;
}
