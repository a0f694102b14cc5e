/**
 * One fdatasync for all flushes that wait, of all queues of a device. A flush may be answered by any sync
 * that started after the flush arrived; syncs of a device run one after another and are numbered.
 *
 *   shared words | 0 running | 1 last started | 2 last done | 3 last that tells | 4 untold | 5 failures |
 *                | 6.. queue waits, one each | outsider |
 *
 * A queue sets its wait word before it looks at `running`; whoever ends a sync clears `running` before it
 * looks at the wait words: so either the queue starts the next sync itself or it is woken.
 *
 * The kernel tells of lost data once, to whichever sync comes first. So a failure is one of all that wait when it comes,
 * also of those whose own sync begins later: what they are to cover may be gone with the one that failed. When nobody's flush
 * waits, but a sync for stripes or for one durable write, the next flush would succeed over data that is gone: so a failure
 * stays untold until a flush was answered with it. Writes that had not been answered by then make it untold once more, see
 * DoubtfulWrites.
 */
import { assert } from "../errors.ts";
import { i32, u8 } from "../ffi/view.ts";

const RUNNING = 0;
const STARTED = 1;
const DONE = 2;
const TELLING = 3;
const UNTOLD = 4;
const FAILURES = 5;
const WAITS = 6;

/** Sync numbers run freely modulo 2^32; one further back than this is forgotten before it looks new. */
const TELLING_AGE_MAX = 2 ** 30;

/** How often a thread without a queue looks whether the sync that it waits for has ended. */
const LOOK_MS = 1;

/** What the group needs of its surroundings. */
export interface FlushHost {
  /** Starts the sync; its end comes back as `FlushGroup.ended`. */
  startSync(): void;
  /** Answers a flush request. */
  finish(slot: number, isOk: boolean): void;
  /** Makes another queue call its `advance`. */
  wake(queue: number): void;
  /** A sync failed; no other one begins before this returns. */
  noteFailure(): void;
}

export class FlushGroup {
  readonly #shared: Int32Array;
  readonly #queue: number;
  readonly #queues: number;
  readonly #host: FlushHost;
  readonly #slots: Int32Array;
  readonly #tickets: Int32Array;
  readonly #isFlush: Uint8Array;
  /** Syncs that had failed when they came. */
  readonly #failures: Int32Array;
  #count = 0;

  constructor(options: {
    readonly shared: SharedArrayBuffer;
    readonly queue: number;
    readonly queues: number;
    readonly slotsMax: number;
    readonly host: FlushHost;
  }) {
    this.#shared = new Int32Array(options.shared);
    this.#queue = options.queue;
    this.#queues = options.queues;
    this.#host = options.host;
    this.#slots = new Int32Array(options.slotsMax);
    this.#tickets = new Int32Array(options.slotsMax);
    this.#isFlush = new Uint8Array(options.slotsMax);
    this.#failures = new Int32Array(options.slotsMax);
  }

  static sharedBytes(queues: number): number {
    return (WAITS + queues + 1) * 4;
  }

  /**
   * A sync for a thread that has no queue and may wait: one of the group, so that whatever one of them is told
   * of lost data, all that wait then are told. False when it failed, or none came to its end in time, or when an earlier
   * failure is untold.
   */
  static syncAndWait(options: {
    readonly shared: SharedArrayBuffer;
    readonly queues: number;
    readonly timeoutMs: number;
    readonly sync: () => boolean;
    readonly wake: (queue: number) => void;
    readonly noteFailure: () => void;
    /** Lets time pass while another member's sync runs. */
    readonly pause?: () => void;
  }): boolean {
    const { shared, queues, sync, wake, noteFailure } = options;
    const pause = options.pause ?? (() => Bun.sleepSync(LOOK_MS));
    let isStarted = false;
    let answer: boolean | undefined;
    const startSync = () => {
      isStarted = true;
    };
    const finish = (_: number, isOk: boolean) => {
      answer = isOk;
    };
    const host = { startSync, finish, wake, noteFailure };
    const group = new FlushGroup({ shared, queue: queues, queues, slotsMax: 1, host });
    const deadline = performance.now() + options.timeoutMs;
    group.request(0, false);
    group.advance();
    while (answer === undefined && performance.now() < deadline) {
      if (isStarted) {
        isStarted = false;
        group.ended(sync());
      } else {
        pause();
        group.advance();
      }
    }
    return answer === true && !FlushGroup.hasUntold(shared);
  }

