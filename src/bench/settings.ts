/** What the command line asks for; checked there. */

export const WORKLOADS = ["randread", "randwrite", "read", "write", "verify"] as const;

export type WorkloadName = (typeof WORKLOADS)[number];

export interface BenchSettings {
  readonly socketPath: string;
  readonly workload: WorkloadName;
  readonly blockBytes: number;
  readonly queueDepth: number;
  readonly queueCount: number;
  /** Data descriptors that a block is cut into. */
  readonly segments: number;
  /** Undefined: 10 s, of `verify` two rounds. */
  readonly seconds: number | undefined;
  readonly warmupSeconds: number;
  readonly offsetBytes: number;
  readonly sizeBytes: number | undefined;
  readonly seed: number;
  readonly flushEvery: number;
  readonly spinUs: number;
  readonly timeoutMs: number;
  readonly pid: number | undefined;
  readonly journalPath: string | undefined;
  readonly checkPath: string | undefined;
  readonly isPowerLoss: boolean;
  readonly usesEventIndex: boolean;
  readonly usesReplyAck: boolean;
  readonly usesMemorySlots: boolean;
  readonly isIndirect: boolean;
  readonly isPacked: boolean;
  /** Outlive the backend, with the help of what it noted of requests in flight or without. */
  readonly isReconnecting: boolean;
  readonly usesInflight: boolean;
}
