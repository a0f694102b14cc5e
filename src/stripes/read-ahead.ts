/**
 * Guesses which stripes are wanted next from those that were: demands that go upwards bring what follows.
 *
 *   demands   5          6                7 .. 8         9
 *   ahead     nothing    7                (7: inside)    9 is the next one: 10, 11;  then 12 to 15, ...
 *
 * A demand that follows what was brought doubles the window; what a guest finds there asks for nothing, so the
 * next demand comes at the window's end. Any other demand begins a new stream without a window. Several streams
 * are followed at a time, since guests read several files at a time.
 */
import { f64, i32 } from "../ffi/view.ts";

const STREAMS = 8;
const NONE = -1;

export class ReadAhead {
  /** Stripes worth bringing after the last `note`: `count` of them from `first` on. */
  first = 0;
  count = 0;
  readonly #windowMax: number;
  /** By stream: the last demand that moved it, the first stripe not asked for, stripes brought last, last use. */
  readonly #start = new Float64Array(STREAMS).fill(NONE);
  readonly #end = new Float64Array(STREAMS).fill(NONE);
  readonly #window = new Int32Array(STREAMS);
  readonly #usedAt = new Float64Array(STREAMS);
  #uses = 0;

  /** @param windowMax stripes; 0 turns it off */
  constructor(windowMax: number) {
    this.#windowMax = windowMax;
  }

  /** Somebody asked for the stripe. */
  note(stripe: number): void {
    this.count = 0;
    if (this.#windowMax === 0) {
      return;
    }
    this.#uses += 1;
    for (let stream = 0; stream < STREAMS; stream++) {
      const end = f64(this.#end, stream);
      if (stripe === end) {
        this.#follow(stream, stripe);
        return;
      }
      if (stripe >= f64(this.#start, stream) && stripe < end) {
        this.#usedAt[stream] = this.#uses;
        return;
      }
    }
    this.#begin(stripe);
  }

  // --- internal ---

  #follow(stream: number, stripe: number): void {
    const window = Math.min(this.#windowMax, Math.max(1, i32(this.#window, stream) * 2));
    this.#window[stream] = window;
    this.#start[stream] = stripe;
    this.#end[stream] = stripe + 1 + window;
    this.#usedAt[stream] = this.#uses;
    this.first = stripe + 1;
    this.count = window;
  }

  /** In the place of the stream that was not used for the longest time. */
  #begin(stripe: number): void {
    let oldest = 0;
    for (let stream = 1; stream < STREAMS; stream++) {
      if (f64(this.#usedAt, stream) < f64(this.#usedAt, oldest)) {
        oldest = stream;
      }
    }
    this.#window[oldest] = 0;
    this.#start[oldest] = stripe;
    this.#end[oldest] = stripe + 1;
    this.#usedAt[oldest] = this.#uses;
  }
}
