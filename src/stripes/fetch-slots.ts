/**
 * The fetch buffers as the fetcher has them: which are free, and what the others hold and wait for.
 *
 *   free -> source -> base or zero -> free          recalled: a queue still reads it
 *             +-----> dropped -------> free          dropped: nobody wants what comes from the source
 */
import { assert } from "../errors.ts";
import { f64, i32, u8 } from "../ffi/view.ts";
import type { StripeState } from "./stripe-state.ts";

export const Stage = { free: 0, source: 1, base: 2, zero: 3, recalled: 4, dropped: 5 } as const;

export class FetchSlots {
  readonly count: number;
  readonly #state: StripeState;
  // Columns by buffer:
  readonly #stage: Uint8Array;
  readonly #stripe: Float64Array;
  readonly #freeBuffers: Int32Array;
  #freeCount = 0;
  #recalled = 0;

  constructor(state: StripeState) {
    this.count = state.shared.buffers;
    this.#state = state;
    this.#stage = new Uint8Array(this.count);
    this.#stripe = new Float64Array(this.count);
    this.#freeBuffers = new Int32Array(this.count);
    for (let buffer = this.count - 1; buffer >= 0; buffer--) {
      this.#free(buffer);
    }
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  get areAllFree(): boolean {
    return this.#freeCount === this.count;
  }

  /** Buffers that are free as soon as no queue reads them. */
  get recalled(): number {
    return this.#recalled;
  }

  /** The base is being written. */
  get isWriting(): boolean {
    return this.#stage.some((stage) => stage === Stage.base || stage === Stage.zero);
  }

  stage(buffer: number): number {
    return u8(this.#stage, buffer);
  }

  setStage(buffer: number, stage: number): void {
    this.#stage[buffer] = stage;
  }

  stripe(buffer: number): number {
    return f64(this.#stripe, buffer);
  }

  /** Takes a free buffer for a stripe that comes from the source. */
  take(stripe: number): number {
    assert(this.#freeCount > 0, "a buffer is free");
    this.#freeCount -= 1;
    const buffer = i32(this.#freeBuffers, this.#freeCount);
    this.#stage[buffer] = Stage.source;
    this.#stripe[buffer] = stripe;
    this.#state.count("inFlight", 1);
    return buffer;
  }

  /** Nothing is to be done with the buffer any more; it is free when no queue reads it. */
  release(buffer: number): void {
    this.#state.count("inFlight", -1);
    if (this.#state.isPinned(buffer)) {
      this.#stage[buffer] = Stage.recalled;
      this.#recalled += 1;
    } else {
      this.#free(buffer);
    }
  }

  freeRecalled(): void {
    for (let buffer = 0; this.#recalled > 0 && buffer < this.count; buffer++) {
      if (u8(this.#stage, buffer) === Stage.recalled && !this.#state.isPinned(buffer)) {
        this.#recalled -= 1;
        this.#free(buffer);
      }
    }
  }

  /** The buffer into which the stripe comes from the source; -1 for none. */
  find(stripe: number): number {
    for (let buffer = 0; buffer < this.count; buffer++) {
      if (u8(this.#stage, buffer) === Stage.source && f64(this.#stripe, buffer) === stripe) {
        return buffer;
      }
    }
    return -1;
  }

  /** Whether a buffer has the stripe, on its way from the source or to the base. */
  holds(stripe: number): boolean {
    for (let buffer = 0; buffer < this.count; buffer++) {
      const stage = u8(this.#stage, buffer);
      const isUnderWay = stage === Stage.source || stage === Stage.base || stage === Stage.zero;
      if (isUnderWay && f64(this.#stripe, buffer) === stripe) {
        return true;
      }
    }
    return false;
  }

  // --- internal ---

  #free(buffer: number): void {
    this.#stage[buffer] = Stage.free;
    this.#freeBuffers[this.#freeCount] = buffer;
    this.#freeCount += 1;
  }
}
