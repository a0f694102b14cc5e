/** How fast stripes become durable: over the last seconds, as far as they were looked at. */

const WINDOW_MS = 10_000;
const SAMPLES_MAX = 64;
/** Between two samples; more frequent looks tell nothing new. */
const INTERVAL_MS = 500;

interface Sample {
  readonly fetched: number;
  readonly atMs: number;
}

export class FetchRate {
  readonly #samples: Sample[] = [];
  #last: Sample | undefined;

  add(fetched: number, nowMs: number): void {
    this.#last = { fetched, atMs: nowMs };
    const newest = this.#samples.at(-1);
    if (newest === undefined || nowMs - newest.atMs >= INTERVAL_MS) {
      this.#samples.push(this.#last);
    }
    while (this.#samples.length > SAMPLES_MAX || this.#isSecondOldEnough(nowMs)) {
      this.#samples.shift();
    }
  }

  get perSecond(): number {
    const first = this.#samples[0];
    const last = this.#last;
    if (first === undefined || last === undefined || last.atMs <= first.atMs) {
      return 0;
    }
    return ((last.fetched - first.fetched) / (last.atMs - first.atMs)) * 1000;
  }

  /** Until so many stripes more are there at this speed; undefined while nothing arrives, or only what is asked for. */
  etaSeconds(missing: number, isBackgroundAtWork: boolean): number | undefined {
    const isOnItsWay = isBackgroundAtWork && missing > 0 && this.perSecond > 0;
    return isOnItsWay ? Math.ceil(missing / this.perSecond) : undefined;
  }

  // --- internal ---

  /** The oldest sample goes only when the next one covers the window as well. */
  #isSecondOldEnough(nowMs: number): boolean {
    const second = this.#samples[1];
    return second !== undefined && nowMs - second.atMs >= WINDOW_MS;
  }
}
