/**
 * What a queue worker tells the stripe worker: a ring of runs of stripes with one writer and one reader.
 *
 *   words    | written | read | entry 0: what, first stripe, count, base failures | entry 1 | ... |
 *
 * `written` and `read` count entries and run freely modulo 2^32; only they are touched by both sides. A full
 * ring takes nothing: the writer keeps what it has to say and tries again after it was woken.
 */
import { assert } from "../errors.ts";
import { u32 } from "../ffi/view.ts";

/** Bits of what a queue wants; `written` goes together with each of the others. */
export const Intent = {
  /** Somebody waits for the stripes' data. */
  fetch: 1,
  /** The guest is going to write: WRITTEN must be durable before. Only of disks that track it. */
  written: 2,
  /** Claimed stripes were replaced on the base: make that durable. */
  changed: 4,
  /** The guest reads from the stripes in the source itself: they are to be kept, but nobody waits. */
  touched: 8,
} as const;

const WRITTEN = 0;
const READ = 1;
const HEADER_WORDS = 2;
const ENTRY_WORDS = 4;

export class IntentRing {
  readonly #indexes: Int32Array;
  readonly #entries: Uint32Array;
  readonly #size: number;

  constructor(shared: SharedArrayBuffer) {
    this.#indexes = new Int32Array(shared, 0, HEADER_WORDS);
    this.#entries = new Uint32Array(shared, HEADER_WORDS * 4);
    this.#size = this.#entries.length / ENTRY_WORDS;
    assert((this.#size & (this.#size - 1)) === 0, "a ring has a power of two of entries");
  }

  static sharedBytes(entries: number): number {
    return (HEADER_WORDS + entries * ENTRY_WORDS) * 4;
  }

  // The queue worker's side:

  /** False when the ring is full. `baseFailures` is of use for `changed` only. */
  push(intent: number, stripe: number, count: number, baseFailures: number): boolean {
    const written = Atomics.load(this.#indexes, WRITTEN);
    if (((written - Atomics.load(this.#indexes, READ)) | 0) >= this.#size) {
      return false;
    }
    const place = (written & (this.#size - 1)) * ENTRY_WORDS;
    this.#entries[place] = intent;
    this.#entries[place + 1] = stripe;
    this.#entries[place + 2] = count;
    this.#entries[place + 3] = baseFailures;
    Atomics.store(this.#indexes, WRITTEN, (written + 1) | 0);
    return true;
  }

  // The stripe worker's side:

  /** Entries that can be looked at. */
  waiting(): number {
    return (Atomics.load(this.#indexes, WRITTEN) - Atomics.load(this.#indexes, READ)) | 0;
  }

  /** The oldest entry; only when there is one. */
  get intent(): number {
    return u32(this.#entries, this.#place());
  }

  get stripe(): number {
    return u32(this.#entries, this.#place() + 1);
  }

  get count(): number {
    return u32(this.#entries, this.#place() + 2);
  }

  /** Of StripeState, when the write of the stripes began. */
  get baseFailures(): number {
    return u32(this.#entries, this.#place() + 3) | 0;
  }

  /**
   * The first `count` stripes of the oldest entry are done; it goes when none is left. True when the ring was full
   * before that: the writer may wait for the place.
   */
  shift(count: number): boolean {
    const place = this.#place();
    const left = u32(this.#entries, place + 2) - count;
    assert(left >= 0, "no more is taken than there is");
    if (left === 0) {
      Atomics.add(this.#indexes, READ, 1);
      return this.waiting() >= this.#size - 1; // looked at behind the step: an entry may have come in before it
    }
    this.#entries[place + 1] = u32(this.#entries, place + 1) + count;
    this.#entries[place + 2] = left;
    return false;
  }

  // --- internal ---

  #place(): number {
    return (Atomics.load(this.#indexes, READ) & (this.#size - 1)) * ENTRY_WORDS;
  }
}
