/**
 * DISCARD and WRITE_ZEROES: a request carries a list of ranges (RangeLists), done one after another.
 *
 *   discard                 fallocate(PUNCH_HOLE): blocks are really freed, plain or enciphered
 *   write zeroes, plain     fallocate(ZERO_RANGE, or PUNCH_HOLE when the guest allows to unmap); where the
 *                           file system cannot, zeros are written
 *   parts of a block        discard: left alone; write zeroes: read, zeroed and written (SubBlockWriter)
 *   write zeroes, cipher    enciphered zeros are written from a bounce buffer
 *   discard to zeros        as write zeroes that may unmap: what was there before must not show
 */
import { assert } from "../errors.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from "../ffi/file.ts";
import { fillMemory } from "../ffi/memory.ts";
import { f64, i32, u8 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { BufferPool } from "./buffer-pool.ts";
import { type IoEngine, isPassing, RETRIES_MAX } from "./io-engine.ts";
import type { RangeLists } from "./range-lists.ts";
import { Operation, Outcome, type RequestTable } from "./request-table.ts";
import type { SectorCipher } from "./sector-copy.ts";
import type { SubBlockWriter } from "./sub-block-writer.ts";

const PIECE_BYTES = 256 * 1024;
const EOPNOTSUPP = -95;
const EINVAL = -22;

/** What is done with the ranges of a request. */
const Kind = { discard: 0, zero: 1, discardToZeros: 2 } as const;

export interface RangeOptions {
  readonly engine: IoEngine;
  readonly disk: {
    readonly blockBytes: number;
    readonly isDiscardOffered: boolean;
  };
  readonly requests: RequestTable;
  readonly lists: RangeLists;
  readonly cipher: SectorCipher | undefined;
  readonly pool: BufferPool;
  readonly subBlocks: SubBlockWriter;
  /** True while something waits for a buffer: zeros in many pieces let it pass in between. */
  readonly isWaiting: () => boolean;
  /** The disk's I/O of this request failed for good; its outcome follows. */
  readonly failed: (slot: number, result: number) => void;
}

export class RangeRunner {
  /** States beside the outcomes. */
  static readonly UNDER_WAY = 100;
  static readonly NO_BUFFER = 101;

  readonly #options: RangeOptions;
  readonly #engine: IoEngine;
  readonly #requests: RequestTable;
  readonly #cipher: SectorCipher | undefined;
  readonly #pool: BufferPool;
  readonly #blockSectors: number;
  readonly #lists: RangeLists;
  /** Columns by slot: which range, its first sector not done, sectors left, sectors of the I/O under way. */
  readonly #index: Int32Array;
  readonly #sector: Float64Array;
  readonly #left: Float64Array;
  readonly #underWay: Float64Array;
  readonly #unmap: Uint8Array;
  readonly #kind: Uint8Array;
  readonly #retries: Uint8Array;
  /** The buffer of a write, or -1. */
  readonly #unit: Int32Array;
  readonly #order: Uint8Array;
  #canZeroRange = true;

  constructor(options: RangeOptions) {
    this.#options = options;
    this.#engine = options.engine;
    this.#requests = options.requests;
    this.#lists = options.lists;
    this.#cipher = options.cipher;
    this.#pool = options.pool;
    this.#blockSectors = options.disk.blockBytes / SECTOR_BYTES;
    const slots = options.requests.slotsMax;
    this.#index = new Int32Array(slots);
    this.#sector = new Float64Array(slots);
    this.#left = new Float64Array(slots);
    this.#underWay = new Float64Array(slots);
    this.#unmap = new Uint8Array(slots);
    this.#kind = new Uint8Array(slots);
    this.#retries = new Uint8Array(slots);
    this.#unit = new Int32Array(slots).fill(-1);
    this.#order = new Uint8Array(slots);
  }

  /**
   * Begins a request whose list is loaded. Returns an outcome, UNDER_WAY or NO_BUFFER.
   * @param mustLeaveZeros a discard is not enough: what was there before must not show
   */
  start(slot: number, mustLeaveZeros: boolean): number {
    const isDiscard = this.#requests.operation[slot] === Operation.discard;
    const discard = mustLeaveZeros ? Kind.discardToZeros : Kind.discard;
    this.#kind[slot] = isDiscard ? discard : Kind.zero;
    this.#index[slot] = -1;
    this.#left[slot] = 0;
    this.#retries[slot] = 0;
    this.#unit[slot] = -1;
    return this.#step(slot);
  }

  /** Goes on after NO_BUFFER. */
  resume(slot: number): number {
    return this.#step(slot);
  }

  /** Handles the end of one I/O of the request. */
  complete(slot: number, result: number): number {
    return i32(this.#unit, slot) < 0
      ? this.#completeAllocate(slot, result)
      : this.#completeZeros(slot, result);
  }

  // --- internal ---

  #completeZeros(slot: number, result: number): number {
    const isDone = result === f64(this.#underWay, slot) * SECTOR_BYTES;
    if (!isDone && this.#mayRetry(slot, result)) {
      this.#prepareZeros(slot);
      return RangeRunner.UNDER_WAY;
    }
    this.#pool.give(i32(this.#unit, slot), this.#order[slot] ?? 0);
    this.#unit[slot] = -1;
    if (!isDone) {
      this.#options.failed(slot, result);
      return Outcome.ioError;
    }
    this.#take(slot, f64(this.#underWay, slot));
    return this.#options.isWaiting() ? RangeRunner.NO_BUFFER : this.#step(slot);
  }

  #completeAllocate(slot: number, result: number): number {
    if (result === 0) {
      this.#take(slot, f64(this.#underWay, slot));
      return this.#step(slot);
    }
    if (this.#mayRetry(slot, result)) {
      return this.#step(slot);
    }
    if (result !== EOPNOTSUPP && result !== EINVAL) {
      this.#options.failed(slot, result);
      return Outcome.ioError;
    }
    if (u8(this.#kind, slot) === Kind.discard) {
      return Outcome.unsupported;
    }
    this.#canZeroRange = false;
    this.#retries[slot] = 0;
    return this.#step(slot);
  }

  #mayRetry(slot: number, result: number): boolean {
    const retries = (this.#retries[slot] ?? 0) + 1;
    this.#retries[slot] = retries;
    return isPassing(result) && retries <= RETRIES_MAX;
  }

  /** Takes the next range when one is done, does its edges, then emits its I/O. */
  #step(slot: number): number {
    for (;;) {
      if (f64(this.#left, slot) === 0) {
        const index = i32(this.#index, slot) + 1;
        if (index === this.#lists.count(slot)) {
          return Outcome.ok;
        }
        this.#beginRange(slot, index);
        continue;
      }
      const edge = this.#edgeSectors(slot);
      if (edge === 0) {
        return this.#emit(slot);
      }
      // A part of a block cannot be freed, and is zeroed on the spot.
      const isLeft = u8(this.#kind, slot) === Kind.discard;
      if (!isLeft) {
        const result = this.#options.subBlocks.zero(f64(this.#sector, slot), edge);
        if (result !== 0) {
          this.#options.failed(slot, result);
          return Outcome.ioError;
        }
      }
      this.#take(slot, edge);
    }
  }

  /** Sectors up to the next whole block, or all that is left when that is less than a block. */
  #edgeSectors(slot: number): number {
    const left = f64(this.#left, slot);
    const inBlock = f64(this.#sector, slot) % this.#blockSectors;
    if (inBlock > 0) {
      return Math.min(left, this.#blockSectors - inBlock);
    }
    return left < this.#blockSectors ? left : 0;
  }

  #emit(slot: number): number {
    const whole = Math.floor(f64(this.#left, slot) / this.#blockSectors) * this.#blockSectors;
    if (u8(this.#kind, slot) === Kind.discard) {
      return this.#emitAllocate(slot, FALLOC_FL_PUNCH_HOLE, whole);
    }
    if (this.#cipher === undefined && this.#canZeroRange) {
      const isFreed = this.#unmap[slot] === 1 && this.#options.disk.isDiscardOffered;
      return this.#emitAllocate(slot, isFreed ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, whole);
    }
    return this.#emitZeros(slot, whole * SECTOR_BYTES);
  }

  #emitAllocate(slot: number, mode: number, sectors: number): number {
    this.#underWay[slot] = sectors;
    this.#engine.prepareAllocate(
      slot,
      mode | FALLOC_FL_KEEP_SIZE,
      f64(this.#sector, slot) * SECTOR_BYTES,
      sectors * SECTOR_BYTES,
    );
    return RangeRunner.UNDER_WAY;
  }

  #emitZeros(slot: number, wholeBytes: number): number {
    const wanted = Math.min(wholeBytes, PIECE_BYTES);
    let order = BufferPool.orderOf(wanted);
    let unit = this.#pool.take(order);
    while (unit < 0 && order > 0) {
      order -= 1;
      unit = this.#pool.take(order);
    }
    if (unit < 0) {
      return RangeRunner.NO_BUFFER;
    }
    const bytes = Math.min(wanted, BufferPool.bytesOf(order));
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
    this.#underWay[slot] = bytes / SECTOR_BYTES;
    this.#prepareZeros(slot);
    return RangeRunner.UNDER_WAY;
  }

  #prepareZeros(slot: number): void {
    const address = this.#pool.addressOf(i32(this.#unit, slot));
    const offset = f64(this.#sector, slot) * SECTOR_BYTES;
    this.#engine.prepareWrite(slot, offset, address, f64(this.#underWay, slot) * SECTOR_BYTES);
  }

  #take(slot: number, sectors: number): void {
    this.#sector[slot] = f64(this.#sector, slot) + sectors;
    this.#left[slot] = f64(this.#left, slot) - sectors;
    this.#retries[slot] = 0;
    assert(f64(this.#left, slot) >= 0, "a range is not overrun");
  }

  #beginRange(slot: number, index: number): void {
    const isFreed =
      u8(this.#kind, slot) === Kind.discardToZeros || this.#lists.mayUnmap(slot, index);
    this.#index[slot] = index;
    this.#sector[slot] = this.#lists.sector(slot, index);
    this.#left[slot] = this.#lists.sectorCount(slot, index);
    this.#unmap[slot] = isFreed ? 1 : 0;
  }
}
