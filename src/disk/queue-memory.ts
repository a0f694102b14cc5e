/** The memory that the requests of one queue take at most, by the sizes that its parts allocate. */
import { BufferPool } from "./buffer-pool.ts";
import { RangeLists } from "./range-lists.ts";
import { RequestTable } from "./request-table.ts";
import { TransferRunner } from "./transfer-runner.ts";
import { ringBytes } from "./uring-setup.ts";

export interface QueueMemory {
  /** Taken chunk by chunk as they are needed. */
  readonly bufferBytes: number;
  /** What is known of each request under way. */
  readonly requestBytes: number;
  /** Of the io_uring. */
  readonly ringBytes: number;
}

export function queueMemory(options: {
  readonly slots: number;
  readonly segmentsPerSlot: number;
  readonly bufferLimitBytes: number;
}): QueueMemory {
  const { slots, segmentsPerSlot, bufferLimitBytes } = options;
  const table = new RequestTable(slots, segmentsPerSlot);
  return {
    bufferBytes: BufferPool.bytesMax(bufferLimitBytes),
    requestBytes: table.sizeBytes + TransferRunner.vectorBytes(table) + RangeLists.listBytes(slots),
    ringBytes: ringBytes(slots),
  };
}
