/**
 * Requests that are not whole blocks of a disk whose unit is larger than a sector (4Kn media). The guest
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
import { f64 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { Operation, type RequestTable } from "./request-table.ts";
import type { SectorCopy } from "./sector-copy.ts";

const WINDOW_BYTES = 256 * 1024;
/** The holder always lets go after its I/O; this only bounds one sleep. */
const LOCK_WAIT_MS = 100;

export class SubBlockWriter {
  readonly #disk: { readonly fd: number; readonly blockBytes: number };
  readonly #requests: RequestTable;
  readonly #copy: SectorCopy;
  /** One word: 0 free, 1 taken. */
  readonly #lock: Int32Array;
  #window: Arena | undefined;
  #isWriteThrough = false;

  constructor(
    disk: { readonly fd: number; readonly blockBytes: number },
    requests: RequestTable,
    copy: SectorCopy,
    sharedLock: SharedArrayBuffer,
  ) {
    this.#disk = disk;
    this.#requests = requests;
    this.#copy = copy;
    this.#lock = new Int32Array(sharedLock);
  }

  setWriteThrough(isWriteThrough: boolean): void {
    this.#isWriteThrough = isWriteThrough;
  }

  /** Carries the whole request out. False on an I/O error. */
  run(slot: number): boolean {
    while (Atomics.compareExchange(this.#lock, 0, 0, 1) !== 0) {
      Atomics.wait(this.#lock, 0, 1, LOCK_WAIT_MS);
    }
    const isOk = this.#runLocked(slot);
    Atomics.store(this.#lock, 0, 0);
    Atomics.notify(this.#lock, 0, 1);
    return isOk;
  }

  // --- internal ---

  #runLocked(slot: number): boolean {
    this.#window ??= new Arena(WINDOW_BYTES);
    this.#copy.rewind(slot);
    const block = this.#disk.blockBytes;
    let at = f64(this.#requests.sector, slot) * SECTOR_BYTES;
    const end = at + f64(this.#requests.bytes, slot);
    while (at < end) {
      const start = Math.floor(at / block) * block;
      const stop = Math.min(Math.ceil(end / block) * block, start + WINDOW_BYTES);
      const part = Math.min(end, stop) - at;
      if (!this.#runWindow({ slot, at, part, start, lengthBytes: stop - start })) {
        return false;
      }
      at += part;
    }
    return true;
  }

  #runWindow(window: {
    readonly slot: number;
    readonly at: number;
    readonly part: number;
    readonly start: number;
    readonly lengthBytes: number;
  }): boolean {
    const { slot, at, part, start, lengthBytes } = window;
    const address = this.#window?.address ?? 0;
    const fd = this.#disk.fd;
    if (readFileAt(fd, start, address, lengthBytes) !== 0) {
      return false;
    }
    const inWindow = address + (at - start);
    if (this.#requests.operation[slot] === Operation.read) {
      return this.#copy.scatter(slot, at / SECTOR_BYTES, inWindow, part);
    }
    if (!this.#copy.gather(slot, at / SECTOR_BYTES, inWindow, part)) {
      return false;
    }
    return writeFileAt(fd, start, address, lengthBytes, this.#isWriteThrough) === 0;
  }
}
