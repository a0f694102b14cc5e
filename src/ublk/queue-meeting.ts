/**
 * Where the queues of a device wait for each other before the first of them fetches. Linux 6.12 does not survive the
 * recovery of a device some of whose queues, but not all, were fetched for when a server died: the time in which
 * that can happen has to be short, and a queue that cannot be set up must not leave others that have fetched.
 *
 *   word   queues that have come
 */
import { UbiError } from "../errors.ts";

export class QueueMeeting {
  readonly #come: Int32Array;
  readonly #queues: number;

  static readonly SHARED_BYTES = 4;

  constructor(shared: SharedArrayBuffer, queues: number) {
    this.#come = new Int32Array(shared);
    this.#queues = queues;
  }

  /** Waits for all others. @throws UbiError E_UBLK_DEVICE when one of them does not come in time */
  come(timeoutMs: number): void {
    const deadline = performance.now() + timeoutMs;
    let come = Atomics.add(this.#come, 0, 1) + 1;
    Atomics.notify(this.#come, 0);
    while (come < this.#queues) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) {
        throw new UbiError("E_UBLK_DEVICE", "another queue was not ready in time");
      }
      Atomics.wait(this.#come, 0, come, leftMs);
      come = Atomics.load(this.#come, 0);
    }
  }
}
