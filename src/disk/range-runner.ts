/**
 * DISCARD and WRITE_ZEROES: a request carries a list of ranges (virtio 5.2.6: u64 sector, u32 sectors,
 * u32 flags, little endian), done one after another.
 *
 *   discard                 fallocate(PUNCH_HOLE): blocks are really freed, plain or enciphered
 *   write zeroes, plain     fallocate(ZERO_RANGE, or PUNCH_HOLE when the guest allows to unmap); where the
 *                           file system cannot, zeros are written
 *   write zeroes, cipher    enciphered zeros are written from a bounce buffer
 */
import { assert } from "../errors.ts";
import { Arena } from "../ffi/arena.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from "../ffi/file.ts";
import { copyMemory, fillMemory } from "../ffi/memory.ts";
import { f64, i32, join64, u32 } from "../ffi/view.ts";
import { SECTOR_BYTES, SEGMENT_BYTES, SEGMENT_UNMAP } from "../formats/virtio-blk.ts";
import { BufferPool } from "./buffer-pool.ts";
import type { IoEngine } from "./io-engine.ts";
import { Operation, Outcome, type RequestTable } from "./request-table.ts";
import type { SectorCipher } from "./sector-copy.ts";

/** Limits that the config space announces. */
export const RANGES_MAX = 32;
export const DISCARD_SECTORS_MAX = 4 * 1024 * 1024;
export const WRITE_ZEROES_SECTORS_MAX = 64 * 1024;

const PIECE_BYTES = 256 * 1024;
const EOPNOTSUPP = -95;
const EINVAL = -22;

export class RangeRunner {
  /** States beside the outcomes. */
  static readonly UNDER_WAY = 100;
  static readonly NO_BUFFER = 101;

  readonly #engine: IoEngine;
  readonly #disk: { readonly sectors: number; readonly blockBytes: number };
  readonly #requests: RequestTable;
  readonly #cipher: SectorCipher | undefined;
  readonly #pool: BufferPool;
  readonly #arena = new Arena(4096);
  readonly #range = this.#arena.words(4);
  /** Columns by slot: which range, its first sector not done, sectors left, buffer of a write. */
  readonly #index: Int32Array;
  readonly #sector: Float64Array;
  readonly #left: Float64Array;
  readonly #unmap: Uint8Array;
  readonly #unit: Int32Array;
  readonly #order: Uint8Array;
  readonly #bytes: Int32Array;
  #canZeroRange = true;

  constructor(options: {
    readonly engine: IoEngine;
    readonly disk: { readonly sectors: number; readonly blockBytes: number };
    readonly requests: RequestTable;
    readonly cipher: SectorCipher | undefined;
    readonly pool: BufferPool;
  }) {
    this.#engine = options.engine;
    this.#disk = options.disk;
    this.#requests = options.requests;
    this.#cipher = options.cipher;
    this.#pool = options.pool;
    const slots = options.requests.slotsMax;
    this.#index = new Int32Array(slots);
    this.#sector = new Float64Array(slots);
    this.#left = new Float64Array(slots);
    this.#unmap = new Uint8Array(slots);
    this.#unit = new Int32Array(slots).fill(-1);
    this.#order = new Uint8Array(slots);
    this.#bytes = new Int32Array(slots);
  }

