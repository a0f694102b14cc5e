/**
 * Requests for stripes between one thread that asks and worker threads that fill its memory: a table in shared
 * memory, one slot a request id.
 *
 *   client: FREE -> QUEUED (post)        worker: QUEUED -> TAKEN (take: compare-exchange, who is first has it)
 *   client: DONE -> FREE   (takeDone)    worker: TAKEN  -> DONE  (finish), signals the client
 *                                                TAKEN  -> QUEUED (putBack), in its old place
 *
 * A worker takes a request that somebody waits for before any other, and the oldest first; so demand overtakes
 * what is queued, and work spreads over the workers by itself. Workers with an event loop sleep in `work`, workers
 * that poll descriptors in an eventfd of theirs. Memory of a request belongs to its worker until it is done.
 *
 * A board costs its client one empty read of the eventfd a turn, and a scan of the slots when something was done.
 */
import { assert } from "../errors.ts";
import { createEvent, drainEvent, signalEvent } from "../ffi/event.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { f64, i32 } from "../ffi/view.ts";
import type { CompletionList } from "./completion-list.ts";

/** A board as other threads get it: cloneable. Descriptors belong to the process. */
export interface SharedBoard {
  readonly requestsMax: number;
  readonly words: SharedArrayBuffer;
  readonly places: SharedArrayBuffer;
  /** eventfd that says: requests are done. */
  readonly doneFd: number;
  /** eventfds of workers that poll: something is queued, or the board is stopped. */
  readonly workerFds: readonly number[];
}

const REQUESTS_MAX = 1024;
/** Any time: nothing happens then. */
const ALIVE_MS = 2 ** 30;

const State = { free: 0, queued: 1, taken: 2, done: 3 } as const;

/** Words before those of the slots. */
const GENERATION = 0;
const STOPPED = 1;
const DONE = 2;
const RETRIES = 3;
const TROUBLED = 4;
const HEAD_WORDS = 8;
/** Words of a slot. */
const STATE = 0;
const RESULT = 1;
const IS_DEMANDED = 2;
const ORDER = 3;
const SLOT_WORDS = 4;
/** Doubles of a slot. */
const STRIPE = 0;
const ADDRESS = 1;
const SLOT_PLACES = 2;

export class RequestBoard {
  readonly shared: SharedBoard;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #places: Float64Array;
  readonly #requestsMax: number;
  /** Of the client: what was posted last, and how many ends it has read. */
  #order = 0;
  #seenDone = 0;

  /**
   * @param pollingWorkers how many workers poll descriptors, each with an eventfd of its own
   * @throws UbiError E_MEMORY
   */
  static create(requestsMax: number, pollingWorkers = 0): SharedBoard {
    assert(requestsMax > 0, "a board has slots");
    assert(requestsMax <= REQUESTS_MAX, "a board is scanned, so it is small");
    return {
      requestsMax,
      words: new SharedArrayBuffer((HEAD_WORDS + requestsMax * SLOT_WORDS) * 4),
      places: new SharedArrayBuffer(requestsMax * SLOT_PLACES * 8),
      doneFd: createEvent(),
      workerFds: Array.from({ length: pollingWorkers }, () => createEvent()),
    };
  }

  /** When no thread uses the board any more. */
  static close(shared: SharedBoard): void {
    for (const fd of [shared.doneFd, ...shared.workerFds]) {
      closeDescriptor(fd);
    }
  }

  constructor(shared: SharedBoard) {
    this.shared = shared;
    this.#words = new Int32Array(shared.words);
    this.#places = new Float64Array(shared.places);
    this.#requestsMax = shared.requestsMax;
  }

  // The client's side:

