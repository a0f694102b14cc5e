/**
 * An I/O engine over a simulated disk: work ends at its time or later, in any order, with the faults of the moment.
 * Completions and signals of descriptors are seen by `submit` only; a thread that wanted to wait there sleeps.
 */
import { type EngineFile, type IoEngine, WATCH_ID } from "../../../src/disk/io-engine.ts";
import { assert } from "../../../src/errors.ts";
import { createEvent, drainEvent, signalEvent } from "../../../src/ffi/event.ts";
import { addressOf, copyMemory, unmap, viewOf } from "../../../src/ffi/memory.ts";
import { closeDescriptor, PollSet } from "../../../src/ffi/socket.ts";
import type { SeededRandom } from "../random.ts";
import { type PendingWrite, SECTOR, type SimDisk } from "./sim-disk.ts";
import type { SimTime } from "./sim-time.ts";

/** What goes wrong with one piece of work: nothing, a negative errno, or fewer bytes than asked for. */
export interface SimFaults {
  readonly transfer: (kind: "read" | "write" | "allocate", bytes: number) => number | undefined;
  readonly sync: () => number;
  readonly delayNs: () => number;
}

interface Part {
  readonly address: number;
  readonly bytes: number;
}

interface Work {
  readonly id: number;
  readonly kind: "read" | "write" | "allocate" | "sync";
  readonly offset: number;
  readonly parts: readonly Part[];
  readonly bytes: number;
  readonly isWriteThrough: boolean;
}

interface SimEngineOptions {
  readonly time: SimTime;
  readonly disk: SimDisk;
  readonly faults: SimFaults;
  readonly random: SeededRandom;
  readonly requestsMax: number;
  readonly file: EngineFile;
}

const WATCHES = 8;
const EINVAL = -22;
const SPARE = 16;

interface Completion {
  readonly id: number;
  readonly result: number;
  readonly isFailedSync: boolean;
}

