/**
 * What a ring's queue is told of the log of dirty pages.
 *
 * A ring that must log and has no bits for all that it may write rests: what it wrote unmarked would be missing on the
 * host that the guest is moved to.
 */
import { VRING_LOG, type VringAddress } from "../formats/vhost-user.ts";
import type { DirtyLogMap } from "./dirty-log-map.ts";
import type { MemoryMap } from "./memory-map.ts";
import { LOG_FIELDS, type LogArguments } from "./queue-mailbox.ts";

export interface LogContext {
  readonly memory: MemoryMap;
  readonly dirtyLog: DirtyLogMap;
  /** What requests write is to be marked in the log. */
  readonly isLogging: () => boolean;
}

const NO_LOG: LogArguments = { address: 0, sizeBytes: 0, isOn: 0, usedAddress: -1, eventFd: -1 };

export class RingLog {
  readonly #context: LogContext;
  readonly #command: (values: readonly number[]) => void;
  #told = NO_LOG;

  constructor(context: LogContext, command: (values: readonly number[]) => void) {
    this.#context = context;
    this.#command = command;
  }

  /** What must be logged has its bits. @param usedBytes of a used ring that is logged at an address of its own */
  isReady(address: VringAddress, usedBytes: number): boolean {
    const { isLogging, dirtyLog, memory } = this.#context;
    const usedEnd = isUsedLogged(address) ? address.log + usedBytes : 0;
    return !isLogging() || dirtyLog.covers(Math.max(memory.guestEnd, usedEnd));
  }

  /** Tells the queue what holds now. */
  tell(address: VringAddress): void {
    const { isLogging, dirtyLog } = this.#context;
    const isOn = isLogging();
    const isUsedOn = isUsedLogged(address) && dirtyLog.address > 0;
    if (!isOn && !isUsedOn) {
      this.forget();
      return;
    }
    this.#set({
      address: dirtyLog.address,
      sizeBytes: dirtyLog.sizeBytes,
      isOn: isOn ? 1 : 0,
      usedAddress: isUsedOn ? address.log : -1,
      eventFd: dirtyLog.eventFd,
    });
  }

  /** The log is about to go. */
  forget(): void {
    this.#set(NO_LOG);
  }

  // --- internal ---

  #set(log: LogArguments): void {
    if (LOG_FIELDS.some((field) => log[field] !== this.#told[field])) {
      this.#command(LOG_FIELDS.map((field) => log[field]));
      this.#told = log;
    }
  }
}

function isUsedLogged(address: VringAddress): boolean {
  return (address.flags & VRING_LOG) !== 0;
}
