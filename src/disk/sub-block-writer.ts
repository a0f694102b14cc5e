/**
 * Requests and edges of ranges that are not whole blocks of a disk whose unit is larger than a sector (4Kn media). The guest
 * is told the physical block size and seldom sends one; it is done at once, on the worker's own thread:
 *
 *   blocks    |--------|--------|--------|
 *   request        |===========|               read the first and last block, lay the request over, write
 *
 * Read-modify-write of one block must not meet another write of the same block: a lock shared by all
 * queues keeps two of these apart. A write of whole blocks that the guest has in flight on the very same
 * block at the same time overlaps it in the guest's own terms; what such a pair leaves is undefined there
 * as well.
 */
import { Arena } from "../ffi/arena.ts";
import { readFileAt, writeFileAt } from "../ffi/file.ts";
import { fillMemory, wipeMemory } from "../ffi/memory.ts";
import { f64 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { Operation, type RequestTable } from "./request-table.ts";
import type { SectorCipher, SectorCopy } from "./sector-copy.ts";

const WINDOW_BYTES = 256 * 1024;
/** The holder always lets go after its I/O; this only bounds one sleep. */
const LOCK_WAIT_MS = 100;
/** What a cipher that fails is told as. */
const EIO = -5;

export interface SubBlockOptions {
  readonly disk: { readonly fd: number; readonly blockBytes: number };
  readonly requests: RequestTable;
  readonly copy: SectorCopy;
  readonly cipher: SectorCipher | undefined;
  /** 4 bytes, the same for all queues of the disk. */
  readonly sharedLock: SharedArrayBuffer;
}

export class SubBlockWriter implements Disposable {
  readonly #disk: SubBlockOptions["disk"];
  readonly #requests: RequestTable;
  readonly #copy: SectorCopy;
  readonly #cipher: SectorCipher | undefined;
  /** One word: 0 free, 1 taken. */
  readonly #lock: Int32Array;
  #window: Arena | undefined;
  #isWriteThrough = false;

  constructor(options: SubBlockOptions) {
    this.#disk = options.disk;
    this.#requests = options.requests;
    this.#copy = options.copy;
    this.#cipher = options.cipher;
    this.#lock = new Int32Array(options.sharedLock);
  }

  setWriteThrough(isWriteThrough: boolean): void {
    this.#isWriteThrough = isWriteThrough;
  }

  /** Carries the whole request out: 0, or a negative errno. */
  run(slot: number): number {
    this.#acquire();
    const result = this.#runLocked(slot);
    this.#release();
    return result;
  }

  /** Writes zeros over sectors that lie in one block: 0, or a negative errno. */
  zero(sector: number, sectorCount: number): number {
    this.#acquire();
    const result = this.#zeroLocked(sector, sectorCount);
    this.#release();
    return result;
  }

  /** Wipes and unmaps the window. */
  [Symbol.dispose](): void {
    if (this.#window !== undefined) {
      wipeMemory(this.#window.address, WINDOW_BYTES);
      this.#window[Symbol.dispose]();
      this.#window = undefined;
    }
  }

  // --- internal ---

  #acquire(): void {
    while (Atomics.compareExchange(this.#lock, 0, 0, 1) !== 0) {
      Atomics.wait(this.#lock, 0, 1, LOCK_WAIT_MS);
    }
    this.#window ??= new Arena(WINDOW_BYTES);
  }

  #release(): void {
    Atomics.store(this.#lock, 0, 0);
    Atomics.notify(this.#lock, 0, 1);
  }

  #zeroLocked(sector: number, sectorCount: number): number {
    const { fd, blockBytes } = this.#disk;
    const address = this.#window?.address ?? 0;
    const at = sector * SECTOR_BYTES;
    const start = Math.floor(at / blockBytes) * blockBytes;
    const result = readFileAt(fd, start, address, blockBytes);
    if (result !== 0) {
      return result;
    }
    const place = address + (at - start);
    fillMemory(place, 0, sectorCount * SECTOR_BYTES);
    if (
      this.#cipher !== undefined &&
      this.#cipher.encrypt(sector, sectorCount, place, place) !== 0
    ) {
      return EIO;
    }
    return writeFileAt(fd, start, address, blockBytes, this.#isWriteThrough);
  }

  #runLocked(slot: number): number {
    this.#copy.rewind(slot);
    const block = this.#disk.blockBytes;
    let at = f64(this.#requests.sector, slot) * SECTOR_BYTES;
    const end = at + f64(this.#requests.bytes, slot);
    while (at < end) {
      const start = Math.floor(at / block) * block;
      const stop = Math.min(Math.ceil(end / block) * block, start + WINDOW_BYTES);
      const part = Math.min(end, stop) - at;
      const result = this.#runWindow({ slot, at, part, start, lengthBytes: stop - start });
      if (result !== 0) {
        return result;
      }
      at += part;
    }
    return 0;
  }

  #runWindow(window: {
    readonly slot: number;
    readonly at: number;
    readonly part: number;
    readonly start: number;
    readonly lengthBytes: number;
  }): number {
    const { slot, at, part, start, lengthBytes } = window;
    const address = this.#window?.address ?? 0;
    const fd = this.#disk.fd;
    const result = readFileAt(fd, start, address, lengthBytes);
    if (result !== 0) {
      return result;
    }
    const inWindow = address + (at - start);
    if (this.#requests.operation[slot] === Operation.read) {
      return this.#copy.scatter(slot, at / SECTOR_BYTES, inWindow, part) ? 0 : EIO;
    }
    if (!this.#copy.gather(slot, at / SECTOR_BYTES, inWindow, part)) {
      return EIO;
    }
    return writeFileAt(fd, start, address, lengthBytes, this.#isWriteThrough);
  }
}
