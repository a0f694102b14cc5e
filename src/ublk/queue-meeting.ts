/**
 * Where the queues of a device wait for each other, since Linux 6.12 does not forget everything of a server that died
 * in the middle of its start. They meet before the first of them fetches: a recovery of a device some of whose queues,
 * but not all, were fetched for is not survived, so the time in which that can happen has to be short, and a queue that
 * cannot be set up must not leave others that have fetched. And they meet before the first of them maps its
 * descriptors: a process that mapped them while no queue was fetched for stays the only one that may, dead or not.
 *
 *   word   how often queues have come; below zero: one will not come any more
 */
import { UbiError } from "../errors.ts";

/** So far below zero that no queue comes often enough to lift it. */
const FAILED = -(2 ** 30);

export class QueueMeeting {
  readonly #come: Int32Array;
  readonly #queues: number;
  /** What the word is when all have come to the meeting that is held next. */
  #all = 0;

  static readonly SHARED_BYTES = 4;

  constructor(shared: SharedArrayBuffer, queues: number) {
    this.#come = new Int32Array(shared);
    this.#queues = queues;
  }

  /**
   * Waits until all others have come as often as this one.
   * @throws UbiError E_UBLK_DEVICE when one of them does not come in time, or has failed: then nobody else passes
   */
  come(timeoutMs: number): void {
    const deadline = performance.now() + timeoutMs;
    this.#all += this.#queues;
    let come = Atomics.add(this.#come, 0, 1) + 1;
    Atomics.notify(this.#come, 0);
    while (come >= 0 && come < this.#all) {
      const leftMs = deadline - performance.now();
      if (leftMs > 0) {
        Atomics.wait(this.#come, 0, come, leftMs);
        come = Atomics.load(this.#come, 0);
      } else {
        const found = Atomics.compareExchange(this.#come, 0, come, FAILED);
        come = found === come ? FAILED : found;
      }
    }
    if (come < 0) {
      Atomics.notify(this.#come, 0);
      throw new UbiError("E_UBLK_DEVICE", "another queue was not ready in time, or has failed");
    }
  }

  /** One queue will not come any more: those that wait for it fail. */
  fail(): void {
    Atomics.store(this.#come, 0, FAILED);
    Atomics.notify(this.#come, 0);
  }
}
