/**
 * The engine without io_uring: every operation is done by one system call when it is prepared, and its
 * completion waits to be read. For kernels and containers that refuse io_uring, and `io_engine = "sync"`.
 */
import { assert } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { drainEvent } from "../ffi/event.ts";
import {
  allocateFile,
  readVectorAt,
  syncFileData,
  writeFileAt,
  writeVectorAt,
} from "../ffi/file.ts";
import { PollSet } from "../ffi/socket.ts";
import { high64, i32, low64 } from "../ffi/view.ts";
import type { EngineFile, IoEngine } from "./io-engine.ts";

const WATCHES_MAX = 8;

export class SyncEngine implements IoEngine {
  readonly kind = "sync";
  readonly waitFd = -1;
  readonly #fd: number;
  readonly #capacity: number;
  readonly #ids: Int32Array;
  readonly #results: Int32Array;
  readonly #watchIds = new Int32Array(WATCHES_MAX).fill(-1);
  readonly #watchFds = new Int32Array(WATCHES_MAX).fill(-1);
  readonly #poll = new PollSet(WATCHES_MAX);
  readonly #arena = new Arena(4096);
  /** One struct iovec. */
  readonly #vector = this.#arena.words(4);
  #isWriteThrough: boolean;
  #count = 0;
  #isDisposed = false;

  constructor(requestsMax: number, file: EngineFile) {
    this.#fd = file.fd;
    this.#isWriteThrough = file.isWriteThrough;
    // New ends are added while those of the turn before are still being read.
    this.#capacity = requestsMax * 2 + WATCHES_MAX;
    this.#ids = new Int32Array(this.#capacity);
    this.#results = new Int32Array(this.#capacity);
    for (let place = 0; place < WATCHES_MAX; place++) {
      this.#poll.watch(place, -1);
    }
  }

  room(): number {
    return this.#capacity - WATCHES_MAX - this.#count;
  }

  /** At the end of the file it is short, as in every engine: images end anywhere. */
  prepareRead(id: number, offset: number, address: number, lengthBytes: number): void {
    const { view, address: vector } = this.#vector;
    view[0] = low64(address);
    view[1] = high64(address);
    view[2] = lengthBytes;
    this.prepareReadVector(id, offset, vector, 1);
  }

  prepareWrite(id: number, offset: number, address: number, lengthBytes: number): void {
    const result = writeFileAt(this.#fd, offset, address, lengthBytes, this.#isWriteThrough);
    this.#complete(id, result === 0 ? lengthBytes : result);
  }

  prepareReadVector(id: number, offset: number, vector: number, count: number): void {
    this.#complete(id, readVectorAt(this.#fd, offset, vector, count));
  }

  prepareWriteVector(id: number, offset: number, vector: number, count: number): void {
    this.#complete(id, writeVectorAt(this.#fd, offset, vector, count, this.#isWriteThrough));
  }

  prepareReadFixed(id: number, offset: number, address: number, lengthBytes: number): void {
    this.prepareRead(id, offset, address, lengthBytes);
  }

  prepareWriteFixed(id: number, offset: number, address: number, lengthBytes: number): void {
    this.prepareWrite(id, offset, address, lengthBytes);
  }

  prepareSync(id: number): void {
    this.#complete(id, syncFileData(this.#fd));
  }

  prepareAllocate(id: number, mode: number, offset: number, lengthBytes: number): void {
    this.#complete(id, allocateFile(this.#fd, mode, offset, lengthBytes));
  }

  setWriteThrough(isWriteThrough: boolean): void {
    this.#isWriteThrough = isWriteThrough;
  }

  watch(id: number, fd: number): void {
    const place = this.#watchIds.indexOf(-1);
    assert(place >= 0, "a worker watches few descriptors");
    this.#watchIds[place] = id;
    this.#watchFds[place] = fd;
    this.#poll.watch(place, fd);
  }

  unwatch(id: number): void {
    const place = this.#watchIds.indexOf(id);
    assert(place >= 0, "only what is watched is unwatched");
    this.#watchIds[place] = -1;
    this.#watchFds[place] = -1;
    this.#poll.watch(place, -1);
  }

  registerBuffer(): boolean {
    return true;
  }

  submit(completionsMin: number): void {
    if (this.#count > 0) {
      return;
    }
    if (this.#poll.wait(completionsMin === 0 ? 0 : -1) <= 0) {
      return;
    }
    for (let place = 0; place < WATCHES_MAX; place++) {
      if (this.#poll.events(place) !== 0) {
        drainEvent(i32(this.#watchFds, place));
        this.#complete(i32(this.#watchIds, place), 1);
      }
    }
  }

  completions(): number {
    return this.#count;
  }

  completedId(index: number): number {
    return i32(this.#ids, index);
  }

  completedResult(index: number): number {
    return i32(this.#results, index);
  }

  release(count: number): void {
    this.#ids.copyWithin(0, count, this.#count);
    this.#results.copyWithin(0, count, this.#count);
    this.#count -= count;
  }

  hasWork(): boolean {
    return this.#count > 0;
  }

  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      this.#poll[Symbol.dispose]();
      this.#arena[Symbol.dispose]();
    }
  }

  // --- internal ---

  #complete(id: number, result: number): void {
    assert(this.#count < this.#capacity, "completions are read before more work is prepared");
    this.#ids[this.#count] = id;
    this.#results[this.#count] = result;
    this.#count += 1;
  }
}