  /**
   * A flush arrived: it waits for a sync that starts from now on.
   * @param isFlush whoever asked takes a failure for one of all that was written; otherwise only of what it wrote itself
   */
  request(slot: number, isFlush: boolean): void {
    assert(this.#count < this.#slots.length, "every waiting flush has a slot");
    this.#slots[this.#count] = slot;
    this.#isFlush[this.#count] = isFlush ? 1 : 0;
    this.#failures[this.#count] = this.failures;
    this.#tickets[this.#count] = (Atomics.load(this.#shared, STARTED) + 1) | 0;
    this.#count += 1;
  }

  /** How many syncs of the group failed, modulo 2^32. */
  get failures(): number {
    return Atomics.load(this.#shared, FAILURES);
  }

  /** The same, for a thread without a queue. */
  static failuresOf(shared: SharedArrayBuffer): number {
    return Atomics.load(new Int32Array(shared), FAILURES);
  }

  /** The next flush that is answered fails. */
  tellNext(): void {
    Atomics.store(this.#shared, UNTOLD, 1);
  }

  /** Whether a sync failed, and no flush has been answered with that yet. */
  static hasUntold(shared: SharedArrayBuffer): boolean {
    return Atomics.load(new Int32Array(shared), UNTOLD) === 1;
  }

  /** Answers what is done and starts the next sync when flushes wait and none runs. Call once a turn. */
  advance(): void {
    if (this.#count === 0) {
      return;
    }
    this.#answer();
    if (this.#count === 0) {
      return;
    }
    Atomics.store(this.#shared, WAITS + this.#queue, 1);
    if (Atomics.compareExchange(this.#shared, RUNNING, 0, 1) === 0) {
      Atomics.store(this.#shared, WAITS + this.#queue, 0);
      Atomics.add(this.#shared, STARTED, 1);
      this.#host.startSync();
    }
  }

  /** The sync that this queue started has ended. */
  ended(isOk: boolean): void {
    const number = Atomics.load(this.#shared, STARTED);
    const telling = Atomics.load(this.#shared, TELLING);
    if (!isOk) {
      Atomics.add(this.#shared, FAILURES, 1);
      Atomics.store(this.#shared, UNTOLD, 1);
      this.#host.noteFailure();
    } else if (((number - telling) | 0) > TELLING_AGE_MAX) {
      Atomics.compareExchange(this.#shared, TELLING, telling, (number - TELLING_AGE_MAX) | 0);
    }
    Atomics.store(this.#shared, DONE, number);
    Atomics.store(this.#shared, RUNNING, 0);
    for (let queue = 0; queue < this.#queues; queue++) {
      if (queue !== this.#queue && Atomics.exchange(this.#shared, WAITS + queue, 0) === 1) {
        this.#host.wake(queue);
      }
    }
    this.advance();
  }

  // --- internal ---

  #answer(): void {
    const done = Atomics.load(this.#shared, DONE);
    const telling = this.#lastTelling(done);
    const { failures } = this;
    let kept = 0;
    for (let i = 0; i < this.#count; i++) {
      const ticket = i32(this.#tickets, i);
      const slot = i32(this.#slots, i);
      if (((done - ticket) | 0) >= 0) {
        const isTelling = ((telling - ticket) | 0) >= 0;
        this.#host.finish(slot, !isTelling && i32(this.#failures, i) === failures);
      } else {
        this.#slots[kept] = slot;
        this.#tickets[kept] = ticket;
        this.#isFlush[kept] = u8(this.#isFlush, i);
        this.#failures[kept] = i32(this.#failures, i);
        kept += 1;
      }
    }
    this.#count = kept;
  }

  /** A flush that is answered now tells of a failure that nobody was told of, and so do all that wait for the same sync. */
  #lastTelling(done: number): number {
    if (Atomics.load(this.#shared, UNTOLD) === 1) {
      for (let i = 0; i < this.#count; i++) {
        const isDone = ((done - i32(this.#tickets, i)) | 0) >= 0;
        if (isDone && this.#isFlush[i] === 1 && Atomics.exchange(this.#shared, UNTOLD, 0) === 1) {
          this.#tellUpTo(done);
        }
      }
    }
    return Atomics.load(this.#shared, TELLING);
  }

  /** Another queue may tell of a later one at this moment, which stays. */
  #tellUpTo(number: number): void {
    let telling = Atomics.load(this.#shared, TELLING);
    while (((number - telling) | 0) > 0) {
      const found = Atomics.compareExchange(this.#shared, TELLING, telling, number);
      if (found === telling) {
        return;
      }
      telling = found;
    }
  }
}
