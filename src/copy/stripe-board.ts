/**
 * How the threads of one run share its work: a table in shared memory, without a message for a stripe.
 *
 *   stripes   one byte a stripe says whether the workers fetch it themselves (1) or leave it alone. They claim such
 *             stripes in ascending order by one counter, so work spreads over them by itself.
 *   buffers   the main thread fills buffers with what only it can read, and offers them:
 *               main: FREE -> (fills) -> OFFERED      worker: OFFERED -> TAKEN (compare-exchange) -> FREE
 *   counters  one row a worker, which only that worker writes: progress and results.
 *
 * Who finds nothing to do sleeps until a word changes. An offered buffer goes before a claimed stripe.
 */
import { assert } from "../errors.ts";
import { f64, i32 } from "../ffi/view.ts";

/** Columns of a worker's counters. */
export const COUNTER = {
  /** Stripes that are dealt with, whatever came of them. */
  STRIPES: 0,
  ZERO_STRIPES: 1,
  /** Objects that this run wrote, and their bytes. */
  OBJECTS: 2,
  OBJECT_BYTES: 3,
  /** Stripes whose object another stripe of this run has. */
  DUPLICATES: 4,
  /** Stripes whose object was there before this run. */
  REUSED: 5,
  /** Bytes of stripes that were read or written. */
  DATA_BYTES: 6,
  /** Objects longer than a stripe that this run wrote. */
  OVERLONG: 7,
  /** Stripes or objects that are not what they should be. */
  BAD: 8,
  /** Stripes of which nothing can be said. */
  UNKNOWN: 9,
} as const;

export interface SharedStripeBoard {
  readonly control: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  readonly work: Uint8Array<SharedArrayBuffer>;
}

export class StripeBoard {
  readonly shared: SharedStripeBoard;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #counters: Float64Array<SharedArrayBuffer>;
  readonly #work: Uint8Array<SharedArrayBuffer>;
  readonly #bufferCount: number;

  private constructor(shared: SharedStripeBoard) {
    this.shared = shared;
    this.#control = new Int32Array(shared.control);
    this.#counters = new Float64Array(shared.counters);
    this.#work = shared.work;
    this.#bufferCount = (this.#control.length - CONTROL_WORDS) / 2;
  }

  /** @param work 1 for every stripe that the workers claim */
  static create(options: {
    readonly work: Uint8Array<SharedArrayBuffer>;
    readonly workers: number;
    readonly buffers: number;
  }): StripeBoard {
    const { work, workers, buffers } = options;
    const control = new SharedArrayBuffer((CONTROL_WORDS + 2 * buffers) * 4);
    const counters = new SharedArrayBuffer(workers * COUNTERS * 8);
    return new StripeBoard({ control, counters, work });
  }

  static attach(shared: SharedStripeBoard): StripeBoard {
    return new StripeBoard(shared);
  }

  // --- any thread ---

  /** Ends the work of all threads at their next look. */
  stop(): void {
    Atomics.store(this.#control, IS_STOPPED, 1);
    this.#wake(OFFERS);
    this.#wake(RETURNS);
  }

  get isStopped(): boolean {
    return Atomics.load(this.#control, IS_STOPPED) === 1;
  }

  // --- workers ---

  /** The next stripe of the workers, or -1 when all are claimed. */
  claim(): number {
    while (!this.isStopped) {
      const stripe = Atomics.add(this.#control, NEXT, 1);
      if (stripe >= this.#work.length) {
        Atomics.store(this.#control, NEXT, this.#work.length); // counting on would overflow one day
        return -1;
      }
      if (this.#work[stripe] === WORK_OF_WORKERS) {
        return stripe;
      }
    }
    return -1;
  }

  /** An offered buffer, which is the caller's until `giveBack`; or -1. */
  takeOffered(): number {
    for (let buffer = 0; buffer < this.#bufferCount; buffer += 1) {
      const word = CONTROL_WORDS + buffer;
      if (Atomics.compareExchange(this.#control, word, OFFERED, TAKEN) === OFFERED) {
        return buffer;
      }
    }
    return -1;
  }

  stripeIn(buffer: number): number {
    return i32(this.#control, CONTROL_WORDS + this.#bufferCount + buffer);
  }

  giveBack(buffer: number): void {
    Atomics.store(this.#control, CONTROL_WORDS + buffer, FREE);
    this.#wake(RETURNS);
  }

  /** For `waitForOffer`: read before looking for work. */
  get offerTicket(): number {
    return Atomics.load(this.#control, OFFERS);
  }

  /** Nothing is offered any more, ever. */
  get areOffersOver(): boolean {
    return Atomics.load(this.#control, OFFERS_OVER) === 1;
  }

  /** Until something was offered, or there is nothing to wait for, since the ticket. */
  async waitForOffer(ticket: number): Promise<void> {
    await this.#waitWhile(OFFERS, ticket);
  }

  count(worker: number, column: number, amount: number): void {
    const at = worker * COUNTERS + column;
    this.#counters[at] = f64(this.#counters, at) + amount;
  }

  // --- main thread ---

  /** A free buffer, or -1. */
  takeFree(): number {
    for (let buffer = 0; buffer < this.#bufferCount; buffer += 1) {
      const word = CONTROL_WORDS + buffer;
      if (Atomics.compareExchange(this.#control, word, FREE, FILLING) === FREE) {
        return buffer;
      }
    }
    return -1;
  }

  offer(buffer: number, stripe: number): void {
    assert(stripe < 2 ** 31, "a stripe's number fits its word");
    this.#control[CONTROL_WORDS + this.#bufferCount + buffer] = stripe;
    Atomics.store(this.#control, CONTROL_WORDS + buffer, OFFERED);
    this.#wake(OFFERS);
  }

  endOffers(): void {
    Atomics.store(this.#control, OFFERS_OVER, 1);
    this.#wake(OFFERS);
  }

  /** For `waitForReturn`: read before looking for a free buffer. */
  get returnTicket(): number {
    return Atomics.load(this.#control, RETURNS);
  }

  /** Until a buffer came back, or the work was stopped, since the ticket. */
  async waitForReturn(ticket: number): Promise<void> {
    await this.#waitWhile(RETURNS, ticket);
  }

  /** Over all workers. */
  total(column: number): number {
    let sum = 0;
    for (let at = column; at < this.#counters.length; at += COUNTERS) {
      sum += f64(this.#counters, at);
    }
    return sum;
  }

  // --- internal ---

  #wake(word: number): void {
    Atomics.add(this.#control, word, 1);
    Atomics.notify(this.#control, word);
  }

  /** `stop` counts after it says so: whoever has its ticket from behind that finds the work stopped. */
  async #waitWhile(word: number, ticket: number): Promise<void> {
    if (this.isStopped) {
      return;
    }
    const wait = Atomics.waitAsync(this.#control, word, ticket, LOOK_MS);
    if (wait.async) {
      await wait.value;
    }
  }
}

// --- internal ---

const NEXT = 0;
const IS_STOPPED = 1;
const OFFERS = 2;
const OFFERS_OVER = 3;
const RETURNS = 4;
const CONTROL_WORDS = 8;
const COUNTERS = 16;
const [FREE, FILLING, OFFERED, TAKEN] = [0, 1, 2, 3];
const WORK_OF_WORKERS = 1;
/** Nobody sleeps for long, whatever became of who should wake it: a run that is stopped waits for its threads. */
const LOOK_MS = 1_000;