  /** Begins a request. Returns an outcome, UNDER_WAY or NO_BUFFER. */
  start(slot: number): number {
    const bytes = f64(this.#requests.bytes, slot);
    if (bytes === 0 || bytes % SEGMENT_BYTES !== 0 || bytes > RANGES_MAX * SEGMENT_BYTES) {
      return Outcome.ioError;
    }
    this.#index[slot] = -1;
    this.#left[slot] = 0;
    this.#unit[slot] = -1;
    return this.#step(slot);
  }

  /** Goes on after NO_BUFFER. */
  resume(slot: number): number {
    return this.#step(slot);
  }

  /** Handles the end of one I/O of the request. */
  complete(slot: number, result: number): number {
    const unit = i32(this.#unit, slot);
    if (unit < 0) {
      return this.#completeAllocate(slot, result);
    }
    this.#pool.give(unit, this.#order[slot] ?? 0);
    this.#unit[slot] = -1;
    if (result !== this.#bytes[slot]) {
      return Outcome.ioError;
    }
    this.#take(slot, result / SECTOR_BYTES);
    return this.#step(slot);
  }

  // --- internal ---

  #completeAllocate(slot: number, result: number): number {
    if (result === 0) {
      this.#left[slot] = 0;
      return this.#step(slot);
    }
    if (result !== EOPNOTSUPP && result !== EINVAL) {
      return Outcome.ioError;
    }
    if (this.#requests.operation[slot] === Operation.discard) {
      return Outcome.unsupported;
    }
    this.#canZeroRange = false;
    return this.#step(slot);
  }

  /** Takes the next range when one is done, then emits its I/O. */
  #step(slot: number): number {
    while (f64(this.#left, slot) === 0) {
      const index = i32(this.#index, slot) + 1;
      if (index * SEGMENT_BYTES === f64(this.#requests.bytes, slot)) {
        return Outcome.ok;
      }
      this.#index[slot] = index;
      const outcome = this.#loadRange(slot, index);
      if (outcome !== Outcome.ok) {
        return outcome;
      }
    }
    if (this.#requests.operation[slot] === Operation.discard) {
      return this.#emitDiscard(slot);
    }
    if (this.#cipher === undefined && this.#canZeroRange) {
      const mode = this.#unmap[slot] === 1 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
      return this.#emitAllocate(slot, mode, f64(this.#sector, slot), f64(this.#left, slot));
    }
    return this.#emitZeros(slot);
  }

  #emitDiscard(slot: number): number {
    const blockSectors = this.#disk.blockBytes / SECTOR_BYTES;
    const sector = f64(this.#sector, slot);
    const start = Math.ceil(sector / blockSectors) * blockSectors;
    const end = Math.floor((sector + f64(this.#left, slot)) / blockSectors) * blockSectors;
    if (end <= start) {
      this.#left[slot] = 0; // less than a block: nothing can be freed
      return this.#step(slot);
    }
    return this.#emitAllocate(slot, FALLOC_FL_PUNCH_HOLE, start, end - start);
  }

  #emitAllocate(slot: number, mode: number, sector: number, sectors: number): number {
    this.#engine.prepareAllocate(
      slot,
      mode | FALLOC_FL_KEEP_SIZE,
      sector * SECTOR_BYTES,
      sectors * SECTOR_BYTES,
    );
    return RangeRunner.UNDER_WAY;
  }

  #emitZeros(slot: number): number {
    const rest = Math.min(f64(this.#left, slot) * SECTOR_BYTES, PIECE_BYTES);
    let order = BufferPool.orderOf(rest);
    let unit = this.#pool.take(order);
    while (unit < 0 && order > 0) {
      order -= 1;
      unit = this.#pool.take(order);
    }
    if (unit < 0) {
      return RangeRunner.NO_BUFFER;
    }
    const bytes = Math.min(rest, BufferPool.bytesOf(order));
    const address = this.#pool.addressOf(unit);
    const sector = f64(this.#sector, slot);
    fillMemory(address, 0, bytes);
    if (
      this.#cipher !== undefined &&
      this.#cipher.encrypt(sector, bytes / SECTOR_BYTES, address, address) !== 0
    ) {
      this.#pool.give(unit, order);
      return Outcome.ioError;
    }
    this.#unit[slot] = unit;
    this.#order[slot] = order;
    this.#bytes[slot] = bytes;
    this.#engine.prepareWrite(slot, sector * SECTOR_BYTES, address, bytes);
    return RangeRunner.UNDER_WAY;
  }

  #take(slot: number, sectors: number): void {
    this.#sector[slot] = f64(this.#sector, slot) + sectors;
    this.#left[slot] = f64(this.#left, slot) - sectors;
    assert(f64(this.#left, slot) >= 0, "a range is not overrun");
  }

  /** Reads range `index` from the guest once and checks it. */
  #loadRange(slot: number, index: number): number {
    this.#copyRange(slot, index * SEGMENT_BYTES);
    const words = this.#range.view;
    const sector = join64(u32(words, 0), u32(words, 1));
    const sectors = u32(words, 2);
    const flags = u32(words, 3);
    const isDiscard = this.#requests.operation[slot] === Operation.discard;
    if ((flags & ~SEGMENT_UNMAP) !== 0 || (isDiscard && flags !== 0)) {
      return Outcome.unsupported; // virtio 5.2.6.2
    }
    const sectorsMax = isDiscard ? DISCARD_SECTORS_MAX : WRITE_ZEROES_SECTORS_MAX;
    if (sectors > sectorsMax || sector + sectors > this.#disk.sectors) {
      return Outcome.ioError;
    }
    this.#sector[slot] = sector;
    this.#left[slot] = sectors;
    this.#unmap[slot] = flags & SEGMENT_UNMAP;
    return Outcome.ok;
  }

  #copyRange(slot: number, offset: number): void {
    const requests = this.#requests;
    let skip = offset;
    let done = 0;
    for (let place = i32(requests.segmentStart, slot); done < SEGMENT_BYTES; place++) {
      const length = u32(requests.segmentLength, place);
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const part = Math.min(SEGMENT_BYTES - done, length - skip);
      copyMemory(this.#range.address + done, f64(requests.segmentAddress, place) + skip, part);
      done += part;
      skip = 0;
    }
  }
}
