/**
 * The thread of one queue of a ublk device: fetches requests from the driver, has them carried out, commits each
 * when it is done. Driver commands, disk I/O and wake-ups are entries and completions of one ring, so the thread
 * sleeps in one system call.
 *
 *   turn:  finished -> commit and fetch | submit, wait | completions: fetched -> admit or hold; I/O -> complete
 *
 * A tag belongs to the driver from its fetch until that completes, then to this thread until it commits. The
 * thread ends when the driver has aborted the fetches of all tags: the device was stopped.
 * Cost: about 200 ns a request besides cipher and kernel; one system call a batch; no allocation.
 */
import type { DiskDescription, SharedDiskState } from "../device/disk-device.ts";
import { openDiskRequests, syncDisk } from "../device/disk-requests.ts";
import { DiskSize } from "../device/disk-size.ts";
import { Pulse, type SharedPulse } from "../device/heartbeat.ts";
import { thisMachine } from "../device/machine.ts";
import { Counter, QueueStatistics } from "../device/queue-statistics.ts";
import { QueueThrottle } from "../device/queue-throttle.ts";
import { WakeTimer } from "../device/wake-timer.ts";
import { type IoEngine, WATCH_ID } from "../disk/io-engine.ts";
import type { RequestRunner } from "../disk/request-executor.ts";
import { Operation, Outcome, RequestTable } from "../disk/request-table.ts";
import { SyncEngine } from "../disk/sync-engine.ts";
import { REGISTERED_BUFFERS_MAX, UringEngine } from "../disk/uring-engine.ts";
import { assert, errnoText, errorText, UbiError } from "../errors.ts";
import { clockNs, drainEvent } from "../ffi/event.ts";
import { nameThread, pinThread } from "../ffi/process.ts";
import { f64, i32, join64, low64, u32 } from "../ffi/view.ts";
import {
  FETCH_ABORTED,
  IO_CODE,
  UBLK_FLAG_FUA,
  UBLK_FLAG_KEEP,
  UBLK_OPERATION,
} from "../formats/ublk.ts";
import { SECTOR_BYTES, SEGMENT_BYTES, SEGMENT_UNMAP } from "../formats/virtio-blk.ts";
import { LogLimiter, log } from "../log.ts";
import { QueueMeeting } from "./queue-meeting.ts";
import { RequestDescriptors } from "./request-descriptors.ts";
import { TagMemory } from "./tag-memory.ts";
import { TagQueue } from "./tag-queue.ts";

/** What a queue worker is started with. */
export interface UblkQueueData {
  readonly queue: number;
  readonly queues: number;
  /** Of a QueueMeeting. */
  readonly meeting: SharedArrayBuffer;
  /** Tags of the queue. */
  readonly depth: number;
  /** Places of the disk's statistics. */
  readonly slots: number;
  readonly ioBytes: number;
  readonly isZeroCopy: boolean;
  readonly charFd: number;
  readonly bufferLimitBytes: number;
  readonly ioEngine: "io_uring" | "sync";
  readonly cpu: number | undefined;
  readonly disk: DiskDescription;
  readonly shared: SharedDiskState;
  readonly pulse: SharedPulse;
  readonly wakeFds: readonly number[];
}

/** What a queue worker tells the main thread. */
export type UblkQueueMessage =
  | { readonly kind: "ready" }
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  | { readonly kind: "ended"; readonly isFlushed: boolean };

const SYNC_TIMEOUT_MS = 60_000;
/** For all queues to have their memory. */
const MEETING_MS = 25_000;

/** Runs the worker of this thread until its device was stopped. */
export function runUblkQueueWorker(data: UblkQueueData): void {
  nameThread(`ublk-queue-${data.queue}`);
  if (data.cpu !== undefined && pinThread(data.cpu) < 0) {
    log.warn("cannot pin the queue to its CPU", { queue: data.queue, cpu: data.cpu });
  }
  const meeting = new QueueMeeting(data.meeting, data.queues);
  try {
    serve(data, meeting);
    const { disk, shared, wakeFds } = data;
    const isFlushed = disk.isReadOnly || syncDisk({ disk, shared, wakeFds }, SYNC_TIMEOUT_MS);
    tell({ kind: "ended", isFlushed });
  } catch (error) {
    meeting.fail();
    const code = error instanceof UbiError ? error.code : "E_WORKER";
    tell({ kind: "failed", code, message: `queue ${data.queue}: ${errorText(error)}` });
  }
}

