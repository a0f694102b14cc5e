/**
 * Bounce buffers of one queue: a buddy allocator over chunks of 1 MiB that take memory and are registered with
 * the I/O engine when they are first needed, up to a limit. A buffer never crosses a chunk, so that one
 * registered buffer covers it. All chunks are one mapping, which may have huge pages: then a large transfer is
 * one segment of memory and fills the disk's ring with one entry.
 *
 *   chunk 0          | 4 KiB unit | unit | ... 256 units |     order n = 2^n units, 0 <= n <= 8
 *   chunk 1          | ...
 *
 * Cost: about 20 ns to take and to give back; no allocation.
 */
import { assert } from "../errors.ts";
import { mapAnonymous, unmap, wipeMemory } from "../ffi/memory.ts";
import { i32 } from "../ffi/view.ts";

export const UNIT_BYTES = 4096;
export const CHUNK_BYTES = 2 ** 20;
const UNITS_PER_CHUNK = CHUNK_BYTES / UNIT_BYTES;
const ORDER_MAX = 8;
const NOT_FREE = -1;
const NOT_TAKEN = -1;

/** Registers a chunk with the engine; false when the kernel refuses. */
export type RegisterChunk = (chunk: number, address: number, lengthBytes: number) => boolean;

export class BufferPool implements Disposable {
  readonly #chunksMax: number;
  readonly #register: RegisterChunk;
  readonly #isRegistered: Uint8Array;
  /** Order of the free block that starts at a unit, or NOT_FREE. */
  readonly #freeOrder: Int8Array;
  /** Order of the buffer in use that starts at a unit, or NOT_TAKEN. */
  readonly #takenOrder: Int8Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #heads = new Int32Array(ORDER_MAX + 1).fill(-1);
  /** Of the mapping, 0 before the first chunk is needed. */
  #address = 0;
  #chunks = 0;

  /** @param limitBytes at least one chunk is granted */
  constructor(limitBytes: number, register: RegisterChunk) {
    this.#chunksMax = BufferPool.bytesMax(limitBytes) / CHUNK_BYTES;
    this.#register = register;
    const units = this.#chunksMax * UNITS_PER_CHUNK;
    this.#isRegistered = new Uint8Array(this.#chunksMax);
    this.#freeOrder = new Int8Array(units).fill(NOT_FREE);
    this.#takenOrder = new Int8Array(units).fill(NOT_TAKEN);
    this.#next = new Int32Array(units).fill(-1);
    this.#previous = new Int32Array(units).fill(-1);
  }

  /** What a pool with that limit takes at most. */
  static bytesMax(limitBytes: number): number {
    return Math.max(1, Math.floor(limitBytes / CHUNK_BYTES)) * CHUNK_BYTES;
  }

  /** Bytes of the chunks in use. */
  get sizeBytes(): number {
    return this.#chunks * CHUNK_BYTES;
  }

  /** The smallest order that holds `lengthBytes` (1 to CHUNK_BYTES). */
  static orderOf(lengthBytes: number): number {
    assert(lengthBytes <= CHUNK_BYTES, "a buffer fits a chunk");
    const units = Math.ceil(lengthBytes / UNIT_BYTES);
    return units <= 1 ? 0 : 32 - Math.clz32(units - 1);
  }

  static bytesOf(order: number): number {
    return UNIT_BYTES << order;
  }

  /** Takes a buffer of `order`: its first unit, or -1 when none is free. */
  take(order: number): number {
    let found = order;
    while (found <= ORDER_MAX && i32(this.#heads, found) < 0) {
      found += 1;
    }
    if (found > ORDER_MAX) {
      if (!this.#grow()) {
        return -1;
      }
      found = ORDER_MAX;
    }
    const unit = i32(this.#heads, found);
    this.#unlink(unit, found);
    while (found > order) {
      found -= 1;
      this.#link(unit + (1 << found), found);
    }
    this.#takenOrder[unit] = order;
    return unit;
  }

  /** Gives a buffer back. */
  give(unit: number, order: number): void {
    assert(this.#takenOrder[unit] === order, "a buffer is given back once, as it was taken");
    this.#takenOrder[unit] = NOT_TAKEN;
    let start = unit;
    let merged = order;
    while (merged < ORDER_MAX) {
      const buddy = start ^ (1 << merged);
      if (this.#freeOrder[buddy] !== merged) {
        break;
      }
      this.#unlink(buddy, merged);
      start = Math.min(start, buddy);
      merged += 1;
    }
    this.#link(start, merged);
  }

  addressOf(unit: number): number {
    return this.#address + unit * UNIT_BYTES;
  }

  /** The engine's registered buffer that covers `unit`, or -1 when it could not be registered. */
  registeredBufferOf(unit: number): number {
    const chunk = Math.floor(unit / UNITS_PER_CHUNK);
    return this.#isRegistered[chunk] === 1 ? chunk : -1;
  }

  /** Wipes and unmaps everything: no I/O may use the buffers any more. */
  [Symbol.dispose](): void {
    if (this.#address !== 0) {
      wipeMemory(this.#address, this.sizeBytes);
      unmap(this.#address, this.#chunksMax * CHUNK_BYTES);
      this.#address = 0;
    }
    this.#chunks = 0;
    this.#heads.fill(-1);
    this.#freeOrder.fill(NOT_FREE);
    this.#takenOrder.fill(NOT_TAKEN);
  }

  // --- internal ---

  #grow(): boolean {
    if (this.#chunks === this.#chunksMax) {
      return false;
    }
    const chunk = this.#chunks;
    if (this.#address === 0) {
      this.#address = mapAnonymous(this.#chunksMax * CHUNK_BYTES);
    }
    const address = this.#address + chunk * CHUNK_BYTES;
    this.#isRegistered[chunk] = this.#register(chunk, address, CHUNK_BYTES) ? 1 : 0;
    this.#chunks += 1;
    this.#link(chunk * UNITS_PER_CHUNK, ORDER_MAX);
    return true;
  }

  #link(unit: number, order: number): void {
    const head = i32(this.#heads, order);
    this.#freeOrder[unit] = order;
    this.#next[unit] = head;
    this.#previous[unit] = -1;
    if (head >= 0) {
      this.#previous[head] = unit;
    }
    this.#heads[order] = unit;
  }

  #unlink(unit: number, order: number): void {
    const next = i32(this.#next, unit);
    const previous = i32(this.#previous, unit);
    if (next >= 0) {
      this.#previous[next] = previous;
    }
    if (previous >= 0) {
      this.#next[previous] = next;
    } else {
      this.#heads[order] = next;
    }
    this.#freeOrder[unit] = NOT_FREE;
  }
}
