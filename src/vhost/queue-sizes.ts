/** How much a virtqueue of a disk gets of what all of them share. */
import type { DeviceConfig } from "../config/index.ts";
import { CHUNK_BYTES } from "../disk/buffer-pool.ts";

export interface QueueSizes {
  /** Requests under way at once. */
  readonly slots: number;
  readonly segmentsPerSlot: number;
  readonly bufferLimitBytes: number;
}

/** Bounce buffers of all queues together, and the least and most of one. */
const BUFFERS_TOTAL_MAX = 64 * CHUNK_BYTES;
const BUFFERS_QUEUE_MAX = 8 * CHUNK_BYTES;
const BUFFERS_QUEUE_MIN = CHUNK_BYTES;
const SEGMENTS_MIN = 16;
/** Of all slots of a queue together: a large ring has fewer a slot, and requests with more take turns. */
const SEGMENTS_TOTAL_MAX = 2 ** 19;

export function queueSizes(tuning: DeviceConfig["tuning"], slots: number): QueueSizes {
  const segmentsShare = Math.floor(SEGMENTS_TOTAL_MAX / slots);
  const wanted = tuning.queueSize * tuning.segSizeMax * tuning.segCountMax;
  const share = Math.min(BUFFERS_QUEUE_MAX, Math.floor(BUFFERS_TOTAL_MAX / tuning.numQueues));
  return {
    slots,
    segmentsPerSlot: Math.max(SEGMENTS_MIN, Math.min(tuning.segCountMax, segmentsShare)),
    bufferLimitBytes: Math.max(BUFFERS_QUEUE_MIN, Math.min(wanted, share)),
  };
}
