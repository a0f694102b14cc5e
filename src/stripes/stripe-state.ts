/**
 * What all threads of a disk know of its stripes: shared memory, one byte a stripe.
 *
 *   byte     | failures, modulo 16: 4 bits | WRITTEN: 1 bit | phase: 3 bits |
 *   words    | changes | base failures | wanted by queue 0, 1, ... | owner of buffer 0, 1, ... | pins of buffer 0, 1, ... |
 *   doubles  | counters | address of buffer 0, 1, ... |
 *
 *                                 +------------------ failed: failures + 1 -----------------+
 *                                 v                                                         |
 *   UNFETCHED or FAILED --> FETCHING --> BUFFERED --> ON_BASE --> (FETCHED is durable) --> READY
 *          ^    |         stripe worker: from the source, to the base                       ^
 *          |    +--> CLAIMED: a queue writes all of it ---------- (FETCHED is durable) -----+
 *          |            |
 *          +------------+<-- LOST: that could not be made durable; the queue has to give it up
 *
 * Who may change a byte: a stripe that is UNFETCHED or FAILED is taken with a compare and exchange, by the
 * stripe worker (FETCHING) or a queue (CLAIMED); afterwards only the taker changes it. A queue hands what it
 * claimed over to the stripe worker with an intent, and gets it back as LOST. READY never ends. Only the stripe worker sets WRITTEN.
 *
 * Waking: a queue sets its wanted word before it looks at the bytes; whoever changes bytes does that before
 * it looks at the wanted words. So the queue sees the change or is woken.
 *
 * Base failures: the kernel reports lost writes to one failing sync only, and the next one succeeds. So every
 * thread counts a sync of the base that failed, and what was written before such a failure is not trusted.
 */
import { assert } from "../errors.ts";
import { f64 } from "../ffi/view.ts";
import { STRIPE_FLAG } from "../formats/metadata.ts";

/** Where a stripe's data is. */
export const Phase = {
  /** On the base, and the metadata says so: everything may go there. */
  ready: 0,
  /** In the source only. */
  unfetched: 1,
  /** Being read from the source. */
  fetching: 2,
  /** In a fetch buffer: reads may be answered from it. */
  buffered: 3,
  /** On the base, but not for certain after a crash: reads may go there, writes not. */
  onBase: 4,
  /** A queue is replacing all of it, without a fetch. */
  claimed: 5,
  /** As unfetched, after the last attempt was given up. */
  failed: 6,
  /** Was claimed, and its new content is not durable: whoever claimed it gives it up. */
  lost: 7,
} as const;

const PHASE_MASK = 7;
/** The metadata says that the guest wrote to the stripe; where changes are tracked, since the last archive. */
export const WRITTEN_BIT = 8;
const FAILURE_STEP = 16;
/** A waiting request fails when these bits change. */
export const FAILURE_MASK = 0xf0;

const BUFFERS_MAX = 256;

/** Counted by the stripe worker alone. */
const STRIPE_COUNTERS = [
  "fetched",
  "source",
  "unfetched",
  "written",
  "inFlight",
  "demandFetches",
  "aheadFetches",
  "backgroundFetches",
  "sourceBytes",
  "zeroStripes",
  "retries",
  "failures",
  "commits",
  "metadataWrites",
] as const;

export type StripeCounter = (typeof STRIPE_COUNTERS)[number];

/** As plain data, for the threads that work on the disk. */
export interface SharedStripeState {
  /** At the start. */
  readonly stripeCount: number;
  readonly queues: number;
  readonly buffers: number;
  /** One a stripe, and room for those that are added: their bytes are READY already. */
  readonly bytes: SharedArrayBuffer;
  readonly words: SharedArrayBuffer;
  readonly doubles: SharedArrayBuffer;
}

const CHANGES = 0;
const BASE_FAILURES = 1;
const WANTED = 2;
const NO_OWNER = -1;

export function phaseOf(byte: number): number {
  return byte & PHASE_MASK;
}

/** True when a fetch of the stripe may begin. */
export function isUnfetched(byte: number): boolean {
  const phase = byte & PHASE_MASK;
  return phase === Phase.unfetched || phase === Phase.failed;
}

/** True while a queue replaces the stripe, or has to give that up. */
export function isClaimed(byte: number): boolean {
  const phase = byte & PHASE_MASK;
  return phase === Phase.claimed || phase === Phase.lost;
}

export class StripeState {
  readonly shared: SharedStripeState;
  /** As this thread knows it. */
  stripeCount: number;
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  readonly #queues: number;
  readonly #owners: number;
  readonly #pins: number;
  /** This thread changed bytes that others may wait for, and did not announce it. */
  #hasNews = false;

