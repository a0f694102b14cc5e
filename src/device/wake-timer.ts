/** The alarm clock of a thread that sleeps in its engine: a descriptor that this one watches. */
import { createTimer, drainEvent, setTimer } from "../ffi/event.ts";
import { closeDescriptor } from "../ffi/socket.ts";

export class WakeTimer implements Disposable {
  readonly fd = createTimer();
  #dueNs = 0;

  /** Wakes the thread at `atNs`, or earlier: a time that was set before and comes before that stays. Infinity: never. */
  set(atNs: number, nowNs: number): void {
    const isSet = this.#dueNs > nowNs && this.#dueNs <= atNs;
    if (!isSet && atNs < Number.POSITIVE_INFINITY) {
      this.#dueNs = atNs;
      setTimer(this.fd, Math.max(1, atNs - nowNs));
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
