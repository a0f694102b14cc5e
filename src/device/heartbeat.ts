/**
 * Proof that threads are alive, for the watchdog of a service manager. The main thread asks by a number and wakes
 * every thread by its eventfd; a thread that gets to its wake-up answers with that number. Who is stuck does not.
 *
 *   words   | asked | answered, one a thread ... | excused until (seconds, CLOCK_MONOTONIC), one a thread ... |
 *
 * Nobody is asked unless there is a watchdog; then an answer costs two words of memory in the branch of a wake-up.
 */
import { assert } from "../errors.ts";
import { clockNs, signalEvent } from "../ffi/event.ts";

/** For the thread that is to answer. */
export interface SharedPulse {
  readonly words: SharedArrayBuffer;
  readonly place: number;
}

/** The main thread's side. */
export class Heartbeat {
  readonly #shared = new SharedArrayBuffer((1 + 2 * THREADS_MAX) * 4);
  readonly #words = new Int32Array(this.#shared);
  readonly #threads: { readonly name: string; readonly wakeFd: number }[] = [];

  /**
   * A thread that is asked from now on.
   * @param wakeFd an eventfd that the thread waits for, whatever else it does
   */
  add(name: string, wakeFd: number): SharedPulse {
    assert(this.#threads.length < THREADS_MAX, "there is a place for each thread");
    this.#threads.push({ name, wakeFd });
    const place = this.#threads.length - 1;
    Atomics.store(this.#words, ANSWERED + place, Atomics.load(this.#words, ASKED));
    return { words: this.#shared, place };
  }

  /** Asks every thread. Returns the number of the question, for `silent`. */
  ask(): number {
    const question = (Atomics.add(this.#words, ASKED, 1) + 1) | 0;
    for (const { wakeFd } of this.#threads) {
      signalEvent(wakeFd);
    }
    return question;
  }

  /** Those that have answered neither that question, or the last one, nor a later one, and are not known to be busy. */
  silent(question = Atomics.load(this.#words, ASKED)): readonly string[] {
    const nowS = clockNs() / 1e9;
    return this.#threads
      .filter(
        (_, place) =>
          ((Atomics.load(this.#words, ANSWERED + place) - question) | 0) < 0 &&
          Atomics.load(this.#words, EXCUSED + place) < nowS,
      )
      .map(({ name }) => name);
  }
}

/** A thread's side. */
export class Pulse {
  readonly #words: Int32Array;
  readonly #place: number;

  constructor({ words, place }: SharedPulse) {
    this.#words = new Int32Array(words);
    this.#place = place;
  }

  answer(): void {
    Atomics.store(this.#words, ANSWERED + this.#place, Atomics.load(this.#words, ASKED));
  }

  /** The thread begins something that has a limit of its own, and answers nobody for so long at most; 0 ends that. */
  excuse(limitMs: number): void {
    const untilS = limitMs === 0 ? 0 : Math.ceil(clockNs() / 1e9 + limitMs / 1000);
    Atomics.store(this.#words, EXCUSED + this.#place, untilS);
  }
}

// --- internal ---

/** The queues of a disk, its stripe thread, and the thread that talks to front ends. */
const THREADS_MAX = 66;
const ASKED = 0;
const ANSWERED = 1;
const EXCUSED = ANSWERED + THREADS_MAX;