  constructor(shared: SharedStripeState) {
    this.shared = shared;
    this.stripeCount = shared.stripeCount;
    this.#bytes = new Uint8Array(shared.bytes);
    this.#words = new Int32Array(shared.words);
    this.#doubles = new Float64Array(shared.doubles);
    this.#queues = shared.queues;
    this.#owners = WANTED + shared.queues;
    this.#pins = this.#owners + shared.buffers;
  }

  /** Of each part, in bytes. */
  static sharedBytes(counts: {
    readonly stripes: number;
    readonly queues: number;
    readonly buffers: number;
  }): { readonly bytes: number; readonly words: number; readonly doubles: number } {
    const { stripes, queues, buffers } = counts;
    return {
      bytes: stripes,
      words: (WANTED + queues + 2 * buffers) * 4,
      doubles: (STRIPE_COUNTERS.length + buffers) * 8,
    };
  }

  /** The state after a start, from the flags of the metadata. */
  static create(
    flags: Uint8Array,
    options: {
      readonly queues: number;
      readonly buffers: number;
      /** Stripes that there is room for; left out: no more than there are. */
      readonly stripesMax?: number;
      /** A stripe counts as written when it was since the last archive. */
      readonly isChangeTracked?: boolean;
    },
  ): StripeState {
    const { queues, buffers, stripesMax = flags.length, isChangeTracked = false } = options;
    assert(buffers > 0, "a stripe is fetched into a buffer");
    assert(buffers <= BUFFERS_MAX, "fetch buffers are looked through one by one");
    const sizes = StripeState.sharedBytes({ stripes: stripesMax, queues, buffers });
    const state = new StripeState({
      stripeCount: flags.length,
      queues,
      buffers,
      bytes: new SharedArrayBuffer(sizes.bytes),
      words: new SharedArrayBuffer(sizes.words),
      doubles: new SharedArrayBuffer(sizes.doubles),
    });
    state.#fill(flags, isChangeTracked);
    return state;
  }

  /** Stripes that the disk may grow to while it is served. */
  get stripesMax(): number {
    return this.#bytes.length;
  }

