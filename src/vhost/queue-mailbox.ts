/**
 * How the control worker commands a queue worker: a letter in shared memory, an eventfd to wake it, and
 * an answer that the control worker waits for with a deadline. One letter at a time.
 *
 *   words    | 0 posted | 1 answered | 2 command | 3 result | 4 ring state | 5 oldest table |
 *   doubles  | arguments, up to 16 |
 */
import { assert } from "../errors.ts";
import { signalEvent } from "../ffi/event.ts";
import { f64, i32 } from "../ffi/view.ts";

export const QueueCommand = {
  /** Arguments: see StartArguments. Answers 1 when the ring must be left alone. */
  start: 1,
  /** Stops the ring when its last request ended. Answers the next available index. */
  stop: 2,
  /** Arguments: call descriptor or -1, 1 when its write may block. */
  setCall: 3,
  /** Takes over the memory table, at once. Arguments: its number, and `memoryFaults` when its oldest mapping was made. */
  reloadMemory: 4,
  /** Arguments: 1 for write-through. */
  setWriteThrough: 5,
  /** What is to be marked as dirty, from now on. Arguments: see LogArguments. */
  setLog: 8,
  /** Arguments: error descriptor or -1. */
  setError: 9,
  /** Ends the worker. */
  exit: 6,
  /** In place of a command that waits for requests: it is not wanted any more. Answers WITHDRAWN. */
  withdrawn: 7,
} as const;

/** The answer when a command was taken back before it was carried out. */
export const WITHDRAWN = -2;

export const RingState = { stopped: 0, running: 1, broken: 2 } as const;

/** Order of the arguments of `start`. */
export const START_FIELDS = [
  "entries",
  "descriptors",
  "available",
  "used",
  "nextAvailable",
  "hasEventIndex",
  "isWriteThrough",
  "kickFd",
  "callFd",
  "mayCallBlock",
  "errorFd",
  "isPacked",
  "notesAddress",
  "notesEntries",
  "isForeign",
] as const;

export type StartArguments = Readonly<Record<(typeof START_FIELDS)[number], number>>;

/** Order of the arguments of `setLog`. */
export const LOG_FIELDS = ["address", "sizeBytes", "isOn", "usedAddress", "eventFd"] as const;

export type LogArguments = Readonly<Record<(typeof LOG_FIELDS)[number], number>>;

const POSTED = 0;
const ANSWERED = 1;
const COMMAND = 2;
const RESULT = 3;
const STATE = 4;
const OLDEST_TABLE = 5;
const WORDS = 8;
const ARGUMENTS = 16;
const PATIENCE_MS = 1_000;

export class QueueMailbox {
  readonly #words: Int32Array;
  readonly #arguments: Float64Array;
  readonly wakeFd: number;

  constructor(shared: SharedArrayBuffer, wakeFd: number) {
    this.#words = new Int32Array(shared, 0, WORDS);
    this.#arguments = new Float64Array(shared, WORDS * 4, ARGUMENTS);
    this.wakeFd = wakeFd;
  }

  static readonly sharedBytes = WORDS * 4 + ARGUMENTS * 8;

  // The control worker's side:

  /**
   * Commands and waits for the answer, at most `timeoutMs`. -1 when none came: the letter stays posted,
   * and `isBusy` until it is answered. Calls `whileWaiting` once a second.
   */
  command(
    command: number,
    values: readonly number[],
    timeoutMs: number,
    whileWaiting?: () => void,
  ): number {
    const answered = this.post(command, values);
    const deadline = performance.now() + timeoutMs;
    while (Atomics.load(this.#words, ANSWERED) === answered) {
      const left = deadline - performance.now();
      if (left <= 0) {
        return -1;
      }
      const patienceMs = Math.min(left, PATIENCE_MS);
      if (Atomics.wait(this.#words, ANSWERED, answered, patienceMs) === "timed-out") {
        whileWaiting?.();
      }
    }
    return this.result;
  }

  /** Commands and waits for nothing. The number that ANSWERED has until the answer is there. */
  post(command: number, values: readonly number[]): number {
    assert(!this.isBusy(), "a queue gets one command at a time");
    this.#arguments.set(values);
    Atomics.store(this.#words, COMMAND, command);
    const answered = Atomics.load(this.#words, ANSWERED);
    Atomics.add(this.#words, POSTED, 1);
    signalEvent(this.wakeFd);
    return answered;
  }

  /** The last answer. */
  get result(): number {
    return Atomics.load(this.#words, RESULT);
  }

  /**
   * Takes back a command that got no answer in time, and waits for the word of it: WITHDRAWN, the command's answer when
   * it was carried out all the same, or -1 when the queue says nothing within `timeoutMs`.
   */
  withdraw(timeoutMs: number): number {
    const answered = Atomics.load(this.#words, ANSWERED);
    if (this.isBusy()) {
      Atomics.store(this.#words, COMMAND, QueueCommand.withdrawn);
      signalEvent(this.wakeFd);
      Atomics.wait(this.#words, ANSWERED, answered, timeoutMs);
    }
    return this.isBusy() ? -1 : Atomics.load(this.#words, RESULT);
  }

  /** True while a command was not answered. */
  isBusy(): boolean {
    return Atomics.load(this.#words, POSTED) !== Atomics.load(this.#words, ANSWERED);
  }

  ringState(): number {
    return Atomics.load(this.#words, STATE);
  }

  /** The oldest memory table that a request under way was translated by, or the one in force. */
  oldestTable(): number {
    return Atomics.load(this.#words, OLDEST_TABLE);
  }

  // The queue worker's side:

  /** The command to carry out, or 0. */
  pending(): number {
    return this.isBusy() ? Atomics.load(this.#words, COMMAND) : 0;
  }

  argument(index: number): number {
    return f64(this.#arguments, index);
  }

  /** The first arguments of `start`. */
  ringAreas(): Pick<StartArguments, "entries" | "descriptors" | "available" | "used"> {
    return {
      entries: this.argument(0),
      descriptors: this.argument(1),
      available: this.argument(2),
      used: this.argument(3),
    };
  }

  /** Of `setLog`. */
  logArguments(): LogArguments {
    return {
      address: this.argument(0),
      sizeBytes: this.argument(1),
      isOn: this.argument(2),
      usedAddress: this.argument(3),
      eventFd: this.argument(4),
    };
  }

  setRingState(state: number): void {
    Atomics.store(this.#words, STATE, state);
  }

  setOldestTable(table: number): void {
    Atomics.store(this.#words, OLDEST_TABLE, table);
  }

  answer(result: number): void {
    Atomics.store(this.#words, RESULT, result);
    Atomics.store(this.#words, ANSWERED, i32(this.#words, POSTED));
    Atomics.notify(this.#words, ANSWERED);
  }
}
