/**
 * One ring as the front end sets it up, and the queue worker that serves it. A ring runs while it is
 * enabled and has a size, addresses and a kick descriptor; whatever changes, the worker is stopped and
 * started to match.
 *
 *   set-up messages --> [ wanted ] --settle()--> start / stop letters --> queue worker
 */
import { UbiError } from "../errors.ts";
import { checkEvent, relieveEvent } from "../ffi/event.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import type { VringAddress } from "../formats/vhost-user.ts";
import {
  AVAILABLE_ALIGN,
  DESCRIPTORS_ALIGN,
  isRingSize,
  RING_ENTRIES_MAX,
  ringLayout,
  USED_ALIGN,
} from "../formats/virtio-ring.ts";
import { type LogLimiter, log } from "../log.ts";
import type { MemoryMap } from "./memory-map.ts";
import {
  QueueCommand,
  type QueueMailbox,
  START_FIELDS,
  type StartArguments,
} from "./queue-mailbox.ts";

/** How long a queue may take to end its requests before the front end is given up. */
const DRAIN_TIMEOUT_MS = 60_000;
const MAY_BLOCK = 2;

/** The control worker's side of a queue's mailbox. */
export type RingMailbox = Pick<QueueMailbox, "command" | "isBusy">;

/** What the rings of one device have in common while a front end is connected. */
export interface RingContext {
  readonly memory: MemoryMap;
  readonly hasEventIndex: () => boolean;
  readonly isWriteThrough: () => boolean;
  /** How long queues may still take to end their requests: infinite while the session lasts. */
  readonly timeLeftMs: () => number;
  readonly limiter: LogLimiter;
}

export class Vring {
  readonly index: number;
  readonly #mailbox: RingMailbox;
  readonly #context: RingContext;
  #entries = 0;
  #address: VringAddress | undefined;
  /** Index of the next chain to take; of a ring that was reset the one it had, for GET_VRING_BASE. */
  #base = 0;
  #isReset = false;
  #kickFd = -1;
  #callFd = -1;
  #errorFd = -1;
  #isEnabled = false;
  #isRunning = false;

