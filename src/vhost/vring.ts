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
import {
  FIRST_POSITION,
  isPackedSize,
  PACKED_ENTRIES_MAX,
  PLACE_MASK,
} from "../formats/packed-ring.ts";
import type { VringAddress } from "../formats/vhost-user.ts";
import { isRingSize, RING_ENTRIES_MAX, ringLayout } from "../formats/virtio-ring.ts";
import { type LogLimiter, log } from "../log.ts";
import type { RingNotes } from "../virtio/split-ring.ts";
import {
  QueueCommand,
  type QueueMailbox,
  START_FIELDS,
  type StartArguments,
} from "./queue-mailbox.ts";
import type { RingEnds } from "./ring-ends.ts";
import { type LogContext, RingLog } from "./ring-log.ts";
import { packedPlace, type RingPlace, splitPlace } from "./ring-place.ts";

/** How long a queue may take to end its requests before the front end is given up. */
const DRAIN_TIMEOUT_MS = 60_000;
const MAY_BLOCK = 2;

/** The control worker's side of a queue's mailbox. */
export type RingMailbox = Pick<QueueMailbox, "command" | "isBusy" | "oldestTable" | "withdraw">;

/** What the rings of one device have in common while a front end is connected. */
export interface RingContext extends LogContext {
  readonly hasEventIndex: () => boolean;
  readonly isPacked: () => boolean;
  readonly isWriteThrough: () => boolean;
  /** Where a ring notes its requests under way, if the front end keeps that. */
  readonly notesOf: (ring: number) => RingNotes | undefined;
  /** What a ring noted counts no more. */
  readonly forgetNotes: (ring: number) => void;
  /** How long queues may still take to end their requests: infinite while the session lasts. */
  readonly timeLeftMs: () => number;
  readonly ends: RingEnds;
  readonly limiter: LogLimiter;
}

export class Vring {
  readonly index: number;
  readonly #mailbox: RingMailbox;
  readonly #context: RingContext;
  #entries = 0;
  #address: VringAddress | undefined;
  readonly #log: RingLog;
  /** Where the running ring lies. */
  #place: RingPlace | undefined;
  /** Index, or position in a packed ring, of the next chain to take; of a ring that was reset the one it had, for GET_VRING_BASE. */
  #base: number | undefined;
  #isReset = false;
  /** A backend that was killed may have left the ring at this base. */
  #isForeign = false;
  /** The ring runs, or ran last, without a request: what is under way in it, or where it goes on, is not certain. */
  #isLeftAlone = false;
  #kickFd = -1;
  #callFd = -1;
  #errorFd = -1;
  /** The queue is being told of it. */
  #newFd = -1;
  #isEnabled = false;
  #isRunning = false;

