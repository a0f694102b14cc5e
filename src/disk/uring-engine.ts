/**
 * The io_uring engine, wholly in TypeScript over three system calls. The ring is created by the worker
 * that uses it (SINGLE_ISSUER) and defers its task work to the worker's own enter calls (DEFER_TASKRUN).
 *
 *   SQ ring   | head | tail | mask | flags | ... |  array: identity, filled once
 *   SQEs      | 64 bytes each, 16 words                                            |
 *   CQ ring   | head | tail | mask | ... | CQEs, 16 bytes each: data u64, result, flags |
 *
 * Cost: about 20 ns an entry prepared, 5 ns a completion, one system call a batch.
 * Source: io_uring_setup(2), io_uring_enter(2), linux/io_uring.h.
 */
import { assert, errnoText, UbiError } from "../errors.ts";
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { createEvent, drainEvent, signalEvent } from "../ffi/event.ts";
import { unmap, viewOf } from "../ffi/memory.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { uringEnter, uringRegister } from "../ffi/uring.ts";
import { high64, i32, u32 } from "../ffi/view.ts";
import { type EngineFile, type IoEngine, WATCH_ID } from "./io-engine.ts";
import { isServedByProgram } from "./served-file.ts";
import { ENTRIES_SPARE, mapRing, PARAMS_WORDS, setUpRing } from "./uring-setup.ts";

const IORING_OP_READV = 1;
const IORING_OP_WRITEV = 2;
const IORING_OP_FSYNC = 3;
const IORING_OP_READ_FIXED = 4;
const IORING_OP_WRITE_FIXED = 5;
const IORING_OP_POLL_ADD = 6;
const IORING_OP_POLL_REMOVE = 7;
const IORING_OP_FALLOCATE = 17;
const IORING_OP_READ = 22;
const IORING_OP_WRITE = 23;
const IORING_OP_URING_CMD = 46;

const IORING_ENTER_GETEVENTS = 1;
const IORING_FSYNC_DATASYNC = 1;
const IORING_POLL_ADD_MULTI = 1;
const IORING_CQE_F_MORE = 2;
const IORING_SQ_CQ_OVERFLOW = 2;
const IORING_SQ_TASKRUN = 4;
const IORING_REGISTER_FILES = 2;
const IORING_REGISTER_EVENTFD = 4;
const IORING_REGISTER_BUFFERS2 = 15;
const IORING_REGISTER_BUFFERS_UPDATE = 16;
const IORING_RSRC_REGISTER_SPARSE = 1;

const IOSQE_FIXED_FILE = 1;
const IOSQE_ASYNC = 1 << 4;
const RWF_DSYNC = 2;
const POLLIN = 1;

const IORING_OFF_SQES = 0x1000_0000;
const SQE_WORDS = 16;
const EINTR = -4;
const EAGAIN = -11;
const EBUSY = -16;

/** Places for registered buffers; those that commands bring follow. */
export const REGISTERED_BUFFERS_MAX = 64;
const WATCHES_MAX = 8;
/** Ids from here on belong to the engine itself; the result of their completions is never positive. */
const INTERNAL_ID = 0x7fff_ff00;

/** A driver's device that takes commands through the same ring as the disk's I/O. */
export interface CommandDevice {
  readonly fd: number;
  /** Registered buffers, from REGISTERED_BUFFERS_MAX on. */
  readonly buffers: number;
}

export class UringEngine implements IoEngine {
  readonly kind = "io_uring";
  readonly #fd: number;
  readonly #arena = new Arena(8192);
  readonly #entries: number;
  readonly #rings: { readonly address: number; readonly lengthBytes: number };
  readonly #sqes: { readonly address: number; readonly lengthBytes: number };
  readonly #sqe: Int32Array;
  readonly #ring: Int32Array;
  readonly #sqTailAt: number;
  readonly #sqFlagsAt: number;
  readonly #cqHeadAt: number;
  readonly #cqTailAt: number;
  readonly #cqesAt: number;
  readonly #cqMask: number;
  readonly #registration: ArenaView<Uint32Array>;
  readonly #watchIds = new Int32Array(WATCHES_MAX).fill(-1);
  readonly #watchFds = new Int32Array(WATCHES_MAX).fill(-1);
  #waitFd = -1;
  #fileIndex = -1;
  #fileFd: number;
  /** Beside the opcode of each entry. */
  #entryFlags = 0;
  #sqTail: number;
  #sqSubmitted: number;
  #cqHead = 0;
  #writeFlags = 0;
  readonly #buffersMax: number;
  #commandFd = -1;
  /** Beside the opcode of a command. */
  #commandFlags = 0;
  #areBuffersReady = false;
  #isDisposed = false;