  /** Phase, WRITTEN and failures of a stripe. */
  load(stripe: number): number {
    return Atomics.load(this.#bytes, stripe);
  }

  /** Takes an unfetched stripe; false when somebody else was faster, or it is not unfetched. */
  take(stripe: number, phase: typeof Phase.fetching | typeof Phase.claimed): boolean {
    const byte = Atomics.load(this.#bytes, stripe);
    if (!isUnfetched(byte)) {
      return false;
    }
    const taken = (byte & ~PHASE_MASK) | phase;
    return Atomics.compareExchange(this.#bytes, stripe, byte, taken) === byte;
  }

  /** Changes the phase of a stripe that the caller took. */
  setPhase(stripe: number, phase: number): void {
    const byte = Atomics.load(this.#bytes, stripe);
    assert(!isUnfetched(byte), "a stripe is taken before it is changed");
    Atomics.store(this.#bytes, stripe, (byte & ~PHASE_MASK) | phase);
    this.#hasNews = true;
  }

  setWritten(stripe: number): void {
    Atomics.or(this.#bytes, stripe, WRITTEN_BIT);
    this.#hasNews = true;
  }

  /** Lets all that waits for the stripe fail. `phase` is where it stands afterwards. */
  fail(stripe: number, phase: number): void {
    const byte = Atomics.load(this.#bytes, stripe);
    const failures = (byte + FAILURE_STEP) & FAILURE_MASK;
    Atomics.store(this.#bytes, stripe, failures | (byte & WRITTEN_BIT) | phase);
    this.#hasNews = true;
    this.count("failures", 1);
  }

  /** As `fail`, for a stripe that nobody took; false when a queue takes it meanwhile. */
  failUntaken(stripe: number): boolean {
    const byte = Atomics.load(this.#bytes, stripe);
    if (!isUnfetched(byte)) {
      return false;
    }
    const failed = ((byte + FAILURE_STEP) & FAILURE_MASK) | (byte & WRITTEN_BIT) | Phase.failed;
    if (Atomics.compareExchange(this.#bytes, stripe, byte, failed) !== byte) {
      return false;
    }
    this.#hasNews = true;
    this.count("failures", 1);
    return true;
  }

  // Failed syncs of the base:

  /** A sync of the base failed. Call before another one can begin, in whatever thread. */
  noteBaseFailure(): void {
    Atomics.add(this.#words, BASE_FAILURES, 1);
  }

  /** Take it before a write begins: when it is another one at a later sync, the write may be lost. */
  baseFailures(): number {
    return Atomics.load(this.#words, BASE_FAILURES);
  }

  // Waking:

  /** Number of the last change: a queue that saw it needs not look at the bytes again. */
  changes(): number {
    return Atomics.load(this.#words, CHANGES);
  }

  /** The queue wants to be woken by the next change. Look at the bytes once more afterwards. */
  want(queue: number): void {
    Atomics.store(this.#words, WANTED + queue, 1);
  }

  /** Something else changed that queues may wait for. */
  noteNews(): void {
    this.#hasNews = true;
  }

  /** Wakes all queues that want it when this thread has changed anything. Once a turn. */
  announce(wakeQueue: (queue: number) => void): void {
    if (!this.#hasNews) {
      return;
    }
    this.#hasNews = false;
    Atomics.add(this.#words, CHANGES, 1);
    for (let queue = 0; queue < this.#queues; queue++) {
      if (Atomics.exchange(this.#words, WANTED + queue, 0) === 1) {
        wakeQueue(queue);
      }
    }
  }

  // Fetch buffers. A reader pins before it looks at the owner, the stripe worker drops the owner before it
  // looks at the pins: so no buffer is reused under a reader.

  /** Before any stripe is buffered: where buffer `buffer` is. */
  placeBuffer(buffer: number, address: number): void {
    this.#doubles[STRIPE_COUNTERS.length + buffer] = address;
  }

  /** The buffer holds what the base will hold of this stripe. */
  lendBuffer(buffer: number, stripe: number): void {
    Atomics.store(this.#words, this.#owners + buffer, stripe | 0);
  }

  /** Nobody begins to read the buffer from here on. */
  recallBuffer(buffer: number): void {
    Atomics.store(this.#words, this.#owners + buffer, NO_OWNER);
  }

  isPinned(buffer: number): boolean {
    return Atomics.load(this.#words, this.#pins + buffer) !== 0;
  }

  /** A buffer that holds the stripe, kept until `unpinBuffer`; -1 when there is none any more. */
  pinBuffer(stripe: number): number {
    const count = this.shared.buffers;
    for (let buffer = 0; buffer < count; buffer++) {
      if (Atomics.load(this.#words, this.#owners + buffer) === (stripe | 0)) {
        Atomics.add(this.#words, this.#pins + buffer, 1);
        if (Atomics.load(this.#words, this.#owners + buffer) === (stripe | 0)) {
          return buffer;
        }
        Atomics.sub(this.#words, this.#pins + buffer, 1);
      }
    }
    return -1;
  }

  unpinBuffer(buffer: number): void {
    const before = Atomics.sub(this.#words, this.#pins + buffer, 1);
    assert(before > 0, "only a pinned buffer is unpinned");
  }

  bufferAddress(buffer: number): number {
    return f64(this.#doubles, STRIPE_COUNTERS.length + buffer);
  }

  // Counters:

  count(counter: StripeCounter, amount: number): void {
    const place = STRIPE_COUNTERS.indexOf(counter);
    this.#doubles[place] = f64(this.#doubles, place) + amount;
  }

  counter(counter: StripeCounter): number {
    return f64(this.#doubles, STRIPE_COUNTERS.indexOf(counter));
  }

  // --- internal ---

  #fill(flags: Uint8Array, isChangeTracked: boolean): void {
    const { FETCHED, WRITTEN, HAS_SOURCE, CHANGED } = STRIPE_FLAG;
    const noted = isChangeTracked ? WRITTEN | CHANGED : WRITTEN;
    const totals = { fetched: 0, source: 0, unfetched: 0, written: 0 };
    for (let stripe = 0; stripe < flags.length; stripe++) {
      const value = flags[stripe] ?? 0;
      const phase = (value & (HAS_SOURCE | FETCHED)) === HAS_SOURCE ? Phase.unfetched : Phase.ready;
      this.#bytes[stripe] = phase | ((value & noted) === noted ? WRITTEN_BIT : 0);
      totals.unfetched += phase === Phase.unfetched ? 1 : 0;
      totals.fetched += (value & FETCHED) === 0 ? 0 : 1;
      totals.source += (value & HAS_SOURCE) === 0 ? 0 : 1;
      totals.written += (value & WRITTEN) === 0 ? 0 : 1;
    }
    this.count("fetched", totals.fetched);
    this.count("source", totals.source);
    this.count("unfetched", totals.unfetched);
    this.count("written", totals.written);
    this.#words.fill(NO_OWNER, this.#owners, this.#pins);
  }
}
