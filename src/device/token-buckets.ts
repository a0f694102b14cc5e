/**
 * The limits of a disk, as token buckets that all its queues share: a bucket fills at its rate up to its burst, and
 * a request takes its cost from each bucket that concerns it, from all in one step.
 *
 *   words    | current: version << 8 | record | mode: generation << 1 | something is limited |
 *   record   | generation | time of the levels | 6 levels | 6 rates, tokens/ns (0: none) | 6 bursts | 6 since |   doubles
 *
 * `since` is the generation in which a bucket became what it is.
 *
 * Without locks, and without numbers that wrap around: every member (queue, main thread) has two records of its own.
 * It writes the next state into the one that is not current, and makes it current by compare-exchange; that fails when
 * another member was faster, and it begins again. A record is only written while it is not current, and whoever read
 * it meanwhile fails at the exchange: the version has moved on.
 *
 * A request that has to wait takes its tokens at once, so that levels go below zero, and is told when they will have
 * been there. So those that wait are served in the order in which they came, whatever their size and their queue. One
 * that is larger than a bucket waits until that is full, and leaves it in debt.
 *
 * Cost: about 60 ns a limited request.
 */
import { LIMITS } from "../config/limit-rules.ts";
import { f64 } from "../ffi/view.ts";
import { burstOf, type LimitSettings } from "./limit-settings.ts";

/** What the threads of a disk share of its limits. */
export interface SharedLimits {
  readonly words: SharedArrayBuffer;
  readonly records: SharedArrayBuffer;
}

const CURRENT = 0;
const MODE = 1;
const RECORD_BITS = 8;
const RECORD_MASK = 2 ** RECORD_BITS - 1;

const BUCKETS = LIMITS.length;
/** Those of bytes come after those of operations. */
const BYTE_BUCKETS = BUCKETS / 2;
const GENERATION = 0;
const AT = 1;
const LEVEL = 2;
const RATE = LEVEL + BUCKETS;
const BURST = RATE + BUCKETS;
const SINCE = BURST + BUCKETS;
const RECORD_DOUBLES = SINCE + BUCKETS;

export class TokenBuckets {
  readonly #words: Int32Array;
  readonly #records: Float64Array;
  /** Of this member's two records, the one that is not current. */
  #free: number;

  /** @param member its number; no two threads are the same */
  constructor(shared: SharedLimits, member: number) {
    this.#words = new Int32Array(shared.words);
    this.#records = new Float64Array(shared.records);
    // Record 0 is the first state; it is nobody's from the second one on.
    this.#free = 1 + 2 * member;
  }

  /** Room for `members`, 127 at most, without any limit. */
  static share(members: number): SharedLimits {
    const records = 1 + 2 * members;
    return {
      words: new SharedArrayBuffer(2 * 4),
      records: new SharedArrayBuffer(records * RECORD_DOUBLES * 8),
    };
  }

