/**
 * Holds a queue back to the limits of its disk. Requests start in the order in which they came: the first one that
 * has to wait keeps those behind it waiting, and while it does it stays where it is, in the guest's ring or the
 * driver's. So a queue that is stopped meanwhile has nothing to end for it.
 *
 *   turn:  mayGo? -> for each request: mayStart? -> start -> started | hold: sleep until `wakeNs` at the latest
 *
 * Flushes cost nothing. A discard costs a write operation; write zeroes as well, and their bytes once they are known.
 * A queue that waits looks after the limits now and then: a change needs to wake nobody.
 */
import { Operation } from "../disk/request-table.ts";
import { Counter, type QueueStatistics } from "./queue-statistics.ts";
import { type SharedLimits, TokenBuckets } from "./token-buckets.ts";

/** The shortest sleep: what has gathered meanwhile starts together. */
const SLEEP_MIN_NS = 250_000;
/** The longest one: then a change of the limits is seen. */
const SLEEP_MAX_NS = 50_000_000;

export class QueueThrottle {
  /** Something is limited: `mayStart` is to be asked for each request. */
  isOn = false;
  readonly #buckets: TokenBuckets;
  readonly #statistics: QueueStatistics;
  #mode = 0;
  /** A request has taken its tokens and was not started. */
  #isHolding = false;
  #isWrite = false;
  #bytes = 0;
  #startNs = 0;
  /** Up to when its waiting is counted. */
  #countedNs = 0;
  /** The last answer was no: only time will change it. */
  #isWaiting = false;

  constructor(shared: SharedLimits, queue: number, statistics: QueueStatistics) {
    this.#buckets = new TokenBuckets(shared, queue);
    this.#statistics = statistics;
  }

  /** Sees changes of the limits. Once before each batch. */
  look(nowNs: number): void {
    const { mode } = this.#buckets;
    if (mode !== this.#mode) {
      this.cancel(nowNs); // some of its buckets are others now: it asks again
      this.#mode = mode;
      this.isOn = (mode & 1) === 1;
    }
  }

  /** Looks, and tells whether requests are to be looked at now. */
  mayGo(nowNs: number): boolean {
    this.look(nowNs);
    if (!this.#isHolding) {
      return true;
    }
    this.#countWaiting(nowNs);
    return this.#isTime(nowNs);
  }

  /**
   * Whether the next request may start; if not, it is the one to ask for again.
   * @param bytes of a read or write
   */
  mayStart(operation: number, bytes: number, nowNs: number): boolean {
    if (operation === Operation.flush) {
      return true;
    }
    const isWrite = operation !== Operation.read;
    const cost = operation === Operation.read || operation === Operation.write ? bytes : 0;
    if (this.#isHolding && (isWrite !== this.#isWrite || cost !== this.#bytes)) {
      this.cancel(nowNs); // the guest put another request in its place
    }
    if (!this.#isHolding) {
      this.#hold(isWrite, cost, nowNs);
    }
    return this.#isTime(nowNs);
  }

  /** The request that may start has started. @param zeroedBytes of write zeroes, which were not known before */
  started(operation: number, zeroedBytes: number, nowNs: number): void {
    if (operation === Operation.flush) {
      return;
    }
    this.#release(nowNs);
    if (operation === Operation.writeZeroes && zeroedBytes > 0) {
      this.#buckets.take(true, 0, zeroedBytes, nowNs);
    }
  }

  /** Whatever waits is taken up anew, if at all: the queue is stopped, or the limits are others. */
  cancel(nowNs: number): void {
    if (this.#isHolding) {
      this.#release(nowNs);
      this.#buckets.giveBack(this.#isWrite, 1, this.#bytes, this.#mode, nowNs);
    }
  }

  /** When the queue has to look again; infinity when nothing waits for its tokens. */
  wakeNs(nowNs: number): number {
    if (!this.#isWaiting) {
      return Number.POSITIVE_INFINITY;
    }
    return Math.min(Math.max(this.#startNs, nowNs + SLEEP_MIN_NS), nowNs + SLEEP_MAX_NS);
  }

  // --- internal ---

  #isTime(nowNs: number): boolean {
    this.#isWaiting = this.#startNs > nowNs;
    return !this.#isWaiting;
  }

  #hold(isWrite: boolean, bytes: number, nowNs: number): void {
    this.#isHolding = true;
    this.#isWrite = isWrite;
    this.#bytes = bytes;
    this.#countedNs = nowNs;
    this.#startNs = this.#buckets.take(isWrite, 1, bytes, nowNs);
    if (this.#startNs > nowNs) {
      this.#statistics.count(isWrite ? Counter.writesThrottled : Counter.readsThrottled, 1);
    }
  }

  #release(nowNs: number): void {
    if (this.#isHolding) {
      this.#countWaiting(nowNs);
      this.#isHolding = false;
      this.#isWaiting = false;
    }
  }

  /** Once its time has come it waits for a free place, if at all. */
  #countWaiting(nowNs: number): void {
    const waitedNs = nowNs - this.#countedNs;
    if (waitedNs > 0 && this.#countedNs < this.#startNs) {
      this.#countedNs = nowNs;
      const counter = this.#isWrite ? Counter.writeThrottledNs : Counter.readThrottledNs;
      this.#statistics.count(counter, waitedNs);
    }
  }
}
