/**
 * Decides how long a queue worker looks for work before it sleeps: only while work has lately come sooner
 * than a limit, and never longer than that.
 *
 *   mean gap, a moving average   |----- below the limit: look -----|----- above: sleep at once -----|
 *
 * Waiting for the disk, the limit is what a sleep costs: the worker's own CPU time for it, measured now and
 * then, and about as much for the interrupt. Waiting for a guest that has nothing under way, a sleeping worker
 * would add its wake-up to every request of the next batch: there the limit grows with the batches that come.
 * `poll_timeout_us` bounds both; 0 turns looking off.
 */

/** What the worker waits for. */
export type Awaited = "guest" | "disk";

const GUEST_LIMIT_MAX_NS = 100_000;
/** For each request that lately came in one batch. */
const REQUEST_NS = 3_000;
const DISK_LIMIT_MIN_NS = 4_000;
const DISK_LIMIT_MAX_NS = 50_000;
/** The disk's limit in multiples of what a sleep costs this thread. */
const SLEEP_COSTS = 2;
/** One in so many sleeps is measured. */
const MEASURED = 64;
/** A gap counts for at most this much, so that one long pause is soon forgotten. */
const GAP_MAX_NS = 400_000;
const WEIGHT = 1 / 8;

export class IdleSpin {
  readonly #awaited: Awaited;
  readonly #boundNs: number;
  #sleepCostNs = DISK_LIMIT_MIN_NS / SLEEP_COSTS;
  #meanGapNs = GAP_MAX_NS;
  #meanBatch = 1;
  #sleeps = 0;

  constructor(awaited: Awaited, pollTimeoutUs: number) {
    this.#awaited = awaited;
    this.#boundNs = pollTimeoutUs * 1000;
  }

  /** How long to look for work now, nanoseconds; 0 to sleep at once. */
  limitNs(): number {
    const limitNs = Math.min(
      this.#boundNs,
      this.#awaited === "guest"
        ? Math.min(GUEST_LIMIT_MAX_NS, this.#meanBatch * REQUEST_NS)
        : this.#sleepCostNs * SLEEP_COSTS,
    );
    return this.#meanGapNs <= limitNs ? limitNs : 0;
  }

  /** Work came `gapNs` after the worker ran out of it. */
  learn(gapNs: number): void {
    const gap = Math.min(gapNs, GAP_MAX_NS);
    this.#meanGapNs += (gap - this.#meanGapNs) * WEIGHT;
  }

  /** So many requests came at once. */
  learnBatch(requests: number): void {
    this.#meanBatch += (requests - this.#meanBatch) * WEIGHT;
  }

  /** True when the sleep that follows is to be measured. */
  isMeasured(): boolean {
    this.#sleeps = (this.#sleeps + 1) % MEASURED;
    return this.#sleeps === 1;
  }

  /** A sleep took `cpuNs` of this thread's CPU time. */
  learnSleep(cpuNs: number): void {
    const cost = Math.min(cpuNs, DISK_LIMIT_MAX_NS / SLEEP_COSTS);
    this.#sleepCostNs += (cost - this.#sleepCostNs) * WEIGHT;
  }
}