export class SimEngine implements IoEngine {
  readonly kind = "io_uring";
  /** The thread found nothing when it wanted to wait. */
  isAsleep = false;
  readonly #options: SimEngineOptions;
  readonly #poll = new PollSet(WATCHES);
  readonly #watches: { id: number; fd: number }[] = Array.from({ length: WATCHES }, () => ({
    id: -1,
    fd: -1,
  }));
  readonly #buffers = new Map<number, Part>();
  #prepared: Work[] = [];
  #underWay = 0;
  #arrived: Completion[] = [];
  #completed: Completion[] = [];
  #isWriteThrough: boolean;
  #waitFd = -1;
  #isDead = false;

  constructor(options: SimEngineOptions) {
    this.#options = options;
    this.#isWriteThrough = options.file.isWriteThrough;
  }

  /** Work handed over or prepared, and not read as completed. */
  get load(): number {
    const ended = [...this.#arrived, ...this.#completed].filter(({ id }) => id < WATCH_ID).length;
    return this.#prepared.length + this.#underWay + ended;
  }

  /** Bytes of the buffers that were registered. */
  get bufferBytes(): number {
    return [...this.#buffers.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** A thread that sleeps in this engine would wake up. */
  isReady(): boolean {
    return this.#arrived.length > 0 || this.#completed.length > 0 || this.#poll.wait(0) > 0;
  }

  /** Its process is dead: what is under way ends for nobody. */
  die(): void {
    for (const { address, bytes } of this.#buffers.values()) {
      unmap(address, bytes);
    }
    this.#buffers.clear();
    this[Symbol.dispose]();
  }

  get waitFd(): number {
    if (this.#waitFd < 0) {
      this.#waitFd = createEvent();
    }
    return this.#waitFd;
  }

  room(): number {
    return this.#options.requestsMax + SPARE - this.#prepared.length;
  }

  prepareRead(id: number, offset: number, address: number, bytes: number): void {
    this.#prepare(id, "read", offset, [{ address, bytes }]);
  }

  prepareWrite(id: number, offset: number, address: number, bytes: number): void {
    this.#prepare(id, "write", offset, [{ address, bytes }]);
  }

  prepareReadVector(id: number, offset: number, vector: number, count: number): void {
    this.#prepare(id, "read", offset, partsOf(vector, count));
  }

  prepareWriteVector(id: number, offset: number, vector: number, count: number): void {
    this.#prepare(id, "write", offset, partsOf(vector, count));
  }

  prepareReadFixed(id: number, offset: number, address: number, bytes: number, buffer: number) {
    this.#checkBuffer(address, bytes, buffer);
    this.prepareRead(id, offset, address, bytes);
  }

  prepareWriteFixed(id: number, offset: number, address: number, bytes: number, buffer: number) {
    this.#checkBuffer(address, bytes, buffer);
    this.prepareWrite(id, offset, address, bytes);
  }

  prepareSync(id: number): void {
    this.#prepare(id, "sync", 0, []);
  }

  prepareAllocate(id: number, _mode: number, offset: number, bytes: number): void {
    this.#prepare(id, "allocate", offset, [{ address: 0, bytes }]);
  }

  setWriteThrough(isWriteThrough: boolean): void {
    this.#isWriteThrough = isWriteThrough;
  }

  watch(id: number, fd: number): void {
    const place = this.#watches.findIndex((watch) => watch.fd < 0);
    const watch = this.#watches[place];
    assert(watch !== undefined, "a worker watches few descriptors");
    watch.id = id;
    watch.fd = fd;
    this.#poll.watch(place, fd);
  }

  unwatch(id: number): void {
    const place = this.#watches.findIndex((watch) => watch.id === id);
    const watch = this.#watches[place];
    assert(watch !== undefined, "only what is watched is unwatched");
    watch.id = -1;
    watch.fd = -1;
    this.#poll.watch(place, -1);
  }

  registerBuffer(buffer: number, address: number, bytes: number): boolean {
    this.#buffers.set(buffer, { address, bytes });
    return true;
  }

  submit(completionsMin: number): void {
    if (this.#waitFd >= 0) {
      drainEvent(this.#waitFd);
    }
    for (const work of this.#prepared) {
      this.#begin(work);
    }
    this.#prepared = [];
    this.#completed.push(...this.#arrived);
    this.#arrived = [];
    if (this.#completed.length === 0) {
      this.#takeSignals();
    }
    this.isAsleep = completionsMin > 0 && this.#completed.length === 0;
  }

  /** A sync of this disk failed, and its thread has not looked yet. */
  hasFailedSync(disk: SimDisk): boolean {
    const unread = [...this.#arrived, ...this.#completed];
    return disk === this.#options.disk && unread.some(({ isFailedSync }) => isFailedSync);
  }

  completions(): number {
    return this.#completed.length;
  }

  completedId(index: number): number {
    return this.#completed[index]?.id ?? -1;
  }

  completedResult(index: number): number {
    return this.#completed[index]?.result ?? EINVAL;
  }

  release(count: number): void {
    this.#completed.splice(0, count);
  }

  hasWork(): boolean {
    return this.#prepared.length + this.#arrived.length + this.#completed.length > 0;
  }

  [Symbol.dispose](): void {
    this.#isDead = true; // of a source that is stopped, reads may be under way: nobody's by now
    this.#poll[Symbol.dispose]();
    if (this.#waitFd >= 0) {
      closeDescriptor(this.#waitFd);
      this.#waitFd = -1;
    }
  }

  // --- internal ---

  #prepare(id: number, kind: Work["kind"], offset: number, parts: readonly Part[]): void {
    assert(this.room() > 0, "no more is prepared than there is room for");
    assert(!this.#isDead, "a dead process begins nothing");
    const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
    assert(offset % SECTOR === 0, "I/O begins at a sector");
    assert(bytes % SECTOR === 0, "I/O is whole sectors");
    const isInside = offset + bytes <= this.#options.disk.sectors * SECTOR;
    assert(isInside || kind === "read", "nothing is written behind the end of a disk");
    this.#prepared.push({ id, kind, offset, parts, bytes, isWriteThrough: this.#isWriteThrough });
  }

  #begin(work: Work): void {
    const { time, disk, faults, random } = this.#options;
    this.#underWay += 1;
    const sector = work.offset / SECTOR;
    const point = disk.syncPoint();
    const isWrite = work.kind === "write" || work.kind === "allocate";
    const pending: PendingWrite = { sector, bytes: () => gather(work) };
    if (isWrite) {
      disk.pending.add(pending);
      if (random.oneIn(4)) {
        disk.tear(sector, gather(work)); // parts of it are there before it ends
      }
    }
    time.after(faults.delayNs(), () => {
      if (this.#isDead) {
        return; // the disk has seen to what was under way
      }
      disk.pending.delete(pending);
      this.#underWay -= 1;
      const result = this.#end(work, point);
      const isFailedSync = work.kind === "sync" && result < 0;
      this.#arrived.push({ id: work.id, result, isFailedSync });
      if (this.#waitFd >= 0) {
        signalEvent(this.#waitFd);
      }
    });
  }

  #end(work: Work, point: number): number {
    const { disk, faults } = this.#options;
    const sector = work.offset / SECTOR;
    if (work.kind === "sync") {
      const result = faults.sync();
      if (result < 0) {
        disk.syncFailed(point);
      } else {
        disk.synced(point);
      }
      return result;
    }
    const fault = faults.transfer(work.kind, work.bytes);
    if (fault !== undefined && fault < 0) {
      if (work.kind !== "read") {
        disk.tear(sector, gather(work));
      }
      return fault;
    }
    const bytes = fault ?? work.bytes;
    if (work.kind === "read") {
      return this.#read(work, bytes);
    }
    const content = gather(work);
    disk.write(sector, content.subarray(0, bytes), work.isWriteThrough && bytes === work.bytes);
    return work.kind === "write" ? bytes : 0;
  }

  #read(work: Work, bytes: number): number {
    const { disk } = this.#options;
    const end = disk.sectors * SECTOR;
    let at = work.offset;
    let left = Math.min(bytes, end - at);
    const moved = left;
    for (const part of work.parts) {
      const length = Math.min(part.bytes, left);
      disk.readBytes(at, length, part.address);
      at += length;
      left -= length;
    }
    return moved;
  }

  #takeSignals(): void {
    if (this.#poll.wait(0) <= 0) {
      return;
    }
    for (const [place, { id, fd }] of this.#watches.entries()) {
      if (fd >= 0 && this.#poll.events(place) !== 0) {
        drainEvent(fd);
        this.#completed.push({ id, result: 1, isFailedSync: false });
      }
    }
  }

  #checkBuffer(address: number, bytes: number, buffer: number): void {
    const range = this.#buffers.get(buffer);
    const isInside =
      range !== undefined &&
      address >= range.address &&
      address + bytes <= range.address + range.bytes;
    assert(isInside, "fixed I/O stays inside its registered buffer");
  }
}

function partsOf(vector: number, count: number): readonly Part[] {
  const view = new DataView(viewOf(vector, count * 16));
  return Array.from({ length: count }, (_, i) => ({
    address: Number(view.getBigUint64(i * 16, true)),
    bytes: Number(view.getBigUint64(i * 16 + 8, true)),
  }));
}

/** What a write brings, as its memory is now; zeros for an allocation. */
function gather({ kind, parts, bytes }: Work): Uint8Array {
  const content = new Uint8Array(bytes);
  let done = 0;
  for (const part of parts) {
    if (kind === "write" && part.bytes > 0) {
      copyMemory(addressOf(content) + done, part.address, part.bytes);
    }
    done += part.bytes;
  }
  return content;
}
