/**
 * A source that was opened and checked, as the main thread has it: it knows what the source holds, and starts the
 * workers that read it. Raw images are opened elsewhere: they are read without workers (open-raw-source.ts).
 */
import type { SourceWorkers } from "./source-workers.ts";

export interface OpenedSource extends AsyncDisposable {
  /** As messages name it: "archive s3://bucket/prefix", "stripe server host:port". */
  readonly name: string;
  /** Exact: the last stripe may be short. */
  readonly sectors: number;
  readonly stripeSectors: number;

  has(stripe: number): boolean;

  /**
   * Starts the workers; once. They end with `SourceWorkers.stop`, before the source is disposed of.
   * @throws UbiError E_MEMORY
   */
  start(options: SourceStart): SourceWorkers;
}

export interface SourceStart {
  /** Requests under way at once; their ids are below it. */
  readonly requestsMax: number;
  /** A worker failed: requests may never end. Called once at most. */
  readonly onFailure: (message: string) => void;
}
