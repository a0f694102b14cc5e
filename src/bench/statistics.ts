/** What a run counted: latencies for each kind of request, bytes, failures, and CPU time. */
import { UbiError } from "../errors.ts";
import { REQUEST_TYPE, STATUS } from "../formats/virtio-blk.ts";
import { Histogram } from "./histogram.ts";

export interface Failure {
  readonly type: number;
  readonly sector: number;
  readonly status: number;
}

export class Statistics {
  readonly read = new Histogram();
  readonly write = new Histogram();
  readonly flush = new Histogram();
  #bytes = 0;
  #failures = 0;
  #firstFailure: Failure | undefined;

  get bytes(): number {
    return this.#bytes;
  }

  get failures(): number {
    return this.#failures;
  }

  get firstFailure(): Failure | undefined {
    return this.#firstFailure;
  }

  get operations(): number {
    return this.read.count + this.write.count + this.flush.count;
  }

  record(type: number, lengthBytes: number, latencyNs: number): void {
    this.#bytes += lengthBytes;
    if (type === REQUEST_TYPE.IN) {
      this.read.record(latencyNs);
    } else if (type === REQUEST_TYPE.OUT) {
      this.write.record(latencyNs);
    } else {
      this.flush.record(latencyNs);
    }
  }

  recordFailure(type: number, sector: number, status: number): void {
    this.#failures += 1;
    this.#firstFailure ??= { type, sector, status };
  }
}

/** @throws UbiError E_BENCH when a request failed */
export function failOnFailures(statistics: Statistics): void {
  const first = statistics.firstFailure;
  if (first !== undefined) {
    const text = failureText(first);
    throw new UbiError("E_BENCH", `${statistics.failures} requests failed; the first: ${text}`);
  }
}

// --- internal ---

function failureText(failure: Failure): string {
  const request = TYPE_NAMES.get(failure.type) ?? `request ${failure.type}`;
  const status = STATUS_NAMES.get(failure.status) ?? `status ${failure.status}`;
  return `${request} at sector ${failure.sector} ended with ${status}`;
}

const TYPE_NAMES: ReadonlyMap<number, string> = new Map([
  [REQUEST_TYPE.IN, "read"],
  [REQUEST_TYPE.OUT, "write"],
  [REQUEST_TYPE.FLUSH, "flush"],
]);

const STATUS_NAMES: ReadonlyMap<number, string> = new Map([
  [STATUS.OK, "OK"],
  [STATUS.IOERR, "an I/O error"],
  [STATUS.UNSUPPORTED, '"unsupported"'],
  [0xff, "no status written"],
]);
