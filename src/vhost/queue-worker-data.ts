/** What the thread of a virtqueue is started with, as plain data. */
import type { DiskDescription, SharedDiskState } from "../device/disk-device.ts";
import type { SharedPulse } from "../device/heartbeat.ts";

export interface QueueWorkerData {
  readonly queue: number;
  readonly queues: number;
  /** Requests under way at once. */
  readonly slots: number;
  readonly segmentsPerSlot: number;
  readonly bufferLimitBytes: number;
  readonly ioEngine: "io_uring" | "sync";
  readonly cpu: number | undefined;
  readonly pollTimeoutUs: number;
  readonly deviceId: string;
  readonly disk: DiskDescription;
  readonly shared: SharedDiskState;
  readonly memoryTable: SharedArrayBuffer;
  readonly mailbox: SharedArrayBuffer;
  readonly pulse: SharedPulse;
  readonly wakeFds: readonly number[];
  /** Of the control worker. */
  readonly controlWakeFd: number;
}
