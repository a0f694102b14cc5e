/**
 * How the control worker commands a queue worker: a letter in shared memory, an eventfd to wake it, and
 * an answer that the control worker waits for with a deadline. One letter at a time.
 *
 *   words    | 0 posted | 1 answered | 2 command | 3 result | 4 ring state |
 *   doubles  | arguments, up to 12 |
 */
import { assert } from "../errors.ts";
import { signalEvent } from "../ffi/event.ts";
import { f64, i32 } from "../ffi/view.ts";

export const QueueCommand = {
  /** Arguments: see StartArguments. */
  start: 1,
  /** Stops the ring when its last request ended. Answers the next available index. */
  stop: 2,
  /** Arguments: call descriptor or -1, 1 when its write may block. */
  setCall: 3,
  /** Takes over the memory table once no request is under way. */
  reloadMemory: 4,
  /** Arguments: 1 for write-through. */
  setWriteThrough: 5,
  /** Ends the worker. */
  exit: 6,
} as const;

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
] as const;

export type StartArguments = Readonly<Record<(typeof START_FIELDS)[number], number>>;

const POSTED = 0;
const ANSWERED = 1;
const COMMAND = 2;
const RESULT = 3;
const STATE = 4;
const WORDS = 8;
const ARGUMENTS = 12;
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
    assert(!this.isBusy(), "a queue gets one command at a time");
    this.#arguments.set(values);
    Atomics.store(this.#words, COMMAND, command);
    const answered = Atomics.load(this.#words, ANSWERED);
    Atomics.add(this.#words, POSTED, 1);
    signalEvent(this.wakeFd);
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
    return Atomics.load(this.#words, RESULT);
  }

  /** True while a command was not answered. */
  isBusy(): boolean {
    return Atomics.load(this.#words, POSTED) !== Atomics.load(this.#words, ANSWERED);
  }

  ringState(): number {
    return Atomics.load(this.#words, STATE);
  }

  // The queue worker's side:

  /** The command to carry out, or 0. */
  pending(): number {
    return this.isBusy() ? Atomics.load(this.#words, COMMAND) : 0;
  }

  argument(index: number): number {
    return f64(this.#arguments, index);
  }

  setRingState(state: number): void {
    Atomics.store(this.#words, STATE, state);
  }

  answer(result: number): void {
    Atomics.store(this.#words, RESULT, result);
    Atomics.store(this.#words, ANSWERED, i32(this.#words, POSTED));
    Atomics.notify(this.#words, ANSWERED);
  }
}
