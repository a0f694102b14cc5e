/** The part of the disk that a run uses, as blocks of one size. */
import { UbiError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";

export interface BlockRange {
  readonly firstSector: number;
  readonly blockSectors: number;
  readonly blockCount: number;
}

/** What the user asked for, in bytes; `sizeBytes` undefined = to the end of the disk. */
export interface RangeRequest {
  readonly offsetBytes: number;
  readonly sizeBytes: number | undefined;
  readonly blockBytes: number;
  readonly capacityBytes: number;
}

/** Whole blocks within the range. @throws UbiError E_BENCH when there are none or the disk is smaller */
export function blockRange(request: RangeRequest): BlockRange {
  const { offsetBytes, blockBytes, capacityBytes } = request;
  const sizeBytes = request.sizeBytes ?? Math.max(0, capacityBytes - offsetBytes);
  if (offsetBytes + sizeBytes > capacityBytes) {
    const end = offsetBytes + sizeBytes;
    throw new UbiError("E_BENCH", `the range ends at ${end}, the disk at ${capacityBytes} bytes`);
  }
  const blockCount = Math.floor(sizeBytes / blockBytes);
  if (blockCount < 1 || blockCount >= 2 ** 32) {
    const sizes = `${sizeBytes} bytes hold ${blockCount} blocks of ${blockBytes}`;
    throw new UbiError("E_BENCH", `${sizes}; from 1 to 2^32 - 1 are possible`);
  }
  return {
    firstSector: offsetBytes / SECTOR_BYTES,
    blockSectors: blockBytes / SECTOR_BYTES,
    blockCount,
  };
}

/** The first sector of a block. */
export function blockSector(range: BlockRange, blockIndex: number): number {
  return range.firstSector + blockIndex * range.blockSectors;
}
