/** The interrupt of a ring, or its error: the front end's descriptor, which may come, change and go while the ring runs. */
import { signalEvent, signalEventAsking } from "../ffi/event.ts";

export class GuestCall {
  #fd = -1;
  #mayBlock = false;

  /** @param fd -1 for none; @param mayBlock whether a write to it may */
  set(fd: number, mayBlock: boolean): void {
    this.#fd = fd;
    this.#mayBlock = mayBlock;
  }

  /** False when there is nobody to tell. */
  signal(): boolean {
    if (this.#fd < 0) {
      return false;
    }
    if (this.#mayBlock) {
      signalEventAsking(this.#fd);
    } else {
      signalEvent(this.#fd);
    }
    return true;
  }
}
