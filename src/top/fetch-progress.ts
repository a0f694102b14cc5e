/** How far the fetch of a disk's stripes is, how fast it goes and when it will be done. */
import type { StripeReading } from "./reading.ts";

export interface FetchSample {
  readonly fetched: number;
  readonly source: number;
  readonly total: number;
  /** Over the last readings; undefined until there are two. */
  readonly stripesPerSecond: number | undefined;
  readonly bytesPerSecond: number | undefined;
  /** Undefined while nothing arrives, and when nothing is missing. */
  readonly etaSeconds: number | undefined;
  readonly failed: number | undefined;
  readonly failedStripes: readonly number[];
}

/** Rates are taken over this time, since single stripes arrive in bursts. */
const WINDOW_MS = 30_000;
/** Readings kept of the window; a shorter interval makes the window shorter. */
const READINGS_MAX = 600;

export class FetchProgress {
  #readings: { readonly fetched: number; readonly atMs: number }[] = [];

  /** Forgets the readings: what follows was counted by another process. */
  reset(): void {
    this.#readings = [];
  }

  add(stripes: StripeReading, nowMs: number): FetchSample {
    const { fetched, source, total, failed, failedStripes, stripeBytes } = stripes;
    const last = this.#readings.at(-1);
    if (last !== undefined && fetched < last.fetched) {
      this.reset();
    }
    this.#readings.push({ fetched, atMs: nowMs });
    while (this.#readings.length > READINGS_MAX || this.#isSecondOldEnough(nowMs)) {
      this.#readings.shift();
    }
    // What the backend tells goes before what was seen here, so that speeds and remaining time agree.
    const stripesPerSecond =
      stripes.bytesPerSecond === undefined || stripeBytes === undefined
        ? this.#rate(nowMs)
        : stripes.bytesPerSecond / stripeBytes;
    const computedBytes =
      stripesPerSecond === undefined || stripeBytes === undefined
        ? undefined
        : stripesPerSecond * stripeBytes;
    return {
      fetched,
      source,
      total,
      stripesPerSecond,
      bytesPerSecond: stripes.bytesPerSecond ?? computedBytes,
      etaSeconds: stripes.etaSeconds ?? eta(source - fetched, stripesPerSecond),
      failed,
      failedStripes,
    };
  }

  // --- internal ---

  /** The oldest reading goes only when the next one covers the window as well. */
  #isSecondOldEnough(nowMs: number): boolean {
    const second = this.#readings[1];
    return second !== undefined && nowMs - second.atMs >= WINDOW_MS;
  }

  #rate(nowMs: number): number | undefined {
    const first = this.#readings[0];
    const last = this.#readings.at(-1);
    if (first === undefined || last === undefined || nowMs <= first.atMs) {
      return undefined;
    }
    return ((last.fetched - first.fetched) / (nowMs - first.atMs)) * 1000;
  }
}

// --- internal ---

function eta(missing: number, stripesPerSecond: number | undefined): number | undefined {
  return missing > 0 && stripesPerSecond !== undefined && stripesPerSecond > 0
    ? missing / stripesPerSecond
    : undefined;
}