  /** Changes with every change of the limits; odd while something is limited. */
  get mode(): number {
    return Atomics.load(this.#words, MODE);
  }

  /** Takes the tokens of a request. Returns when it may start: `nowNs` or earlier for at once. */
  take(isWrite: boolean, operations: number, bytes: number, nowNs: number): number {
    for (;;) {
      const current = Atomics.load(this.#words, CURRENT);
      const next = this.#advance(current, nowNs);
      const startNs = this.#charge(next, isWrite, operations, bytes, nowNs);
      if (this.#publish(current)) {
        return startNs;
      }
    }
  }

  /**
   * Gives the tokens of a request back that does not start, but for those of buckets that are others by now.
   * @param mode under which it took them
   */
  giveBack(isWrite: boolean, operations: number, bytes: number, mode: number, nowNs: number): void {
    for (;;) {
      const current = Atomics.load(this.#words, CURRENT);
      const next = this.#advance(current, nowNs);
      this.#charge(next, isWrite, -operations, -bytes, nowNs, mode >> 1);
      if (this.#publish(current)) {
        return;
      }
    }
  }

  /**
   * Sets all limits. A bucket that stays as it was keeps its level; another one that was there loses its debt, and
   * has no more than before; a new one is full.
   */
  set(settings: LimitSettings, nowNs: number): void {
    const records = this.#records;
    for (;;) {
      const current = Atomics.load(this.#words, CURRENT);
      const next = this.#advance(current, nowNs);
      const generation = f64(records, next + GENERATION) + 1;
      records[next + GENERATION] = generation;
      for (const [bucket, limit] of settings.entries()) {
        this.#setBucket(next, bucket, (limit.perSecond ?? 0) / 1e9, burstOf(limit) ?? 0);
      }
      if (this.#publish(current)) {
        const isLimited = settings.some(({ perSecond }) => perSecond !== undefined);
        Atomics.store(this.#words, MODE, (generation << 1) | (isLimited ? 1 : 0));
        return;
      }
    }
  }

  // --- internal ---

  /** The current state, as it is now, in the free record. Returns where that begins. */
  #advance(current: number, nowNs: number): number {
    const records = this.#records;
    const from = (current & RECORD_MASK) * RECORD_DOUBLES;
    const next = this.#free * RECORD_DOUBLES;
    for (let i = 0; i < RECORD_DOUBLES; i++) {
      records[next + i] = f64(records, from + i);
    }
    // Another queue may have read the clock later and been here earlier.
    const passedNs = nowNs - f64(records, next + AT);
    if (passedNs > 0) {
      records[next + AT] = nowNs;
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        const level = f64(records, next + LEVEL + bucket);
        const filled = level + passedNs * f64(records, next + RATE + bucket);
        records[next + LEVEL + bucket] = Math.min(filled, f64(records, next + BURST + bucket));
      }
    }
    return next;
  }

  /** Returns when all its buckets have had what a request needs. Those that came after `generation` are left alone. */
  #charge(
    record: number,
    isWrite: boolean,
    operations: number,
    bytes: number,
    nowNs: number,
    generation = Number.POSITIVE_INFINITY,
  ): number {
    const records = this.#records;
    const others = isWrite ? 1 : 2;
    let startNs = nowNs;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const rate = f64(records, record + RATE + bucket);
      const cost = bucket < BYTE_BUCKETS ? operations : bytes;
      if (rate === 0 || cost === 0 || bucket % BYTE_BUCKETS === others) {
        continue;
      }
      if (f64(records, record + SINCE + bucket) > generation) {
        continue;
      }
      const level = f64(records, record + LEVEL + bucket);
      const missing = Math.min(cost, f64(records, record + BURST + bucket)) - level;
      if (missing > 0) {
        startNs = Math.max(startNs, f64(records, record + AT) + missing / rate);
      }
      records[record + LEVEL + bucket] = level - cost;
    }
    return startNs;
  }

  #setBucket(record: number, bucket: number, rate: number, burst: number): void {
    const records = this.#records;
    const rateBefore = f64(records, record + RATE + bucket);
    if (rate === rateBefore && burst === f64(records, record + BURST + bucket)) {
      return;
    }
    const level = Math.max(0, f64(records, record + LEVEL + bucket));
    records[record + LEVEL + bucket] = rateBefore === 0 ? burst : Math.min(level, burst);
    records[record + RATE + bucket] = rate;
    records[record + BURST + bucket] = burst;
    records[record + SINCE + bucket] = f64(records, record + GENERATION);
  }

  /** False when the current state is not `current` any more. */
  #publish(current: number): boolean {
    const version = (current >> RECORD_BITS) + 1;
    const next = (version << RECORD_BITS) | this.#free;
    if (Atomics.compareExchange(this.#words, CURRENT, current, next) !== current) {
      return false;
    }
    this.#free = ((this.#free - 1) ^ 1) + 1;
    return true;
  }
}
