/** Decides what becomes of a request that was read from the ring: to the disk, or an answer at once. */
import type { DiskDescription } from "../device/disk-device.ts";
import { Operation } from "../disk/request-table.ts";
import { REQUEST_TYPE, SECTOR_BYTES, STATUS } from "../formats/virtio-blk.ts";
import type { BlockChain } from "../virtio/block-chain.ts";
import type { DeviceId } from "./device-id.ts";

/** The verdict that is no status: the request goes to the disk. */
export const TO_DISK = 0x100;

/** The parts of the disk that the rules look at. */
export type PolicyDisk = Pick<DiskDescription, "sectors" | "isReadOnly" | "isDiscardOffered">;

/** TO_DISK, or the status to answer. GET_ID is carried out here. */
export function verdictOf(chain: BlockChain, disk: PolicyDisk, deviceId: DeviceId): number {
  switch (chain.type) {
    case REQUEST_TYPE.IN:
      return isTransferInRange(chain, disk) ? TO_DISK : STATUS.IOERR;
    case REQUEST_TYPE.OUT:
      return !disk.isReadOnly && isTransferInRange(chain, disk) ? TO_DISK : STATUS.IOERR;
    case REQUEST_TYPE.FLUSH:
      return TO_DISK;
    case REQUEST_TYPE.GET_ID:
      return deviceId.write(chain) ? STATUS.OK : STATUS.IOERR;
    case REQUEST_TYPE.DISCARD:
      return disk.isDiscardOffered ? rangesVerdict(chain) : STATUS.UNSUPPORTED;
    case REQUEST_TYPE.WRITE_ZEROES:
      return disk.isReadOnly ? STATUS.UNSUPPORTED : rangesVerdict(chain);
    default:
      return STATUS.UNSUPPORTED;
  }
}

/** The operation of a request that goes to the disk. */
export function operationOf(type: number): number {
  switch (type) {
    case REQUEST_TYPE.IN:
      return Operation.read;
    case REQUEST_TYPE.OUT:
      return Operation.write;
    case REQUEST_TYPE.FLUSH:
      return Operation.flush;
    case REQUEST_TYPE.DISCARD:
      return Operation.discard;
    default:
      return Operation.writeZeroes;
  }
}

// --- internal ---

function isTransferInRange(chain: BlockChain, disk: PolicyDisk): boolean {
  return (
    chain.isDataMapped &&
    (chain.dataBytes & (SECTOR_BYTES - 1)) === 0 &&
    chain.sector + chain.dataBytes / SECTOR_BYTES <= disk.sectors
  );
}

function rangesVerdict(chain: BlockChain): number {
  return chain.isDataMapped ? TO_DISK : STATUS.IOERR;
}