  constructor(index: number, mailbox: RingMailbox, context: RingContext) {
    this.index = index;
    this.#mailbox = mailbox;
    this.#context = context;
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** SET_VRING_NUM. Sizes do not depend on the configured queue size. */
  setEntries(entries: number): void {
    if (!isRingSize(entries)) {
      throw new UbiError(
        "E_PROTOCOL",
        `ring ${this.index}: ${entries} entries, but it must be a power of two up to ${RING_ENTRIES_MAX}`,
      );
    }
    this.stop();
    this.#entries = entries;
    this.settle();
  }

  /** SET_VRING_ADDR. */
  setAddress(address: VringAddress): void {
    this.stop();
    this.#address = address;
    if (this.#entries > 0) {
      this.#areas(address); // an error belongs to this message
    }
    this.settle();
  }

  /** SET_VRING_BASE. */
  setBase(base: number): void {
    if (base > 0xffff) {
      throw new UbiError(
        "E_PROTOCOL",
        `ring ${this.index}: base ${base} is not an index of a split ring`,
      );
    }
    this.stop();
    this.#base = base;
    this.#isReset = false;
    this.settle();
  }

  /** SET_VRING_KICK: takes the descriptor over. */
  setKick(fd: number): void {
    this.#check("kick", fd);
    this.stop();
    this.#kickFd = replaced(this.#kickFd, fd);
    this.settle();
  }

  /** SET_VRING_CALL: takes the descriptor over; -1 for none. */
  setCall(fd: number): void {
    const kind = fd < 0 ? 0 : this.#check("call", fd);
    if (this.#isRunning) {
      this.#command(QueueCommand.setCall, [fd, kind === MAY_BLOCK ? 1 : 0]);
    }
    this.#callFd = replaced(this.#callFd, fd);
  }

  /** SET_VRING_ERR: takes the descriptor over; -1 for none. */
  setError(fd: number): void {
    if (fd >= 0) {
      this.#check("error", fd);
    }
    const wasRunning = this.#isRunning;
    this.stop();
    this.#errorFd = replaced(this.#errorFd, fd);
    if (wasRunning) {
      this.settle();
    }
  }

  /** SET_VRING_ENABLE. */
  setEnabled(isEnabled: boolean): void {
    this.#isEnabled = isEnabled;
    if (!isEnabled) {
      this.stop();
    }
    this.settle();
  }

  /** GET_VRING_BASE: stops the ring, drops its descriptors and answers the next available index. */
  takeBase(): number {
    this.stop();
    this.#dropDescriptors();
    return this.#base;
  }

  /** Stops the ring; its requests end first. */
  stop(): void {
    if (this.#isRunning) {
      this.#base = this.#command(QueueCommand.stop, []);
      this.#isRunning = false;
    }
  }

  /** Starts the ring when it has all it needs. */
  settle(): void {
    const address = this.#address;
    const isReady = this.#isEnabled && this.#entries > 0 && this.#kickFd >= 0;
    if (this.#isRunning || !isReady || address === undefined) {
      return;
    }
    const areas = this.#areas(address);
    this.#base = this.#isReset ? 0 : this.#base;
    this.#isReset = false;
    const start: StartArguments = {
      entries: this.#entries,
      ...areas,
      nextAvailable: this.#base,
      hasEventIndex: this.#context.hasEventIndex() ? 1 : 0,
      isWriteThrough: this.#context.isWriteThrough() ? 1 : 0,
      kickFd: this.#kickFd,
      callFd: this.#callFd,
      mayCallBlock: this.#callFd >= 0 && checkEvent(this.#callFd) === MAY_BLOCK ? 1 : 0,
      errorFd: this.#errorFd,
    };
    const values = START_FIELDS.map((field) => start[field]);
    this.#command(QueueCommand.start, values);
    this.#isRunning = true;
    log.debug("ring started", { ring: this.index, entries: this.#entries, base: this.#base });
  }

  /** `settle` for a ring that may have lost its memory: it then stays stopped. */
  settleIfMapped(): void {
    try {
      this.settle();
    } catch (error) {
      if (!(error instanceof UbiError && error.code === "E_PROTOCOL")) {
        throw error;
      }
      const { limiter } = this.#context;
      limiter.info("a ring rests until its memory is back", {
        ring: this.index,
        why: error.message,
      });
    }
  }

  /** Makes a running worker's queue take over the memory table, after its requests ended. */
  reloadMemory(): void {
    this.#command(QueueCommand.reloadMemory, []);
  }

  setWriteThrough(isWriteThrough: boolean): void {
    this.#command(QueueCommand.setWriteThrough, [isWriteThrough ? 1 : 0]);
  }

  /**
   * Back to the state of a new connection, but GET_VRING_BASE still answers where the ring stopped: QEMU 7.1
   * to 8.1 reset the device before they ask, and on resuming a paused guest start the ring from the answer.
   */
  reset(): void {
    this.stop();
    this.#dropDescriptors();
    this.#errorFd = replaced(this.#errorFd, -1);
    this.#entries = 0;
    this.#address = undefined;
    this.#isReset = true;
    this.#isEnabled = false;
  }

  // --- internal ---

  #areas(address: VringAddress) {
    const layout = ringLayout(this.#entries);
    const { memory } = this.#context;
    const name = `of ring ${this.index}`;
    return {
      descriptors: memory.translateUser(
        `descriptor table ${name}`,
        address.descriptors,
        layout.descriptorsBytes,
        DESCRIPTORS_ALIGN,
      ),
      available: memory.translateUser(
        `available ring ${name}`,
        address.available,
        layout.availableBytes,
        AVAILABLE_ALIGN,
      ),
      used: memory.translateUser(`used ring ${name}`, address.used, layout.usedBytes, USED_ALIGN),
    };
  }

  #check(what: string, fd: number): number {
    const kind = checkEvent(fd);
    if (kind < 0) {
      closeDescriptor(fd);
      throw new UbiError(
        "E_PROTOCOL",
        `ring ${this.index}: the ${what} descriptor is not an eventfd`,
      );
    }
    return kind;
  }

  #dropDescriptors(): void {
    this.#kickFd = replaced(this.#kickFd, -1);
    this.#callFd = replaced(this.#callFd, -1);
  }

  /**
   * The flags of a descriptor are the front end's to change: made to block, with a full counter, it would
   * hold the queue in its call for ever. A counter that is not full is left alone, it is a call not yet seen.
   */
  #relieve(): void {
    for (const fd of [this.#callFd, this.#errorFd]) {
      if (fd >= 0) {
        relieveEvent(fd);
      }
    }
  }

  #command(command: number, values: readonly number[]): number {
    if (this.#mailbox.isBusy()) {
      throw stuck(this.index);
    }
    const timeoutMs = Math.min(DRAIN_TIMEOUT_MS, Math.max(0, this.#context.timeLeftMs()));
    const result = this.#mailbox.command(command, values, timeoutMs, () => this.#relieve());
    if (result < 0) {
      throw stuck(this.index);
    }
    return result;
  }
}

function replaced(old: number, fd: number): number {
  if (old >= 0) {
    closeDescriptor(old);
  }
  return fd;
}

function stuck(ring: number): UbiError {
  return new UbiError(
    "E_DISK_IO",
    `queue ${ring} did not end its requests in time; the disk or its stripe source does not answer`,
  );
}
