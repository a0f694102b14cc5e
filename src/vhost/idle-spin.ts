/**
 * Decides how long a queue worker looks for work before it sleeps. A sleep and its wake-up cost CPU time on
 * both sides: the worker's, which is measured now and then, and about as much for whoever must kick or
 * interrupt it. So the worker looks only while work has lately come sooner than both together cost, and
 * never longer; on a disk that takes longer to answer it never looks at all.
 *
 *   mean gap, a moving average   |----- below the limit: look -----|----- above: sleep at once -----|
 *
 * `poll_timeout_us` bounds it further; 0 turns it off.
 */

/** The limit in multiples of what a sleep costs this thread. */
const SLEEP_COSTS = 2;
const LIMIT_MIN_NS = 4_000;
const LIMIT_MAX_NS = 50_000;
/** One in so many sleeps is measured. */
const MEASURED = 64;
/** A gap counts for at most this much, so that one long pause is soon forgotten. */
const GAP_MAX_NS = 4 * LIMIT_MAX_NS;
const WEIGHT = 1 / 8;

export class IdleSpin {
  readonly #boundNs: number;
  #sleepCostNs = LIMIT_MIN_NS;
  #meanGapNs = GAP_MAX_NS;
  #sleeps = 0;

  constructor(pollTimeoutUs: number) {
    this.#boundNs = Math.min(LIMIT_MAX_NS, pollTimeoutUs * 1000);
  }

  /** How long to look for work now, nanoseconds; 0 to sleep at once. */
  limitNs(): number {
    const limitNs = Math.min(
      this.#boundNs,
      Math.max(LIMIT_MIN_NS, this.#sleepCostNs * SLEEP_COSTS),
    );
    return this.#meanGapNs <= limitNs ? limitNs : 0;
  }

  /** Work came `gapNs` after the worker ran out of it. */
  learn(gapNs: number): void {
    const gap = Math.min(gapNs, GAP_MAX_NS);
    this.#meanGapNs += (gap - this.#meanGapNs) * WEIGHT;
  }

  /** True when the sleep that follows is to be measured. */
  isMeasured(): boolean {
    this.#sleeps = (this.#sleeps + 1) % MEASURED;
    return this.#sleeps === 1;
  }

  /** A sleep took `cpuNs` of this thread's CPU time. */
  learnSleep(cpuNs: number): void {
    this.#sleepCostNs += (Math.min(cpuNs, LIMIT_MAX_NS) - this.#sleepCostNs) * WEIGHT;
  }
}
