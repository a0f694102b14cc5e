/**
 * One fdatasync for all flushes that wait, of all queues of a device. A flush may be answered by any sync
 * that started after the flush arrived; syncs of a device run one after another and are numbered.
 *
 *   shared words | 0 running | 1 last started | 2 last done | 3 last failed | 4.. queue waits, one each | outsider |
 *
 * A queue sets its wait word before it looks at `running`; whoever ends a sync clears `running` before it
 * looks at the wait words: so either the queue starts the next sync itself or it is woken.
 */
import { assert } from "../errors.ts";
import { i32 } from "../ffi/view.ts";

const RUNNING = 0;
const STARTED = 1;
const DONE = 2;
const FAILED = 3;
const WAITS = 4;

/** Sync numbers run freely modulo 2^32; a failure further back than this is forgotten before it looks new. */
const FAILURE_AGE_MAX = 2 ** 30;

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
  }

  static sharedBytes(queues: number): number {
    return (WAITS + queues + 1) * 4;
  }

  /**
   * A sync for a thread that has no queue and may wait: one of the group, so that whatever one of them is told
   * of lost data, all that wait then are told. False when it failed, or none came to its end in time.
   */
  static syncAndWait(options: {
    readonly shared: SharedArrayBuffer;
    readonly queues: number;
    readonly timeoutMs: number;
    readonly sync: () => boolean;
    readonly wake: (queue: number) => void;
    readonly noteFailure: () => void;
  }): boolean {
    const { shared, queues, sync, wake, noteFailure } = options;
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
    group.request(0);
    group.advance();
    while (answer === undefined && performance.now() < deadline) {
      if (isStarted) {
        isStarted = false;
        group.ended(sync());
      } else {
        Bun.sleepSync(LOOK_MS);
        group.advance();
      }
    }
    return answer === true;
  }

  /** A flush arrived: it waits for a sync that starts from now on. */
  request(slot: number): void {
    assert(this.#count < this.#slots.length, "every waiting flush has a slot");
    this.#slots[this.#count] = slot;
    this.#tickets[this.#count] = (Atomics.load(this.#shared, STARTED) + 1) | 0;
    this.#count += 1;
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
    if (!isOk) {
      Atomics.store(this.#shared, FAILED, number);
      this.#host.noteFailure();
    } else if (((number - Atomics.load(this.#shared, FAILED)) | 0) > FAILURE_AGE_MAX) {
      Atomics.store(this.#shared, FAILED, (number - FAILURE_AGE_MAX) | 0);
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
    const failed = Atomics.load(this.#shared, FAILED);
    let kept = 0;
    for (let i = 0; i < this.#count; i++) {
      const ticket = i32(this.#tickets, i);
      const slot = i32(this.#slots, i);
      if (((done - ticket) | 0) >= 0) {
        // A failure at or after the ticket may have taken this flush's data with it.
        this.#host.finish(slot, ((failed - ticket) | 0) < 0);
      } else {
        this.#slots[kept] = slot;
        this.#tickets[kept] = ticket;
        kept += 1;
      }
    }
    this.#count = kept;
  }
}
