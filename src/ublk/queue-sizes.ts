/** How much a queue of a ublk device has. */
import type { DeviceConfig } from "../config/index.ts";
import { UBLK_IO_BYTES_MAX } from "../formats/ublk.ts";

export interface UblkQueueSizes {
  /** Tags, each with a request or none. */
  readonly depth: number;
  /** The largest request. */
  readonly ioBytes: number;
  readonly bufferLimitBytes: number;
}

/** Zeroes of a plain disk, and blocks below the disk's own: the rest needs no bounce buffers. */
const BUFFERS_QUEUE_BYTES = 4 * 2 ** 20;

export function queueSizes(tuning: DeviceConfig["tuning"]): UblkQueueSizes {
  return {
    depth: tuning.queueSize,
    ioBytes: Math.min(tuning.ublkMaxIoBytes, UBLK_IO_BYTES_MAX),
    bufferLimitBytes: BUFFERS_QUEUE_BYTES,
  };
}