  /**
   * @param requestsMax how many requests can be in flight at once
   * @throws UbiError E_URING when the kernel refuses io_uring
   */
  constructor(requestsMax: number, file: EngineFile, commands?: CommandDevice) {
    this.#buffersMax = REGISTERED_BUFFERS_MAX + (commands?.buffers ?? 0);
    const params = this.#arena.words(PARAMS_WORDS);
    this.#registration = this.#arena.words(16);
    this.#fd = setUpRing(requestsMax + ENTRIES_SPARE, params);
    this.#entries = u32(params.view, 0);
    const cqEntries = u32(params.view, 1);
    const sqOffset = (field: number) => u32(params.view, 10 + field) / 4;
    const cqOffset = (field: number) => u32(params.view, 20 + field) / 4;
    // With IORING_FEAT_SINGLE_MMAP (kernel 5.4) one mapping holds both rings.
    const ringBytes = Math.max(
      u32(params.view, 16) + this.#entries * 4,
      u32(params.view, 25) + cqEntries * 16,
    );
    this.#rings = mapRing(this.#fd, 0, ringBytes);
    this.#sqes = mapRing(this.#fd, IORING_OFF_SQES, this.#entries * SQE_WORDS * 4);
    this.#ring = new Int32Array(viewOf(this.#rings.address, this.#rings.lengthBytes));
    this.#sqe = new Int32Array(viewOf(this.#sqes.address, this.#sqes.lengthBytes));
    this.#sqTailAt = sqOffset(1);
    this.#sqFlagsAt = sqOffset(4);
    this.#cqHeadAt = cqOffset(0);
    this.#cqTailAt = cqOffset(1);
    this.#cqesAt = cqOffset(5);
    this.#cqMask = cqEntries - 1;
    this.#sqTail = i32(this.#ring, this.#sqTailAt);
    this.#sqSubmitted = this.#sqTail;
    const arrayAt = sqOffset(6);
    for (let i = 0; i < this.#entries; i++) {
      this.#ring[arrayAt + i] = i;
    }
    // A system call filter may allow the set-up and refuse the work.
    const result = uringEnter(this.#fd, 0, 0, IORING_ENTER_GETEVENTS);
    if (result < 0) {
      this[Symbol.dispose]();
      throw new UbiError("E_URING", `the kernel refuses io_uring_enter: ${errnoText(result)}`);
    }
    this.#fileFd = file.fd;
    this.#registerFiles(file.fd, commands?.fd);
    if (isServedByProgram(file.fd)) {
      this.#entryFlags |= IOSQE_ASYNC;
    }
    this.setWriteThrough(file.isWriteThrough);
  }

  /** An eventfd: the ring's own descriptor does not tell of completions that wait for this thread's call. */
  get waitFd(): number {
    if (this.#waitFd < 0) {
      this.#waitFd = createEvent();
      this.#registration.view[0] = this.#waitFd;
      const address = this.#registration.address;
      const result = uringRegister(this.#fd, IORING_REGISTER_EVENTFD, address, 1);
      assert(result === 0, `an eventfd is registered (${errnoText(result)})`);
      if (this.hasWork()) {
        signalEvent(this.#waitFd); // what has ended before tells nobody
      }
    }
    return this.#waitFd;
  }

  room(): number {
    return this.#entries - ((this.#sqTail - this.#sqSubmitted) | 0);
  }

  prepareRead(id: number, offset: number, address: number, lengthBytes: number): void {
    this.#prepare(IORING_OP_READ, id, offset, address, lengthBytes, 0, 0);
  }

  prepareWrite(id: number, offset: number, address: number, lengthBytes: number): void {
    this.#prepare(IORING_OP_WRITE, id, offset, address, lengthBytes, this.#writeFlags, 0);
  }

  prepareReadVector(id: number, offset: number, vector: number, count: number): void {
    this.#prepare(IORING_OP_READV, id, offset, vector, count, 0, 0);
  }

  prepareWriteVector(id: number, offset: number, vector: number, count: number): void {
    this.#prepare(IORING_OP_WRITEV, id, offset, vector, count, this.#writeFlags, 0);
  }

  prepareReadFixed(
    id: number,
    offset: number,
    address: number,
    length: number,
    buffer: number,
  ): void {
    this.#prepare(IORING_OP_READ_FIXED, id, offset, address, length, 0, buffer);
  }

  prepareWriteFixed(
    id: number,
    offset: number,
    address: number,
    length: number,
    buffer: number,
  ): void {
    this.#prepare(IORING_OP_WRITE_FIXED, id, offset, address, length, this.#writeFlags, buffer);
  }

  prepareSync(id: number): void {
    this.#prepare(IORING_OP_FSYNC, id, 0, 0, 0, IORING_FSYNC_DATASYNC, 0);
  }

  prepareAllocate(id: number, mode: number, offset: number, lengthBytes: number): void {
    // fallocate keeps its mode where others have a length, and its length where they have an address.
    this.#prepare(IORING_OP_FALLOCATE, id, offset, lengthBytes, mode, 0, 0);
  }

  setWriteThrough(isWriteThrough: boolean): void {
    this.#writeFlags = isWriteThrough ? RWF_DSYNC : 0;
  }

  watch(id: number, fd: number): void {
    const place = this.#watchIds.indexOf(-1);
    assert(place >= 0, "a worker watches few descriptors");
    this.#watchIds[place] = id;
    this.#watchFds[place] = fd;
    this.#preparePoll(id, fd);
  }

  unwatch(id: number): void {
    const place = this.#watchIds.indexOf(id);
    assert(place >= 0, "only what is watched is unwatched");
    this.#watchIds[place] = -1;
    this.#watchFds[place] = -1;
    const at = this.#next();
    this.#fill(at, IORING_OP_POLL_REMOVE, -1, INTERNAL_ID);
    this.#sqe[at + 4] = id;
  }

  registerBuffer(buffer: number, address: number, lengthBytes: number): boolean {
    assert(buffer < this.#buffersMax, "registered buffers have places");
    return this.openBuffers() && this.#updateBuffer(buffer, address, lengthBytes);
  }

  /** Makes the places for registered buffers. False when the kernel refuses. */
  openBuffers(): boolean {
    if (!this.#areBuffersReady) {
      this.#areBuffersReady = this.#registerSparseBuffers();
    }
    return this.#areBuffersReady;
  }

  /**
   * A command to the driver: its code, 16 bytes of its own (two words and an address), and what the entry has as
   * its address. Completes `id` with the driver's result.
   */
  prepareCommand(
    id: number,
    code: number,
    word: number,
    result: number,
    address: number,
    entryAddress: number,
  ): void {
    const at = this.#next();
    const sqe = this.#sqe;
    const addressHigh = high64(address);
    sqe[at] = IORING_OP_URING_CMD | (this.#commandFlags << 8);
    sqe[at + 1] = this.#commandFd;
    sqe[at + 2] = code;
    sqe[at + 3] = 0;
    sqe[at + 4] = entryAddress;
    sqe[at + 5] = 0;
    sqe[at + 6] = 0;
    sqe[at + 7] = 0;
    sqe[at + 8] = id;
    sqe[at + 9] = 0;
    sqe[at + 10] = 0;
    sqe[at + 11] = 0;
    sqe[at + 12] = word;
    sqe[at + 13] = result;
    sqe[at + 14] = address - addressHigh * 4294967296;
    sqe[at + 15] = addressHigh;
  }

  submit(completionsMin: number): void {
    Atomics.store(this.#ring, this.#sqTailAt, this.#sqTail);
    let submit = (this.#sqTail - this.#sqSubmitted) | 0;
    if (this.#waitFd >= 0) {
      drainEvent(this.#waitFd); // first: what completes from here on signals again
    }
    for (;;) {
      const result = uringEnter(this.#fd, submit, completionsMin, IORING_ENTER_GETEVENTS);
      if (result >= 0) {
        this.#sqSubmitted = (this.#sqSubmitted + result) | 0;
        submit -= result;
        if (submit === 0 || result === 0 || this.completions() > 0) {
          return; // a rest goes with the next call, once completions made room
        }
      } else if (result === EBUSY || result === EAGAIN) {
        if (this.completions() > 0) {
          return;
        }
      } else {
        assert(result === EINTR, `io_uring_enter works (${errnoText(result)})`);
      }
    }
  }

  completions(): number {
    return (Atomics.load(this.#ring, this.#cqTailAt) - this.#cqHead) | 0;
  }

  completedId(index: number): number {
    const at = this.#completionAt(index);
    const id = i32(this.#ring, at);
    if (id >= WATCH_ID && (i32(this.#ring, at + 3) & IORING_CQE_F_MORE) === 0) {
      this.#rearm(id);
    }
    return id;
  }

  completedResult(index: number): number {
    return i32(this.#ring, this.#completionAt(index) + 2);
  }

  release(count: number): void {
    this.#cqHead = (this.#cqHead + count) | 0;
    Atomics.store(this.#ring, this.#cqHeadAt, this.#cqHead);
  }

  hasWork(): boolean {
    const flags = Atomics.load(this.#ring, this.#sqFlagsAt);
    return (
      this.#sqTail !== this.#sqSubmitted ||
      (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) !== 0 ||
      this.completions() !== 0
    );
  }

  /** Closes the ring: the kernel cancels or finishes what is in flight. */
  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      unmap(this.#sqes.address, this.#sqes.lengthBytes);
      unmap(this.#rings.address, this.#rings.lengthBytes);
      closeDescriptor(this.#fd);
      if (this.#waitFd >= 0) {
        closeDescriptor(this.#waitFd);
      }
      this.#arena[Symbol.dispose]();
    }
  }

  // --- internal ---

  #completionAt(index: number): number {
    return this.#cqesAt + ((this.#cqHead + index) & this.#cqMask) * 4;
  }

  #prepare(
    opcode: number,
    id: number,
    offset: number,
    address: number,
    length: number,
    operationFlags: number,
    buffer: number,
  ): void {
    const at = this.#next();
    const sqe = this.#sqe;
    const offsetHigh = high64(offset);
    const addressHigh = high64(address);
    sqe[at] = opcode | (this.#entryFlags << 8);
    sqe[at + 1] = this.#fileIndex >= 0 ? this.#fileIndex : this.#fileFd;
    sqe[at + 2] = offset - offsetHigh * 4294967296;
    sqe[at + 3] = offsetHigh;
    sqe[at + 4] = address - addressHigh * 4294967296;
    sqe[at + 5] = addressHigh;
    sqe[at + 6] = length;
    sqe[at + 7] = operationFlags;
    sqe[at + 8] = id;
    sqe[at + 9] = 0;
    sqe[at + 10] = buffer;
    sqe[at + 11] = 0;
    sqe[at + 12] = 0; // of a command that had the entry before
    sqe[at + 13] = 0;
    sqe[at + 14] = 0;
    sqe[at + 15] = 0;
  }

  #fill(at: number, opcode: number, fd: number, id: number): void {
    this.#sqe.fill(0, at, at + SQE_WORDS);
    this.#sqe[at] = opcode;
    this.#sqe[at + 1] = fd;
    this.#sqe[at + 8] = id;
  }

  /** Multishot: one completion a wake-up, nothing to arm again and nothing to read. */
  #preparePoll(id: number, fd: number): void {
    const at = this.#next();
    this.#fill(at, IORING_OP_POLL_ADD, fd, id);
    this.#sqe[at + 6] = IORING_POLL_ADD_MULTI;
    this.#sqe[at + 7] = POLLIN;
  }

  #rearm(id: number): void {
    const place = this.#watchIds.indexOf(id);
    if (place >= 0) {
      this.#preparePoll(id, i32(this.#watchFds, place));
    }
  }

  #next(): number {
    if (this.room() === 0) {
      this.submit(0); // as many requests as the kernel has entries for, and a watch beside them
    }
    assert(this.room() > 0, "the submission ring is sized for all requests");
    const at = (this.#sqTail & (this.#entries - 1)) * SQE_WORDS;
    this.#sqTail = (this.#sqTail + 1) | 0;
    return at;
  }

  #registerFiles(fd: number, commandFd: number | undefined): void {
    const { view, address } = this.#registration;
    view[0] = fd;
    view[1] = commandFd ?? 0;
    const count = commandFd === undefined ? 1 : 2;
    const isDone = uringRegister(this.#fd, IORING_REGISTER_FILES, address, count) === 0;
    this.#fileIndex = isDone ? 0 : -1;
    this.#entryFlags = isDone ? IOSQE_FIXED_FILE : 0;
    this.#commandFd = isDone ? 1 : (commandFd ?? -1);
    this.#commandFlags = this.#entryFlags;
  }

  #registerSparseBuffers(): boolean {
    const words = this.#registration.view.fill(0); // struct io_uring_rsrc_register
    words[0] = this.#buffersMax;
    words[1] = IORING_RSRC_REGISTER_SPARSE;
    return uringRegister(this.#fd, IORING_REGISTER_BUFFERS2, this.#registration.address, 32) === 0;
  }

  #updateBuffer(buffer: number, address: number, lengthBytes: number): boolean {
    const words = this.#registration.view.fill(0); // struct io_uring_rsrc_update2, then one iovec
    const vector = this.#registration.address + 32;
    words[0] = buffer;
    words[2] = vector % 2 ** 32;
    words[3] = high64(vector);
    words[6] = 1;
    words[8] = address % 2 ** 32;
    words[9] = high64(address);
    words[10] = lengthBytes;
    const result = uringRegister(
      this.#fd,
      IORING_REGISTER_BUFFERS_UPDATE,
      this.#registration.address,
      32,
    );
    return result === 1;
  }
}