  constructor(index: number, mailbox: RingMailbox, context: RingContext) {
    this.index = index;
    this.#mailbox = mailbox;
    this.#context = context;
    this.#log = new RingLog(context, (values) => {
      this.#command(QueueCommand.setLog, values);
    });
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  get isLeftAlone(): boolean {
    return this.#isRunning && this.#isLeftAlone;
  }

  /** SET_VRING_NUM. Sizes do not depend on the configured queue size. */
  setEntries(entries: number): void {
    const isPacked = this.#context.isPacked();
    if (!(isPacked ? isPackedSize(entries) : isRingSize(entries))) {
      const limit = isPacked
        ? `1 to ${PACKED_ENTRIES_MAX}`
        : `a power of two up to ${RING_ENTRIES_MAX}`;
      throw new UbiError(
        "E_PROTOCOL",
        `ring ${this.index}: ${entries} entries, but it must be ${limit}`,
      );
    }
    this.stop();
    this.#entries = entries;
    this.settle();
  }

  /** SET_VRING_ADDR. */
  setAddress(address: VringAddress): void {
    if (this.#isRunning && this.#address !== undefined && isSamePlace(address, this.#address)) {
      this.#address = address; // only what is logged has changed
      this.followLog();
      return;
    }
    this.stop();
    this.#address = address;
    if (this.#entries > 0) {
      this.#areas(address); // an error belongs to this message
    }
    this.settle();
  }

  /** SET_VRING_BASE. */
  setBase(base: number): void {
    const next = this.#context.isPacked() ? this.#positionOf(base) : base;
    if (next > 0xffff) {
      throw new UbiError(
        "E_PROTOCOL",
        `ring ${this.index}: base ${base} is not an index of a split ring`,
      );
    }
    this.stop();
    this.#base = next;
    this.#isForeign = this.#context.ends.mayBeLeft(this.index, next);
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
    this.#replace(QueueCommand.setCall, [fd, kind === MAY_BLOCK ? 1 : 0]);
    this.#callFd = replaced(this.#callFd, fd);
  }

  /** SET_VRING_ERR: takes the descriptor over; -1 for none. */
  setError(fd: number): void {
    if (fd >= 0) {
      this.#check("error", fd);
    }
    this.#replace(QueueCommand.setError, [fd]);
    this.#errorFd = replaced(this.#errorFd, fd);
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
    if (!this.#isLeftAlone) {
      this.forgetNotes();
    }
    const base = this.#base ?? this.#firstBase();
    // Of a packed ring where the next used descriptor goes as well: all that was taken has been used.
    return this.#context.isPacked() ? base * 0x1_0000 + base : base;
  }

  /** Stops the ring; its requests end first. */
  stop(): void {
    if (this.#isRunning) {
      this.#hasStopped(this.#command(QueueCommand.stop, []));
    }
  }

  /**
   * Stops the ring as `stop` does, or leaves it running when its requests do not end in time.
   * @throws UbiError E_DISK_IO when the queue does not answer at all
   */
  rest(timeoutMs: number): boolean {
    if (!this.#isRunning) {
      return true;
    }
    if (this.#mailbox.isBusy()) {
      return false;
    }
    const answer = this.#mailbox.command(QueueCommand.stop, [], timeoutMs, () => this.#relieve());
    const base = answer >= 0 ? answer : this.#mailbox.withdraw(DRAIN_TIMEOUT_MS);
    if (this.#mailbox.isBusy()) {
      throw stuck(this.index);
    }
    if (base >= 0) {
      this.#hasStopped(base);
    }
    return base >= 0;
  }

  /** Starts the ring when it has all it needs. */
  settle(): void {
    const address = this.#address;
    const isReady = this.#isEnabled && this.#entries > 0 && this.#kickFd >= 0;
    if (this.#isRunning || !isReady || address === undefined) {
      return;
    }
    const areas = this.#areas(address);
    const notes = this.#notes();
    if (!this.#hasLog(address)) {
      const { limiter } = this.#context;
      limiter.info("a ring rests until there is a log for all memory", { ring: this.index });
      return;
    }
    this.#log.tell(address);
    const base = this.#isReset ? this.#firstBase() : (this.#base ?? this.#firstBase());
    const isPacked = this.#context.isPacked();
    if (isPacked && (base & PLACE_MASK) >= this.#entries) {
      const place = base & PLACE_MASK;
      throw new UbiError(
        "E_PROTOCOL",
        `ring ${this.index}: base ${place} in a packed ring of ${this.#entries} entries`,
      );
    }
    this.#base = base;
    this.#isReset = false;
    const start: StartArguments = {
      entries: this.#entries,
      ...areas,
      nextAvailable: base,
      hasEventIndex: this.#context.hasEventIndex() ? 1 : 0,
      isWriteThrough: this.#context.isWriteThrough() ? 1 : 0,
      kickFd: this.#kickFd,
      callFd: this.#callFd,
      mayCallBlock: this.#callFd >= 0 && checkEvent(this.#callFd) === MAY_BLOCK ? 1 : 0,
      errorFd: this.#errorFd,
      isPacked: isPacked ? 1 : 0,
      notesAddress: notes?.address ?? 0,
      notesEntries: notes?.entries ?? 0,
      isForeign: this.#isForeign ? 1 : 0,
    };
    const values = START_FIELDS.map((field) => start[field]);
    this.#isLeftAlone = this.#command(QueueCommand.start, values) === 1;
    this.#isForeign &&= this.#isLeftAlone;
    this.#place = areas;
    this.#isRunning = true;
    log.debug("ring started", { ring: this.index, entries: this.#entries, base, packed: isPacked });
  }

  /**
   * The front end has been told where a packed ring stopped, or the driver begins anew: from here on the front end
   * knows best. Else only the notes say where such a ring goes on; a split ring says it itself.
   */
  forgetNotes(): void {
    if (this.#context.isPacked()) {
      this.#context.forgetNotes(this.index);
    }
  }

  /** The driver negotiated the other kind of ring: what was said of this one has another meaning there. */
  forgetLayout(): void {
    this.stop();
    this.#entries = 0;
    this.#address = undefined;
    this.#base = undefined;
  }

  /** `settle` for a ring that may have lost its memory: it then stays stopped. */
  settleIfMapped(): void {
    try {
      this.settle();
    } catch (error) {
      const { limiter } = this.#context;
      limiter.info("a ring rests until its memory is back", {
        ring: this.index,
        why: expectProtocolError(error).message,
      });
    }
  }

  /**
   * Stops a ring that lies elsewhere by the new memory table, or nowhere, or whose log has no bits for all of it;
   * its requests end first.
   */
  leaveLostMemory(): void {
    const address = this.#address;
    if (this.#isRunning && address && !(this.#isInPlace(address) && this.#hasLog(address))) {
      this.stop();
    }
  }

  /** Something about the log has changed: a running ring goes on with it, unless it must log and cannot. */
  followLog(): void {
    const address = this.#address;
    if (this.#isRunning && address && this.#hasLog(address)) {
      this.#log.tell(address);
    } else {
      this.stop();
      this.settleIfMapped();
    }
  }

  /** The log is about to go. */
  forgetLog(): void {
    this.#log.forget();
  }

  /** The queue translates by the new memory table from here on. */
  reloadMemory(): void {
    const { table, faults } = this.#context.memory;
    this.#command(QueueCommand.reloadMemory, [table, faults]);
  }

  /** The oldest memory table that the queue's requests still use. */
  get oldestTable(): number {
    return this.#mailbox.oldestTable();
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
    this.#isLeftAlone = false;
    this.#isEnabled = false;
  }

  // --- internal ---

  #hasStopped(base: number): void {
    this.#base = base;
    this.#isRunning = false;
    if (!this.#isLeftAlone) {
      this.#context.ends.stopped(this.index, base);
    }
  }

  #firstBase(): number {
    return this.#context.isPacked() ? FIRST_POSITION : 0;
  }

  /** Of a packed ring: where to take on in the lower half, where to use on in the upper one, which may be left out. */
  #positionOf(base: number): number {
    const next = base & 0xffff;
    const used = base >>> 16;
    if (used !== 0 && used !== next) {
      throw new UbiError(
        "E_PROTOCOL",
        `ring ${this.index}: base 0x${base.toString(16)} has requests under way, which only the backend knew that took them`,
      );
    }
    return next;
  }

  #hasLog(address: VringAddress): boolean {
    return this.#log.isReady(address, this.#usedBytes());
  }

  /** Of a used ring that is logged at an address of its own: not of a packed ring, which lies in guest memory. */
  #usedBytes(): number {
    return this.#context.isPacked() ? 0 : ringLayout(this.#entries).usedBytes;
  }

  #isInPlace(address: VringAddress): boolean {
    const place = this.#place;
    if (place === undefined) {
      return false;
    }
    try {
      const now = this.#areas(address);
      const isSame = now.descriptors === place.descriptors && now.used === place.used;
      return isSame && now.available === place.available;
    } catch (error) {
      expectProtocolError(error);
      return false;
    }
  }

  #areas(address: VringAddress): RingPlace {
    const { index } = this;
    const { memory } = this.#context;
    const ring = { index, entries: this.#entries, memory };
    return this.#context.isPacked() ? packedPlace(ring, address) : splitPlace(ring, address);
  }

  #notes(): RingNotes | undefined {
    const notes = this.#context.notesOf(this.index);
    if (notes !== undefined && notes.entries < this.#entries) {
      const counts = `${this.#entries} entries, its in-flight region is for ${notes.entries}`;
      throw new UbiError("E_PROTOCOL", `ring ${this.index} has ${counts}`);
    }
    return notes;
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

  /** The queue signals the first of these from here on. */
  #replace(command: number, values: readonly [number, ...number[]]): void {
    if (this.#isRunning) {
      this.#newFd = values[0];
      this.#command(command, values);
      this.#newFd = -1;
    }
  }

  #dropDescriptors(): void {
    this.#kickFd = replaced(this.#kickFd, -1);
    this.#callFd = replaced(this.#callFd, -1);
  }

  /**
   * The flags of a descriptor are the front end's to change: made to block, with a full counter, it would
   * hold the queue in its call for ever. A counter that is not full is left alone, it is a call not yet seen.
   * No such descriptor is signalled by this thread: nobody would relieve it.
   */
  #relieve(): void {
    const { eventFds } = this.#context.dirtyLog;
    for (const fd of [this.#callFd, this.#errorFd, this.#newFd, ...eventFds]) {
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

function isSamePlace(a: VringAddress, b: VringAddress): boolean {
  return a.descriptors === b.descriptors && a.available === b.available && a.used === b.used;
}

function replaced(old: number, fd: number): number {
  if (old >= 0) {
    closeDescriptor(old);
  }
  return fd;
}

/** @throws whatever else it is */
function expectProtocolError(error: unknown): UbiError {
  if (error instanceof UbiError && error.code === "E_PROTOCOL") {
    return error;
  }
  throw error;
}

function stuck(ring: number): UbiError {
  return new UbiError(
    "E_DISK_IO",
    `queue ${ring} did not end its requests in time; the disk or its stripe source does not answer`,
  );
}
