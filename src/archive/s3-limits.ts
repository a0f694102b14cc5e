/**
 * What all threads that use one store have in common, in one shared buffer: how many requests are under way, and
 * how many retries may still be made.
 *
 *   word 0   places that are free for requests
 *   word 1   retry quota left
 *
 * The quota is what keeps a thousand clients from burying a service that is coming back: each retry takes from
 * it, success gives back, and when it is empty failures are final at once.
 */
import { assert } from "../errors.ts";

/** What retries cost; a first try that succeeds gives `FIRST_SUCCESS_GAIN`. */
export const RETRY_COST = { transient: 10, throttling: 5 } as const;
const QUOTA_MAX = 500;
const FIRST_SUCCESS_GAIN = 1;

const PLACES = 0;
const QUOTA = 1;
const WORDS = 2;

/** A thread of another kind that waits looks again after this long, should it have missed its wake-up. */
const RECHECK_MS = 1000;

export function createSharedLimits(connections: number): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(WORDS * 4);
  const words = new Int32Array(shared);
  words[PLACES] = connections;
  words[QUOTA] = QUOTA_MAX;
  return shared;
}

export class S3Limits {
  readonly #words: Int32Array<SharedArrayBuffer>;
  /** Of this thread, first come first served. */
  readonly #waiting: (() => void)[] = [];
  #isWatching = false;

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared);
    assert(this.#words.length === WORDS, "the buffer was made for these limits");
  }

  /** Runs `work` when a place is free. @throws the signal's reason */
  async withPlace<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    await this.#acquire(signal);
    try {
      return await work();
    } finally {
      Atomics.add(this.#words, PLACES, 1);
      Atomics.notify(this.#words, PLACES);
    }
  }

  /** Whether a retry may be made; it is paid for then. */
  takeRetry(cost: number): boolean {
    let left = Atomics.load(this.#words, QUOTA);
    while (left >= cost) {
      const seen = Atomics.compareExchange(this.#words, QUOTA, left, left - cost);
      if (seen === left) {
        return true;
      }
      left = seen;
    }
    return false;
  }

  /** After a success. `paid` is what its retries cost. */
  giveBack(paid: number): void {
    const gain = paid === 0 ? FIRST_SUCCESS_GAIN : paid;
    let left = Atomics.load(this.#words, QUOTA);
    while (left < QUOTA_MAX) {
      const seen = Atomics.compareExchange(
        this.#words,
        QUOTA,
        left,
        Math.min(left + gain, QUOTA_MAX),
      );
      if (seen === left) {
        return;
      }
      left = seen;
    }
  }

  async #acquire(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (this.#waiting.length === 0 && this.#tryAcquire()) {
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = () => {
      const place = this.#waiting.indexOf(resolve);
      if (place >= 0) {
        this.#waiting.splice(place, 1);
        reject(signal?.reason);
      }
    };
    this.#waiting.push(resolve);
    signal?.addEventListener("abort", onAbort, { once: true });
    void this.#watch();
    try {
      await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Hands places to those that wait. One watcher for each thread, so that no wake-up goes to nobody. */
  async #watch(): Promise<void> {
    if (this.#isWatching) {
      return;
    }
    this.#isWatching = true;
    while (this.#waiting.length > 0) {
      if (this.#tryAcquire()) {
        this.#waiting.shift()?.();
      } else {
        await Atomics.waitAsync(this.#words, PLACES, 0, RECHECK_MS).value;
      }
    }
    this.#isWatching = false;
  }

  #tryAcquire(): boolean {
    let free = Atomics.load(this.#words, PLACES);
    while (free > 0) {
      const seen = Atomics.compareExchange(this.#words, PLACES, free, free - 1);
      if (seen === free) {
        return true;
      }
      free = seen;
    }
    return false;
  }
}
