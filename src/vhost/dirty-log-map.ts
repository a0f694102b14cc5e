/**
 * The front end's log of dirty pages in this process: mapped as it passes it, and unmapped when every queue knows of
 * the one that follows.
 */
import { UbiError } from "../errors.ts";
import { checkEvent } from "../ffi/event.ts";
import { PAGE_SIZE } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import type { LogArea } from "../formats/vhost-user.ts";
import { GuardedMapping } from "./guarded-mapping.ts";
import { checkFile } from "./memory-map.ts";

/** Of guest memory, for a byte of the log. */
const BYTES_A_BYTE = 8 * PAGE_SIZE;

interface MappedLog {
  readonly mapping: GuardedMapping;
  readonly sizeBytes: number;
}

export class DirtyLogMap implements Disposable {
  #log: MappedLog | undefined;
  #old: MappedLog[] = [];
  #eventFd = -1;
  #oldEventFd = -1;

  /** 0 when there is none. */
  get address(): number {
    return this.#log?.mapping.address ?? 0;
  }

  get sizeBytes(): number {
    return this.#log?.sizeBytes ?? 0;
  }

  /** Signalled when something was marked; -1 for nobody. */
  get eventFd(): number {
    return this.#eventFd;
  }

  /** That one, and one that queues may still have: -1 for none. */
  get eventFds(): readonly number[] {
    return [this.#eventFd, this.#oldEventFd];
  }

  /** Every page below the guest address `end` has its bit. */
  covers(end: number): boolean {
    return this.#log !== undefined && end <= this.#log.sizeBytes * BYTES_A_BYTE;
  }

  /**
   * Maps another log. The queues must be told before `dropOld`.
   * @param end first guest address behind what it must have bits for
   * @throws UbiError E_PROTOCOL, E_MEMORY
   */
  replace(area: LogArea, fd: number, end: number): void {
    const { sizeBytes, offsetBytes } = area;
    if (!Number.isSafeInteger((offsetBytes + sizeBytes) * BYTES_A_BYTE)) {
      throw new UbiError("E_PROTOCOL", "the log of dirty pages wraps around");
    }
    if (sizeBytes * BYTES_A_BYTE < Math.max(1, end)) {
      const memory = `guest memory up to 0x${end.toString(16)}`;
      throw new UbiError("E_PROTOCOL", `a log of ${sizeBytes} bytes is too small for ${memory}`);
    }
    checkFile("the log of dirty pages", fd, offsetBytes + sizeBytes);
    const mapping = new GuardedMapping(fd, offsetBytes, sizeBytes);
    this.#retire();
    this.#log = { mapping, sizeBytes };
  }

  /** Takes an eventfd over. The queues must be told before `dropOld`. */
  setEvent(fd: number): void {
    if (checkEvent(fd) < 0) {
      closeDescriptor(fd);
      throw new UbiError(
        "E_PROTOCOL",
        "the descriptor of the log of dirty pages is not an eventfd",
      );
    }
    this.#oldEventFd = this.#eventFd;
    this.#eventFd = fd;
  }

  /** No queue uses what was replaced any more. */
  dropOld(): void {
    for (const { mapping } of this.#old) {
      mapping[Symbol.dispose]();
    }
    this.#old = [];
    this.#oldEventFd = closed(this.#oldEventFd);
  }

  /** No queue uses the log any more. */
  [Symbol.dispose](): void {
    this.#retire();
    this.#log = undefined;
    this.dropOld();
    this.#eventFd = closed(this.#eventFd);
  }

  // --- internal ---

  #retire(): void {
    if (this.#log !== undefined) {
      this.#old.push(this.#log);
    }
  }
}

function closed(fd: number): number {
  if (fd >= 0) {
    closeDescriptor(fd);
  }
  return -1;
}
