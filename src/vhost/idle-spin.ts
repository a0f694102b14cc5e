/**
 * Decides how long a queue worker looks for work before it sleeps. A sleep and the wake-up after it cost
 * about as much CPU time as SPIN_MAX_NS of looking: so it looks only while work has lately come sooner
 * than that, and never longer. On a disk that takes longer to answer it never looks at all.
 *
 *   mean gap, a moving average   |----- below: look -----| SPIN_MAX_NS |----- above: sleep at once -----|
 *
 * `poll_timeout_us` bounds it further; 0 turns it off.
 */

const SPIN_MAX_NS = 30_000;
/** A gap counts for at most this much, so that one long pause is soon forgotten. */
const GAP_MAX_NS = 120_000;
const WEIGHT = 1 / 8;

export class IdleSpin {
  readonly #limitNs: number;
  #meanGapNs = GAP_MAX_NS;

  constructor(pollTimeoutUs: number) {
    this.#limitNs = Math.min(SPIN_MAX_NS, pollTimeoutUs * 1000);
  }

  /** How long to look for work now, nanoseconds; 0 to sleep at once. */
  limitNs(): number {
    return this.#meanGapNs <= this.#limitNs ? this.#limitNs : 0;
  }

  /** Work came `gapNs` after the worker ran out of it. */
  learn(gapNs: number): void {
    const gap = Math.min(gapNs, GAP_MAX_NS);
    this.#meanGapNs += (gap - this.#meanGapNs) * WEIGHT;
  }
}
