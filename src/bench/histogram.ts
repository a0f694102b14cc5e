/**
 * Latencies in buckets: 32 to each power of two, so that a percentile is at most 3 % too high. Recording
 * costs a few instructions and never allocates.
 */
import { f64 } from "../ffi/view.ts";

/** 8 ns: values up to 34 s have a bucket of their own, longer ones share the last. */
const UNIT_NS = 8;
const SUB_BUCKET_BITS = 5;
const SUB_BUCKETS = 1 << SUB_BUCKET_BITS;
const VALUE_MAX = 2 ** 32 - 1;
const BUCKET_COUNT = (32 - SUB_BUCKET_BITS + 1) * SUB_BUCKETS;

export class Histogram {
  readonly #counts = new Float64Array(BUCKET_COUNT);
  #count = 0;
  #sumNs = 0;
  #maxNs = 0;

  get count(): number {
    return this.#count;
  }

  get maxNs(): number {
    return this.#maxNs;
  }

  get meanNs(): number {
    return this.#count === 0 ? 0 : this.#sumNs / this.#count;
  }

  record(ns: number): void {
    const index = bucketOf(ns);
    this.#counts[index] = f64(this.#counts, index) + 1;
    this.#count += 1;
    this.#sumNs += ns;
    if (ns > this.#maxNs) {
      this.#maxNs = ns;
    }
  }

  /** The latency that `fraction` (0 to 1) of all do not exceed: upper end of its bucket. */
  percentileNs(fraction: number): number {
    const rank = Math.max(1, Math.ceil(this.#count * fraction));
    let seen = 0;
    for (let index = 0; index < BUCKET_COUNT; index++) {
      seen += f64(this.#counts, index);
      if (seen >= rank) {
        return Math.min(upperEndNs(index), this.#maxNs);
      }
    }
    return this.#maxNs;
  }
}

// --- internal ---

function bucketOf(ns: number): number {
  const value = Math.min(VALUE_MAX, Math.max(0, Math.floor(ns / UNIT_NS))) >>> 0;
  if (value < SUB_BUCKETS) {
    return value;
  }
  const shift = 31 - Math.clz32(value) - SUB_BUCKET_BITS;
  return (shift + 1) * SUB_BUCKETS + (value >>> shift) - SUB_BUCKETS;
}

function upperEndNs(index: number): number {
  if (index < SUB_BUCKETS) {
    return (index + 1) * UNIT_NS;
  }
  const shift = Math.floor(index / SUB_BUCKETS) - 1;
  return ((index % SUB_BUCKETS) + SUB_BUCKETS + 1) * 2 ** shift * UNIT_NS;
}