  /** Workers see it at once, but sleep until `wakeWorkers`. */
  post(id: number, stripe: number, address: number, isDemanded: boolean): void {
    assert(id < this.#requestsMax, "ids are below the number of requests");
    const slot = HEAD_WORDS + id * SLOT_WORDS;
    assert(Atomics.load(this.#words, slot + STATE) === State.free, "an id is under way once");
    this.#places[id * SLOT_PLACES + STRIPE] = stripe;
    this.#places[id * SLOT_PLACES + ADDRESS] = address;
    this.#words[slot + ORDER] = this.#order;
    this.#order = (this.#order + 1) | 0;
    Atomics.store(this.#words, slot + IS_DEMANDED, isDemanded ? 1 : 0);
    Atomics.store(this.#words, slot + STATE, State.queued);
  }

  /** Somebody waits for it by now. Without effect once a worker has it. */
  raise(id: number): void {
    Atomics.store(this.#words, HEAD_WORDS + id * SLOT_WORDS + IS_DEMANDED, 1);
  }

  wakeWorkers(): void {
    Atomics.add(this.#words, GENERATION, 1);
    Atomics.notify(this.#words, GENERATION);
    for (const fd of this.shared.workerFds) {
      signalEvent(fd);
    }
  }

  /** Something was done since the last `takeDone`. */
  get hasDone(): boolean {
    return Atomics.load(this.#words, DONE) !== this.#seenDone;
  }

  /** Empties the eventfd, moves what is done to the list and frees its slots. */
  takeDone(ends: CompletionList): void {
    drainEvent(this.shared.doneFd); // first, and always: a worker signals after what it tells can be seen
    if (!this.hasDone) {
      return;
    }
    this.#seenDone = Atomics.load(this.#words, DONE);
    for (let id = 0; id < this.#requestsMax; id++) {
      const slot = HEAD_WORDS + id * SLOT_WORDS;
      if (Atomics.load(this.#words, slot + STATE) === State.done) {
        ends.add(id, i32(this.#words, slot + RESULT));
        Atomics.store(this.#words, slot + STATE, State.free);
      }
    }
  }

  /** For clients with an event loop: resolves when something was done since the last `takeDone`. */
  async nextDone(): Promise<void> {
    await this.#changed(DONE, this.#seenDone);
  }

  /** Workers are to give up what they have, and to end. What is queued stays so. */
  stop(): void {
    Atomics.store(this.#words, STOPPED, 1);
    this.wakeWorkers();
  }

  /** Attempts of the workers that failed and were made again. */
  get retries(): number {
    return Atomics.load(this.#words, RETRIES);
  }

  /** The workers cannot reach what they read from. */
  get isTroubled(): boolean {
    return Atomics.load(this.#words, TROUBLED) === 1;
  }

  // A worker's side:

  get isStopped(): boolean {
    return Atomics.load(this.#words, STOPPED) === 1;
  }

  /** Changes whenever something was queued, or the board was stopped. Read it before `take`. */
  get generation(): number {
    return Atomics.load(this.#words, GENERATION);
  }

  /** The request that goes first; -1 when there is none, or the board is stopped. */
  take(): number {
    while (!this.isStopped) {
      const id = this.#first();
      if (id < 0) {
        return -1;
      }
      const state = HEAD_WORDS + id * SLOT_WORDS + STATE;
      if (Atomics.compareExchange(this.#words, state, State.queued, State.taken) === State.queued) {
        return id;
      }
    }
    return -1;
  }

  /** How many requests nobody has taken. */
  get queuedCount(): number {
    let count = 0;
    for (let id = 0; id < this.#requestsMax; id++) {
      const state = Atomics.load(this.#words, HEAD_WORDS + id * SLOT_WORDS + STATE);
      count += state === State.queued ? 1 : 0;
    }
    return count;
  }

  /** What was taken is to be taken again, by whichever worker looks next; none is woken. */
  putBack(id: number): void {
    const state = HEAD_WORDS + id * SLOT_WORDS + STATE;
    assert(Atomics.load(this.#words, state) === State.taken, "what was taken is put back");
    Atomics.store(this.#words, state, State.queued);
  }

  stripe(id: number): number {
    return f64(this.#places, id * SLOT_PLACES + STRIPE);
  }

  address(id: number): number {
    return f64(this.#places, id * SLOT_PLACES + ADDRESS);
  }

  /** @param result 0 when the memory is filled, or a negative errno; its worker writes it no more */
  finish(id: number, result: number): void {
    const slot = HEAD_WORDS + id * SLOT_WORDS;
    assert(Atomics.load(this.#words, slot + STATE) === State.taken, "what was taken is finished");
    this.#words[slot + RESULT] = result;
    Atomics.store(this.#words, slot + STATE, State.done);
    Atomics.add(this.#words, DONE, 1);
    Atomics.notify(this.#words, DONE);
    signalEvent(this.shared.doneFd);
  }

  /** For workers with an event loop: resolves when something was queued or stopped since `generation`. */
  async work(generation: number): Promise<void> {
    await this.#changed(GENERATION, generation);
  }

  noteRetry(): void {
    Atomics.add(this.#words, RETRIES, 1);
  }

  /** What the last attempt of any worker showed: whether they can reach what they read from. */
  setTroubled(isTroubled: boolean): void {
    Atomics.store(this.#words, TROUBLED, isTroubled ? 1 : 0);
  }

  // --- internal ---

  #first(): number {
    let first = -1;
    let firstSlot = 0;
    for (let id = 0; id < this.#requestsMax; id++) {
      const slot = HEAD_WORDS + id * SLOT_WORDS;
      if (Atomics.load(this.#words, slot + STATE) !== State.queued) {
        continue;
      }
      if (first < 0 || this.#isBefore(slot, firstSlot)) {
        first = id;
        firstSlot = slot;
      }
    }
    return first;
  }

  #isBefore(slot: number, other: number): boolean {
    const demanded = Atomics.load(this.#words, slot + IS_DEMANDED);
    const otherDemanded = Atomics.load(this.#words, other + IS_DEMANDED);
    if (demanded !== otherDemanded) {
      return demanded > otherDemanded;
    }
    // Numbers wrap; those on a board are close to each other.
    return ((i32(this.#words, slot + ORDER) - i32(this.#words, other + ORDER)) | 0) < 0;
  }

  async #changed(word: number, seen: number): Promise<void> {
    const { async: isWaiting, value } = Atomics.waitAsync(this.#words, word, seen);
    if (isWaiting) {
      const alive = setInterval(() => {}, ALIVE_MS); // such a wait alone lets its thread end
      await value;
      clearInterval(alive);
    }
  }
}