function serve(data: UblkQueueData, meeting: QueueMeeting): void {
  using worker = new UblkQueueWorker(data);
  meeting.come(MEETING_MS);
  worker.fetchAll();
  meeting.come(MEETING_MS);
  worker.mapDescriptors();
  tell({ kind: "ready" });
  Bun.gc(true); // what the start left behind: a turn allocates nothing, so nothing else would collect it
  while (worker.turn()) {
    // Everything happens in a turn.
  }
}

function tell(message: UblkQueueMessage): void {
  postMessage(message);
}

/** Completions of commands: this and the tag. */
const COMMAND_ID = 0x1000_0000;
const WAKE_ID = WATCH_ID;
const IMAGE_ID = WATCH_ID + 1;
const TIMER_ID = WATCH_ID + 2;
const EIO = -5;
const EOPNOTSUPP = -95;

class UblkQueueWorker implements Disposable {
  readonly #queue: number;
  readonly #depth: number;
  readonly #ioBytes: number;
  readonly #disk: DiskDescription;
  readonly #size: DiskSize;
  /** Of the disk, as it has grown. */
  #sectors: number;
  readonly #isZeroCopy: boolean;
  readonly #wakeFd: number;
  /** Commands and wake-ups, and the disk's I/O unless that is synchronous. */
  readonly #ring: UringEngine;
  readonly #diskEngine: IoEngine;
  readonly #requests: RequestTable;
  readonly #executor: RequestRunner;
  readonly #memory: TagMemory;
  readonly #statistics: QueueStatistics;
  readonly #pulse: Pulse;
  readonly #throttle: QueueThrottle;
  readonly #timer: WakeTimer;
  /** Requests that wait for the limits of the disk. */
  readonly #held: TagQueue;
  readonly #limiter = new LogLimiter();
  readonly #descriptors: RequestDescriptors;
  /** By slot of the request table. */
  readonly #tag: Uint16Array;
  readonly #ownBuffers: Int32Array;
  /** Tags that the driver will not use again. */
  #abortedTags = 0;
  #nowNs = 0;

