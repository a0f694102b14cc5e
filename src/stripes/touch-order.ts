/** The stripes that were asked for, in the order in which that happened first, as runs. */
import { u8 } from "../ffi/view.ts";

/** Runs that are kept; a guest that jumps about more than that has the rest left out. */
const RUNS_MAX = 2 ** 18;

export interface StripeRun {
  readonly first: number;
  readonly count: number;
}

export class TouchOrder {
  /** One bit a stripe. */
  readonly #isTouched: Uint8Array;
  readonly #runs: { first: number; count: number }[] = [];
  /** Grows with every stripe that is new. */
  changes = 0;

  constructor(stripeCount: number) {
    this.#isTouched = new Uint8Array(Math.ceil(stripeCount / 8));
  }

  get runs(): readonly StripeRun[] {
    return this.#runs;
  }

  note(stripe: number): void {
    const place = Math.floor(stripe / 8);
    const bit = 1 << (stripe % 8);
    const last = this.#runs.at(-1);
    const isNext = last !== undefined && stripe === last.first + last.count;
    const isFull = !isNext && this.#runs.length === RUNS_MAX;
    if ((u8(this.#isTouched, place) & bit) !== 0 || isFull) {
      return;
    }
    this.#isTouched[place] = u8(this.#isTouched, place) | bit;
    this.changes += 1;
    if (isNext) {
      last.count += 1;
    } else {
      this.#runs.push({ first: stripe, count: 1 });
    }
  }
}
