/**
 * What a queue did and does, in memory shared by its worker (the only writer) and the RPC server.
 *
 *   doubles | COUNTERS | latency: 3 sums, 3 histograms x BUCKETS | in flight: sector, start time by slot |
 *   words   |                                                    | in flight: operation + 1, sectors by slot |
 *
 * A slot's operation is written last and cleared first. All stores are plain ones: a fence for each would cost
 * more than the rest of this file, so a reader may see an entry a moment late, or fields of two requests that
 * followed each other.
 */
import { Operation } from "../disk/request-table.ts";
import { f64, i32 } from "../ffi/view.ts";

/** Places of the counters; all count from the start of the process, but for `inFlight` and `stopped`. */
export const Counter = {
  bytesRead: 0,
  bytesWritten: 1,
  readOps: 2,
  writeOps: 3,
  flushOps: 4,
  discardOps: 5,
  writeZeroesOps: 6,
  completed: 7,
  failed: 8,
  inFlight: 9,
  kicks: 10,
  calls: 11,
  badChains: 12,
  readsThrottled: 13,
  writesThrottled: 14,
  readThrottledNs: 15,
  writeThrottledNs: 16,
  /** 1 while its ring is left alone, until the guest sets it up anew; else 0. */
  stopped: 17,
} as const;

const COUNTERS = Object.keys(Counter).length;

/** Operations with a latency histogram, in its order. */
export const LATENCY_OPERATIONS = ["read", "write", "flush"] as const;

/** Buckets of a histogram: below 8 ns one each, then 8 to a power of two, up to 2^40 ns (18 minutes). */
export const BUCKETS = 8 + 37 * 8;

/** The longest latency that has a bucket; longer ones share it. */
const LATENCY_MAX_NS = 2 ** 40 - 1;

const SUM_START = COUNTERS;
const HISTOGRAM_START = SUM_START + LATENCY_OPERATIONS.length;
const IN_FLIGHT_START = HISTOGRAM_START + LATENCY_OPERATIONS.length * BUCKETS;

/** A request under way. */
export interface InFlightEntry {
  readonly slot: number;
  readonly operation: "read" | "write" | "flush" | "discard" | "write_zeroes";
  readonly sector: number;
  readonly sectorCount: number;
  readonly startedNs: number;
}

/** By `Operation`; the same in answers, metrics and the log. */
export const OPERATION_NAMES = ["read", "write", "flush", "discard", "write_zeroes"] as const;

export class QueueStatistics {
  readonly #doubles: Float64Array;
  readonly #words: Int32Array;
  readonly #slots: number;

  constructor(shared: SharedArrayBuffer, slots: number) {
    this.#slots = slots;
    const doubles = IN_FLIGHT_START + slots * 2;
    this.#doubles = new Float64Array(shared, 0, doubles);
    this.#words = new Int32Array(shared, doubles * 8, slots * 2);
  }

  static sharedBytes(slots: number): number {
    return (IN_FLIGHT_START + slots * 2) * 8 + slots * 2 * 4;
  }