  constructor(data: UblkQueueData) {
    const { disk, shared, queue, depth, ioBytes, isZeroCopy } = data;
    const machine = thisMachine(data.ioEngine);
    this.#timer = new WakeTimer(machine);
    this.#queue = queue;
    this.#depth = depth;
    this.#ioBytes = ioBytes;
    this.#disk = disk;
    this.#size = new DiskSize(shared.size);
    this.#sectors = disk.sectors;
    this.#isZeroCopy = isZeroCopy;
    this.#wakeFd = data.wakeFds[queue] ?? -1;
    this.#ring = new UringEngine(2 * depth, disk, {
      fd: data.charFd,
      buffers: TagMemory.buffersOf(depth, isZeroCopy),
    });
    this.#diskEngine = data.ioEngine === "sync" ? new SyncEngine(2 * depth, disk) : this.#ring;
    if (isZeroCopy && !this.#ring.openBuffers()) {
      throw new UbiError("E_URING", "the kernel refuses a table of registered buffers");
    }
    this.#memory = new TagMemory({
      depth,
      ioBytes,
      isZeroCopy,
      firstBuffer: REGISTERED_BUFFERS_MAX,
      register: (buffer, address, length) => this.#ring.registerBuffer(buffer, address, length),
    });
    this.#requests = new RequestTable(depth, 1);
    this.#tag = new Uint16Array(depth);
    this.#ownBuffers = new Int32Array(depth);
    this.#executor = openDiskRequests({
      disk,
      shared,
      queue,
      wakeFds: data.wakeFds,
      requests: this.#requests,
      engine: this.#diskEngine,
      machine,
      bufferLimitBytes: data.bufferLimitBytes,
      imageWatchId: IMAGE_ID,
      ownBuffers: this.#ownBuffers,
    });
    this.#executor.setWriteThrough(disk.isWriteThrough);
    this.#pulse = new Pulse(data.pulse);
    this.#statistics = new QueueStatistics(
      shared.statistics[queue] ?? new SharedArrayBuffer(0),
      data.slots,
    );
    this.#throttle = new QueueThrottle(shared.limits, queue, this.#statistics);
    this.#held = new TagQueue(depth);
    this.#descriptors = new RequestDescriptors(data.charFd, queue, depth);
    this.#ring.watch(WAKE_ID, this.#wakeFd);
    this.#ring.watch(TIMER_ID, this.#timer.fd);
  }

  /** Gives all tags to the driver. What comes back is not yet looked at. @throws UbiError when it refuses one */
  fetchAll(): void {
    const ring = this.#ring;
    for (let tag = 0; tag < this.#depth; tag++) {
      this.#command(IO_CODE.fetch, tag, 0);
    }
    ring.submit(0);
    const count = ring.completions();
    for (let i = 0; i < count; i++) {
      const tag = ring.completedId(i) - COMMAND_ID;
      if (tag >= 0 && tag < this.#depth && ring.completedResult(i) < 0) {
        this.#checkFetched(tag, ring.completedResult(i));
      }
    }
  }

  /** When all queues are fetched for. @throws UbiError E_MEMORY */
  mapDescriptors(): void {
    this.#descriptors.map();
    this.#complete();
  }

  /** One turn of the loop. False when the device was stopped. */
  turn(): boolean {
    if (this.#held.count > 0) {
      this.#startHeld();
    }
    this.#executor.flushBatch();
    const hasChanges = this.#commitFinished();
    if (this.#diskEngine !== this.#ring) {
      this.#diskEngine.submit(0);
      this.#completeDisk();
    }
    // Answers to changes are shown by a submit that does not wait, so that they are looked after at once.
    const mayWait = !hasChanges && this.#mayWait();
    if (mayWait && this.#held.count > 0) {
      const nowNs = clockNs();
      this.#timer.set(this.#throttle.wakeNs(nowNs), nowNs);
    }
    this.#ring.submit(mayWait ? 1 : 0);
    if (hasChanges) {
      this.#executor.afterAnswers();
    }
    this.#complete();
    return this.#abortedTags < this.#depth;
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
    if (this.#diskEngine !== this.#ring) {
      this.#diskEngine[Symbol.dispose]();
    }
    this.#executor[Symbol.dispose]();
    this.#timer[Symbol.dispose]();
    this.#descriptors[Symbol.dispose]();
    if (this.#requests.inFlight === 0) {
      this.#memory[Symbol.dispose]();
    }
  }

  // --- internal: completions ---

  /** False when something is left to do before the next completion. */
  #mayWait(): boolean {
    return this.#executor.finishedCount === 0 && this.#diskEngine.completions() === 0;
  }

  #complete(): void {
    const ring = this.#ring;
    const count = ring.completions();
    if (count === 0) {
      return;
    }
    if (this.#size.hasGrown()) {
      this.#sectors = this.#size.sectors; // behind the completions: these requests may know of the new size
      this.#executor.grow(this.#sectors);
    }
    this.#nowNs = clockNs();
    this.#throttle.look(this.#nowNs);
    this.#executor.beforeTaking();
    let fetched = 0;
    for (let i = 0; i < count; i++) {
      const id = ring.completedId(i);
      if (id >= COMMAND_ID && id < COMMAND_ID + this.#depth) {
        fetched += this.#take(id - COMMAND_ID, ring.completedResult(i));
      } else if (id < WATCH_ID) {
        this.#executor.complete(id, ring.completedResult(i));
      } else if (id === WAKE_ID) {
        drainEvent(this.#wakeFd);
        this.#pulse.answer();
      } else if (id === TIMER_ID) {
        this.#timer.fired();
      }
    }
    ring.release(count);
    if (fetched > 0) {
      this.#statistics.count(Counter.kicks, 1);
    }
  }

  #completeDisk(): void {
    const engine = this.#diskEngine;
    const count = engine.completions();
    for (let i = 0; i < count; i++) {
      const id = engine.completedId(i);
      if (id < WATCH_ID) {
        this.#executor.complete(id, engine.completedResult(i));
      }
    }
    engine.release(count);
  }

  // --- internal: requests of the driver ---

  /** The driver gave a tag back: with a request, or for good. Returns how many requests that were. */
  #take(tag: number, result: number): number {
    if (result === 0) {
      if (this.#throttle.isOn || this.#held.count > 0) {
        this.#held.push(tag); // the next turn looks at it
      } else {
        this.#admit(tag);
      }
      return 1;
    }
    this.#checkFetched(tag, result);
    this.#abortedTags += 1;
    return 0;
  }

  #checkFetched(tag: number, result: number): void {
    if (result !== FETCH_ABORTED) {
      const why = errnoText(result);
      throw new UbiError("E_UBLK_DEVICE", `the ublk driver refuses tag ${tag}: ${why}`);
    }
  }

  #startHeld(): void {
    const held = this.#held;
    this.#nowNs = clockNs();
    if (this.#throttle.mayGo(this.#nowNs)) {
      while (held.count > 0 && this.#mayStart(held.first)) {
        this.#admit(held.shift());
      }
    }
  }

  #mayStart(tag: number): boolean {
    const { words } = this.#descriptors;
    const at = tag * RequestDescriptors.WORDS;
    const operation = this.#operationOf(u32(words, at) & 0xff);
    const bytes = u32(words, at + 1) * SECTOR_BYTES;
    const throttle = this.#throttle;
    return !throttle.isOn || operation < 0 || throttle.mayStart(operation, bytes, this.#nowNs);
  }

  #admit(tag: number): void {
    const at = tag * RequestDescriptors.WORDS;
    const { words } = this.#descriptors;
    const flags = u32(words, at);
    const sectors = u32(words, at + 1);
    const sector = join64(u32(words, at + 2), u32(words, at + 3));
    const kind = flags & 0xff;
    const isTransfer = kind === UBLK_OPERATION.read || kind === UBLK_OPERATION.write;
    const operation = this.#operationOf(kind);
    // The sector of a flush means nothing.
    if (operation < 0 || (operation !== Operation.flush && sector + sectors > this.#sectors)) {
      this.#refuse(tag, operation < 0 ? EOPNOTSUPP : EIO, kind, sector, sectors);
      return;
    }
    if (isTransfer && sectors * SECTOR_BYTES > this.#ioBytes) {
      this.#refuse(tag, EIO, kind, sector, sectors);
      return;
    }
    const requests = this.#requests;
    const slot = requests.take(operation === Operation.flush ? 0 : 1);
    assert(slot >= 0, "a queue has a slot for each tag");
    const bytes = operation === Operation.flush ? 0 : sectors * SECTOR_BYTES;
    this.#tag[slot] = tag;
    requests.operation[slot] = operation;
    requests.sector[slot] = operation === Operation.flush ? 0 : sector;
    requests.isDurable[slot] = (flags & UBLK_FLAG_FUA) === 0 ? 0 : 1;
    if (isTransfer) {
      const place = i32(requests.segmentStart, slot);
      requests.segmentAddress[place] = f64(this.#memory.address, tag);
      requests.segmentLength[place] = bytes;
      requests.bytes[slot] = bytes;
      this.#ownBuffers[slot] = i32(this.#memory.registeredBuffer, tag);
    } else {
      this.#describeRange(slot, tag, sector, sectors, flags);
    }
    this.#statistics.begin(slot, operation, sector, bytes, this.#nowNs);
    this.#executor.admit(slot);
    if (this.#throttle.isOn) {
      this.#throttle.started(operation, this.#executor.lists.bytes(slot), this.#nowNs);
    }
  }

  /** -1 when the disk does not do it. */
  #operationOf(kind: number): number {
    const { isReadOnly, isDiscardOffered } = this.#disk;
    switch (kind) {
      case UBLK_OPERATION.read:
        return Operation.read;
      case UBLK_OPERATION.write:
        return isReadOnly ? -1 : Operation.write;
      case UBLK_OPERATION.flush:
        return Operation.flush;
      case UBLK_OPERATION.discard:
        return isDiscardOffered ? Operation.discard : -1;
      case UBLK_OPERATION.writeZeroes:
        return isReadOnly ? -1 : Operation.writeZeroes;
      default:
        return -1;
    }
  }

  /** DISCARD and WRITE_ZEROES have their one range as a list, as the disk's requests know it. */
  #describeRange(slot: number, tag: number, sector: number, sectors: number, flags: number): void {
    const requests = this.#requests;
    if (requests.operation[slot] === Operation.flush) {
      requests.bytes[slot] = 0;
      return;
    }
    const { view, address } = this.#memory.ranges;
    const at = tag * TagMemory.RANGE_WORDS;
    const isPlainZero =
      requests.operation[slot] === Operation.writeZeroes && this.#disk.cipherContext === 0;
    const mayUnmap = isPlainZero && this.#disk.isDiscardOffered && (flags & UBLK_FLAG_KEEP) === 0;
    view[at] = low64(sector);
    view[at + 1] = Math.floor(sector / 2 ** 32);
    view[at + 2] = sectors;
    view[at + 3] = mayUnmap ? SEGMENT_UNMAP : 0;
    const place = i32(requests.segmentStart, slot);
    requests.segmentAddress[place] = address + at * 4;
    requests.segmentLength[place] = SEGMENT_BYTES;
    requests.bytes[slot] = SEGMENT_BYTES;
  }

  // --- internal: answers ---

  /** The driver sees answers when they are submitted. @returns whether there are any to changes of the disk */
  #commitFinished(): boolean {
    const executor = this.#executor;
    const count = executor.finishedCount;
    if (count === 0) {
      return false;
    }
    const nowNs = clockNs();
    const requests = this.#requests;
    executor.beforeAnswers();
    let hasChanges = false;
    for (let i = 0; i < count; i++) {
      const slot = i32(executor.finished, i);
      hasChanges ||= requests.operation[slot] !== Operation.read;
      const outcome = requests.outcome[slot] ?? Outcome.ioError;
      this.#statistics.end(slot, outcome === Outcome.ok, nowNs);
      this.#command(IO_CODE.commitAndFetch, this.#tag[slot] ?? 0, this.#resultOf(slot, outcome));
      requests.give(slot);
    }
    executor.finishedCount = 0;
    this.#statistics.count(Counter.calls, 1);
    return hasChanges;
  }

  #resultOf(slot: number, outcome: number): number {
    if (outcome !== Outcome.ok) {
      return outcome === Outcome.unsupported ? EOPNOTSUPP : EIO;
    }
    const operation = this.#requests.operation[slot];
    const isTransfer = operation === Operation.read || operation === Operation.write;
    return isTransfer ? f64(this.#requests.bytes, slot) : 0;
  }

  /** A request that never reaches the disk: its error is committed at once. */
  #refuse(tag: number, result: number, kind: number, sector: number, sectors: number): void {
    this.#statistics.count(Counter.badChains, 1);
    this.#limiter.warn("refused a request of the kernel", {
      queue: this.#queue,
      operation: kind,
      sector,
      sectors,
    });
    this.#command(IO_CODE.commitAndFetch, tag, result);
  }

  #command(code: number, tag: number, result: number): void {
    const memory = this.#memory;
    const word = this.#queue | (tag << 16);
    const id = COMMAND_ID + tag;
    if (this.#isZeroCopy) {
      this.#ring.prepareCommand(id, code, word, result, 0, i32(memory.registeredBuffer, tag));
    } else {
      this.#ring.prepareCommand(id, code, word, result, f64(memory.address, tag), 0);
    }
  }
}
