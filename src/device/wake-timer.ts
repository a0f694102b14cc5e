/** The alarm clock of a thread that sleeps in its engine: a descriptor that this one watches. */
import { drainEvent } from "../ffi/event.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import type { Machine } from "./machine.ts";

export class WakeTimer implements Disposable {
  readonly fd: number;
  readonly #machine: Pick<Machine, "createTimer" | "setTimer">;
  #dueNs = 0;

  constructor(machine: Pick<Machine, "createTimer" | "setTimer">) {
    this.#machine = machine;
    this.fd = machine.createTimer();
  }

  /** Wakes the thread at `atNs`, or earlier: a time that was set before and comes before that stays. Infinity: never. */
  set(atNs: number, nowNs: number): void {
    const isSet = this.#dueNs > nowNs && this.#dueNs <= atNs;
    if (!isSet && atNs < Number.POSITIVE_INFINITY) {
      this.#dueNs = atNs;
      this.#machine.setTimer(this.fd, Math.max(1, atNs - nowNs));
    }
  }

  /** It woke the thread. */
  fired(): void {
    drainEvent(this.fd);
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.fd);
  }
}
