/**
 * Reads and writes: from a slot of the request table to I/O and back.
 *
 *   start -> merge with its neighbour -> direct: one vectored I/O on the segments themselves
 *                                     -> bounce: gather/encipher -> I/O on a registered buffer
 *                                        -> decipher/scatter, in pieces, one after another
 *
 * An I/O is named by its first request's slot; further requests of a merged I/O hang on `#next`. Buffers
 * belong to the I/O from emission until its completion was handled. Direct I/O uses the guest's own
 * memory: the front end keeps it mapped until the request is finished.
 *
 * Cost: about 60 ns a request besides the cipher and the kernel; no allocation.
 */
import { assert } from "../errors.ts";
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { PAGE_SIZE } from "../ffi/memory.ts";
import { f64, high64, i32, u32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { BufferPool } from "./buffer-pool.ts";
import { type IoEngine, isPassing, RETRIES_MAX } from "./io-engine.ts";
import { Operation, Outcome, type RequestTable } from "./request-table.ts";
import type { SectorCopy } from "./sector-copy.ts";

/** The largest bounced piece and the largest merged I/O. */
const PIECE_BYTES = 256 * 1024;
/** The largest I/O that goes to guest memory in one call. */
const DIRECT_BYTES_MAX = 4 * 2 ** 20;
/**
 * From here on it costs less to let the kernel look up the guest's pages than to copy them. So it does for a single
 * page; a few pages that are scattered cost the disk more, as segments, than their copy costs here.
 */
const DIRECT_BYTES_MIN = 32 * 1024;

const Path = { direct: 0, bounce: 1 } as const;

/** What the runner tells its executor. */
export interface TransferHost {
  /** The request's outcome is known. */
  finish(slot: number, outcome: number): void;
  /** The disk's I/O of this request failed for good, or stayed short; its outcome follows. */
  failed(slot: number, result: number): void;
  /** The I/O goes on by `resume` when a buffer is free. */
  wait(slot: number): void;
  /** True while something waits for a buffer: nobody overtakes it. */
  isWaiting(): boolean;
}

export interface TransferOptions {
  readonly engine: IoEngine;
  readonly requests: RequestTable;
  readonly copy: SectorCopy;
  readonly pool: BufferPool;
  readonly host: TransferHost;
  /** Direct I/O is allowed: there is no cipher. */
  readonly isPlain: boolean;
  readonly blockBytes: number;
  readonly memoryAlignBytes: number;
}

export class TransferRunner implements Disposable {
  readonly #options: TransferOptions;
  readonly #engine: IoEngine;
  readonly #requests: RequestTable;
  readonly #copy: SectorCopy;
  readonly #pool: BufferPool;
  readonly #host: TransferHost;
  readonly #arena: Arena;
  readonly #vectors: ArenaView<Uint32Array>;

  // Columns of an I/O, indexed by its first slot.
  readonly #next: Int32Array;
  readonly #tail: Int32Array;
  readonly #path: Uint8Array;
  readonly #total: Float64Array;
  readonly #done: Float64Array;
  readonly #expected: Int32Array;
  readonly #unit: Int32Array;
  readonly #order: Uint8Array;
  readonly #retries: Uint8Array;
  /** The I/O that the next request may still join. */
  #pending = -1;

  constructor(options: TransferOptions) {
    const { requests } = options;
    const slots = requests.slotsMax;
    this.#options = options;
    this.#engine = options.engine;
    this.#requests = requests;
    this.#copy = options.copy;
    this.#pool = options.pool;
    this.#host = options.host;
    this.#arena = new Arena(TransferRunner.vectorBytes(requests));
    this.#vectors = this.#arena.words(slots * requests.segmentsPerSlot * 4);
    this.#next = new Int32Array(slots).fill(-1);
    this.#tail = new Int32Array(slots);
    this.#path = new Uint8Array(slots);
    this.#total = new Float64Array(slots);
    this.#done = new Float64Array(slots);
    this.#expected = new Int32Array(slots);
    this.#unit = new Int32Array(slots).fill(-1);
    this.#order = new Uint8Array(slots);
    this.#retries = new Uint8Array(slots);
  }

  /** Of the vectors that I/O of several segments is described by. */
  static vectorBytes({ slotsMax, segmentsPerSlot }: RequestTable): number {
    return slotsMax * segmentsPerSlot * 16 + 4096;
  }

  /** Takes a read or write of whole blocks. `endBatch` must follow before the engine is entered. */
  start(slot: number): void {
    const bytes = f64(this.#requests.bytes, slot);
    const path = this.#pathOf(slot, bytes);
    if (this.#pending >= 0) {
      if (this.#join(slot, path, bytes)) {
        return;
      }
      this.#emit(this.#pending);
    }
    this.#pending = slot;
    this.#startIo(slot, path, bytes);
  }

  /** What still waited for a neighbour is emitted. */
  endBatch(): void {
    if (this.#pending >= 0) {
      this.#emit(this.#pending);
      this.#pending = -1;
    }
  }

  /** Handles the completion of the I/O named `first`. */
  complete(first: number, result: number): void {
    if (result === this.#expected[first]) {
      this.#advance(first);
    } else {
      this.#recover(first, result);
    }
  }

  /** Goes on with an I/O that waited for a buffer; false when there still is none. */
  resume(first: number): boolean {
    return this.#emitPiece(first);
  }

  /** No I/O may be under way. */
  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #pathOf(slot: number, bytes: number): number {
    const isDirect =
      this.#options.isPlain &&
      (bytes >= DIRECT_BYTES_MIN || bytes === PAGE_SIZE) &&
      bytes <= DIRECT_BYTES_MAX &&
      i32(this.#requests.segmentCount, slot) <= this.#requests.segmentsPerSlot &&
      this.#requests.isAligned(slot, this.#options.memoryAlignBytes, this.#options.blockBytes);
    return isDirect ? Path.direct : Path.bounce;
  }

  #startIo(slot: number, path: number, bytes: number): void {
    this.#next[slot] = -1;
    this.#tail[slot] = slot;
    this.#path[slot] = path;
    this.#total[slot] = bytes;
    this.#done[slot] = 0;
    this.#retries[slot] = 0;
    this.#copy.rewind(slot);
  }

  /** Appends the request to the pending I/O when it goes on where that ends. */
  #join(slot: number, path: number, bytes: number): boolean {
    const first = this.#pending;
    const requests = this.#requests;
    const total = f64(this.#total, first);
    const end = f64(requests.sector, first) + total / SECTOR_BYTES;
    if (
      requests.sector[slot] !== end ||
      requests.operation[first] !== requests.operation[slot] ||
      this.#path[first] !== path ||
      total + bytes > PIECE_BYTES ||
      (path === Path.direct &&
        this.#vectorCount(first) + i32(requests.segmentCount, slot) > requests.segmentsPerSlot)
    ) {
      return false;
    }
    this.#next[i32(this.#tail, first)] = slot;
    this.#tail[first] = slot;
    this.#next[slot] = -1;
    this.#total[first] = total + bytes;
    this.#copy.rewind(slot);
    return true;
  }

  #vectorCount(first: number): number {
    let count = 0;
    for (let slot = first; slot >= 0; slot = i32(this.#next, slot)) {
      count += i32(this.#requests.segmentCount, slot);
    }
    return count;
  }

  #emit(first: number): void {
    if (this.#path[first] === Path.direct) {
      this.#emitDirect(first);
    } else if (this.#host.isWaiting() || !this.#emitPiece(first)) {
      this.#host.wait(first);
    }
  }

  #emitDirect(first: number): void {
    const requests = this.#requests;
    const offset = f64(requests.sector, first) * SECTOR_BYTES;
    const isRead = requests.operation[first] === Operation.read;
    this.#expected[first] = f64(this.#total, first);
    if (i32(this.#next, first) < 0 && requests.segmentCount[first] === 1) {
      const place = i32(requests.segmentStart, first);
      const address = f64(requests.segmentAddress, place);
      const length = u32(requests.segmentLength, place);
      if (isRead) {
        this.#engine.prepareRead(first, offset, address, length);
      } else {
        this.#engine.prepareWrite(first, offset, address, length);
      }
      return;
    }
    const vector = first * requests.segmentsPerSlot * 16;
    const count = this.#fillVector(first, vector / 4);
    if (isRead) {
      this.#engine.prepareReadVector(first, offset, this.#vectors.address + vector, count);
    } else {
      this.#engine.prepareWriteVector(first, offset, this.#vectors.address + vector, count);
    }
  }

  #fillVector(first: number, at: number): number {
    const requests = this.#requests;
    const words = this.#vectors.view;
    let count = 0;
    for (let slot = first; slot >= 0; slot = i32(this.#next, slot)) {
      const start = i32(requests.segmentStart, slot);
      const end = start + i32(requests.segmentCount, slot);
      for (let i = start; i < end; i++) {
        const address = f64(requests.segmentAddress, i);
        const high = high64(address);
        const word = at + count * 4;
        words[word] = address - high * 4294967296;
        words[word + 1] = high;
        words[word + 2] = u32(requests.segmentLength, i);
        words[word + 3] = 0;
        count += 1;
      }
    }
    return count;
  }

  /** Emits the next piece of a bounced I/O, or finishes it when its cipher fails; false when no buffer is free. */
  #emitPiece(first: number): boolean {
    const rest = f64(this.#total, first) - f64(this.#done, first);
    const isMerged = i32(this.#next, first) >= 0;
    let order = BufferPool.orderOf(Math.min(rest, PIECE_BYTES));
    let unit = this.#pool.take(order);
    while (unit < 0 && order > 0 && !isMerged) {
      order -= 1; // a large request makes do with what is there
      unit = this.#pool.take(order);
    }
    if (unit < 0) {
      return false;
    }
    const bytes = Math.min(rest, BufferPool.bytesOf(order));
    this.#unit[first] = unit;
    this.#order[first] = order;
    this.#expected[first] = bytes;
    if (
      this.#requests.operation[first] === Operation.write &&
      !this.#moveSegments(first, bytes, true)
    ) {
      this.#giveBuffer(first);
      this.#finishAll(first, Outcome.ioError);
      return true;
    }
    this.#prepareBounce(first);
    return true;
  }

  #prepareBounce(first: number): void {
    const unit = i32(this.#unit, first);
    const bytes = i32(this.#expected, first);
    const address = this.#pool.addressOf(unit);
    const buffer = this.#pool.registeredBufferOf(unit);
    const offset = f64(this.#requests.sector, first) * SECTOR_BYTES + f64(this.#done, first);
    if (this.#requests.operation[first] === Operation.read) {
      if (buffer >= 0) {
        this.#engine.prepareReadFixed(first, offset, address, bytes, buffer);
      } else {
        this.#engine.prepareRead(first, offset, address, bytes);
      }
    } else if (buffer >= 0) {
      this.#engine.prepareWriteFixed(first, offset, address, bytes, buffer);
    } else {
      this.#engine.prepareWrite(first, offset, address, bytes);
    }
  }

  /** Moves the current piece between the requests' segments and its buffer. */
  #moveSegments(first: number, bytes: number, isGather: boolean): boolean {
    const requests = this.#requests;
    const buffer = this.#pool.addressOf(i32(this.#unit, first));
    const done = f64(this.#done, first);
    let moved = 0;
    let isOk = true;
    for (let slot = first; slot >= 0; slot = i32(this.#next, slot)) {
      // Only an I/O of one request has pieces; a merged one is moved whole.
      const sector = f64(requests.sector, slot) + done / SECTOR_BYTES;
      const part = Math.min(bytes - moved, f64(requests.bytes, slot) - done);
      const isMoved = isGather
        ? this.#copy.gather(slot, sector, buffer + moved, part)
        : this.#copy.scatter(slot, sector, buffer + moved, part);
      isOk = isOk && isMoved;
      moved += part;
    }
    assert(moved === bytes, "a piece is moved whole");
    return isOk;
  }

  /** The I/O moved all it should: go on with the next piece or finish its requests. */
  #advance(first: number): void {
    const bytes = i32(this.#expected, first);
    if (this.#path[first] === Path.bounce) {
      const isRead = this.#requests.operation[first] === Operation.read;
      const isOk = !isRead || this.#moveSegments(first, bytes, false);
      this.#giveBuffer(first);
      if (!isOk) {
        this.#finishAll(first, Outcome.ioError);
        return;
      }
    }
    this.#done[first] = f64(this.#done, first) + bytes;
    this.#retries[first] = 0;
    if (f64(this.#done, first) < f64(this.#total, first)) {
      if (this.#host.isWaiting() || !this.#emitPiece(first)) {
        this.#host.wait(first);
      }
      return;
    }
    this.#finishAll(first, Outcome.ok);
  }

  /** A failed or short transfer: once more for passing causes, then each request on its own, then an error. */
  #recover(first: number, result: number): void {
    const retries = (this.#retries[first] ?? 0) + 1;
    this.#retries[first] = retries;
    if (isPassing(result) && retries <= RETRIES_MAX) {
      if (this.#path[first] === Path.direct) {
        this.#emitDirect(first);
      } else {
        this.#prepareBounce(first);
      }
      return;
    }
    if (this.#path[first] === Path.bounce) {
      this.#giveBuffer(first);
    }
    if (i32(this.#next, first) < 0) {
      this.#host.failed(first, result);
      this.#host.finish(first, Outcome.ioError);
      return;
    }
    let slot = first;
    while (slot >= 0) {
      const next = i32(this.#next, slot);
      this.#startIo(slot, this.#path[first] ?? Path.bounce, f64(this.#requests.bytes, slot));
      this.#emit(slot);
      slot = next;
    }
  }

  #giveBuffer(first: number): void {
    this.#pool.give(i32(this.#unit, first), this.#order[first] ?? 0);
    this.#unit[first] = -1;
  }

  #finishAll(first: number, outcome: number): void {
    let slot = first;
    while (slot >= 0) {
      const next = i32(this.#next, slot);
      this.#host.finish(slot, outcome);
      slot = next;
    }
  }
}