  /** A request was handed to the disk. */
  begin(slot: number, operation: number, sector: number, bytes: number, nowNs: number): void {
    const doubles = this.#doubles;
    if (operation === Operation.read) {
      this.#add(Counter.readOps, 1);
      this.#add(Counter.bytesRead, bytes);
    } else if (operation === Operation.write) {
      this.#add(Counter.writeOps, 1);
      this.#add(Counter.bytesWritten, bytes);
    } else if (operation === Operation.flush) {
      this.#add(Counter.flushOps, 1);
    } else {
      this.#add(operation === Operation.discard ? Counter.discardOps : Counter.writeZeroesOps, 1);
    }
    this.#add(Counter.inFlight, 1);
    doubles[IN_FLIGHT_START + slot] = sector;
    doubles[IN_FLIGHT_START + this.#slots + slot] = nowNs;
    this.#words[this.#slots + slot] = bytes / 512;
    this.#words[slot] = operation + 1;
  }

  /** The request of `slot` ended. */
  end(slot: number, isOk: boolean, nowNs: number): void {
    const operation = i32(this.#words, slot) - 1;
    this.#words[slot] = 0;
    this.#add(Counter.inFlight, -1);
    this.#add(isOk ? Counter.completed : Counter.failed, 1);
    if (operation <= Operation.flush) {
      const latencyNs = nowNs - f64(this.#doubles, IN_FLIGHT_START + this.#slots + slot);
      const at = HISTOGRAM_START + operation * BUCKETS + bucketOf(latencyNs);
      this.#doubles[at] = f64(this.#doubles, at) + 1;
      if (latencyNs > 0) {
        this.#add(SUM_START + operation, latencyNs);
      }
    }
  }

  setStopped(isStopped: boolean): void {
    this.#doubles[Counter.stopped] = isStopped ? 1 : 0;
  }

  /** Adds to a counter of `Counter`. */
  count(counter: number, amount: number): void {
    this.#add(counter, amount);
  }

  counter(counter: number): number {
    return f64(this.#doubles, counter);
  }

  /** Counts by bucket; see `bucketLimitNs`. */
  latencies(operation: (typeof LATENCY_OPERATIONS)[number]): Float64Array {
    const start = HISTOGRAM_START + LATENCY_OPERATIONS.indexOf(operation) * BUCKETS;
    return this.#doubles.slice(start, start + BUCKETS);
  }

  /** All latencies of an operation together. */
  latencySumNs(operation: (typeof LATENCY_OPERATIONS)[number]): number {
    return f64(this.#doubles, SUM_START + LATENCY_OPERATIONS.indexOf(operation));
  }

  /** What is under way, by slot. */
  inFlight(): readonly InFlightEntry[] {
    const entries: InFlightEntry[] = [];
    for (let slot = 0; slot < this.#slots; slot++) {
      const operation = OPERATION_NAMES[Atomics.load(this.#words, slot) - 1];
      if (operation !== undefined) {
        entries.push({
          slot,
          operation,
          sector: f64(this.#doubles, IN_FLIGHT_START + slot),
          sectorCount: i32(this.#words, this.#slots + slot),
          startedNs: f64(this.#doubles, IN_FLIGHT_START + this.#slots + slot),
        });
      }
    }
    return entries;
  }

  // --- internal ---

  #add(counter: number, amount: number): void {
    this.#doubles[counter] = f64(this.#doubles, counter) + amount;
  }
}

/** The bucket of a latency. */
export function bucketOf(latencyNs: number): number {
  if (latencyNs < 8) {
    return latencyNs > 0 ? Math.floor(latencyNs) : 0;
  }
  return latencyNs < 2 ** 30
    ? bucketOfInteger(latencyNs | 0)
    : // Low bits that such a bucket does not look at are dropped: it fits an integer again.
      bucketOfInteger((Math.min(latencyNs, LATENCY_MAX_NS) / 1024) | 0) + 10 * 8;
}

/** @param value 8 to 2^30 - 1 */
function bucketOfInteger(value: number): number {
  const exponent = 31 - Math.clz32(value);
  return (exponent - 2) * 8 + ((value >>> (exponent - 3)) & 7);
}

/** The first latency, in nanoseconds, that no longer belongs to `bucket`. */
export function bucketLimitNs(bucket: number): number {
  if (bucket < 8) {
    return bucket + 1;
  }
  const exponent = Math.floor((bucket - 8) / 8);
  const part = (bucket - 8) % 8;
  return (8 + part + 1) * 2 ** exponent;
}

/**
 * A latency that `fraction` (0 to 1) of those in a histogram stay below, at most an eighth too high;
 * undefined when there are none.
 */
export function percentileNs(counts: Float64Array, fraction: number): number | undefined {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const rank = Math.max(1, Math.ceil(total * fraction));
  let seen = 0;
  for (const [bucket, count] of counts.entries()) {
    seen += count;
    if (seen >= rank) {
      return bucketLimitNs(bucket);
    }
  }
  return undefined;
}
