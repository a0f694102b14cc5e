/** What guests of the benchmark's lazy disks ask for: single requests, bursts, and reads beside fetches. */

import type { DriverQueue } from "../../src/bench/driver-queue.ts";
import { Engine } from "../../src/bench/engine.ts";
import type { FrontEnd } from "../../src/bench/front-end.ts";
import { Histogram } from "../../src/bench/histogram.ts";
import { Random } from "../../src/bench/random.ts";
import type { Work } from "../../src/bench/work.ts";
import { REQUEST_TYPE, SECTOR_BYTES, STATUS } from "../../src/formats/virtio-blk.ts";
import { STRIPE_BYTES } from "./lazy-disk.ts";

const TIMEOUT_MS = 30_000;
const BLOCK_BYTES = 4096;
const STRIPE_SECTORS = STRIPE_BYTES / SECTOR_BYTES;

/** A guest that waits for each burst of requests before the next one. */
export class Guest implements Disposable {
  readonly #engine: Engine;

  constructor(frontEnd: FrontEnd) {
    this.#engine = new Engine({ frontEnd, timeoutMs: TIMEOUT_MS, spinUs: 0 });
  }

  /** Reads 4 KiB of a stripe; how long that took, ns. */
  read(stripe: number): number {
    return this.#burst(REQUEST_TYPE.IN, [stripe]);
  }

  /** Writes 4 KiB of each stripe, all at once; how long all of that took, ns. */
  write(stripes: readonly number[]): number {
    return this.#burst(REQUEST_TYPE.OUT, stripes);
  }

  run(work: Work): void {
    this.#engine.run(work);
  }

  [Symbol.dispose](): void {
    this.#engine[Symbol.dispose]();
  }

  // --- internal ---

  #burst(type: number, stripes: readonly number[]): number {
    const burst = new Burst(type, stripes);
    this.#engine.run(burst);
    return burst.elapsedNs;
  }
}

class Burst implements Work {
  readonly #type: number;
  readonly #stripes: readonly number[];
  #begun = 0;
  #beginNs = 0;
  #endNs = 0;

  constructor(type: number, stripes: readonly number[]) {
    this.#type = type;
    this.#stripes = stripes;
  }

  get elapsedNs(): number {
    return this.#endNs - this.#beginNs;
  }

  start(queue: DriverQueue, slot: number, nowNs: number): boolean {
    const stripe = this.#stripes[this.#begun];
    if (stripe === undefined) {
      return false;
    }
    this.#beginNs ||= nowNs;
    this.#begun += 1;
    queue.describe(slot, this.#type, stripe * STRIPE_SECTORS, BLOCK_BYTES);
    return true;
  }

  finish(_queue: DriverQueue, _slot: number, status: number, nowNs: number): void {
    checkStatus(status);
    this.#endNs = nowNs;
  }

  turn(): void {
    // All is begun in the first turn.
  }
}

export interface BesideOptions {
  /** Stripes that are there, read at random. */
  readonly ready: { readonly first: number; readonly count: number };
  readonly readsAtOnce: number;
  /** Stripes that are not there, and how many of them are waited for at any time. */
  readonly missing: Iterator<number>;
  readonly fetchesAtOnce: number;
  readonly startNs: number;
  readonly warmupNs: number;
  readonly durationNs: number;
  readonly seed: number;
}

const Kind = { none: 0, read: 1, fetch: 2 } as const;

/** Reads of ready stripes, while others are waited for by writes that need them fetched. */
export class ReadsBesideFetches implements Work {
  /** Of the reads in the measured time. */
  readonly latency = new Histogram();
  /** Fetches that ended. */
  fetches = 0;
  readonly #options: BesideOptions;
  readonly #random: Random;
  readonly #kind: Uint8Array;
  readonly #startNs: Float64Array;
  #reads = 0;
  #fetching = 0;
  #nowNs = 0;

  constructor(options: BesideOptions, slots: number) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#kind = new Uint8Array(slots);
    this.#startNs = new Float64Array(slots);
    this.#nowNs = options.startNs;
  }

  start(queue: DriverQueue, slot: number, nowNs: number): boolean {
    const { readsAtOnce, fetchesAtOnce, missing, ready } = this.#options;
    if (this.#isOver) {
      return false;
    }
    if (this.#fetching < fetchesAtOnce) {
      const { value, done } = missing.next();
      if (done === true) {
        throw new Error("all stripes were fetched during the samples; a larger --size has more");
      }
      this.#begin(slot, Kind.fetch, nowNs);
      this.#fetching += 1;
      queue.describe(slot, REQUEST_TYPE.OUT, value * STRIPE_SECTORS, BLOCK_BYTES);
      return true;
    }
    if (this.#reads < readsAtOnce) {
      this.#begin(slot, Kind.read, nowNs);
      this.#reads += 1;
      const blocks = (ready.count * STRIPE_BYTES) / BLOCK_BYTES;
      const sector = this.#random.below(blocks) * (BLOCK_BYTES / SECTOR_BYTES);
      queue.describe(slot, REQUEST_TYPE.IN, ready.first * STRIPE_SECTORS + sector, BLOCK_BYTES);
      return true;
    }
    return false;
  }

  finish(_queue: DriverQueue, slot: number, status: number, nowNs: number): void {
    checkStatus(status);
    if (this.#kind[slot] === Kind.fetch) {
      this.#fetching -= 1;
      this.fetches += 1;
      return;
    }
    this.#reads -= 1;
    const startNs = this.#startNs[slot] ?? 0;
    const { startNs: beginNs, warmupNs } = this.#options;
    if (startNs >= beginNs + warmupNs && !this.#isOver) {
      this.latency.record(nowNs - startNs);
    }
  }

  turn(nowNs: number): void {
    this.#nowNs = nowNs;
  }

  // --- internal ---

  get #isOver(): boolean {
    const { startNs, warmupNs, durationNs } = this.#options;
    return this.#nowNs >= startNs + warmupNs + durationNs;
  }

  #begin(slot: number, kind: number, nowNs: number): void {
    this.#kind[slot] = kind;
    this.#startNs[slot] = nowNs;
  }
}

function checkStatus(status: number): void {
  if (status !== STATUS.OK) {
    throw new Error(`a request ended with status ${status}`);
  }
}
