/**
 * Carries requests out: from a slot of the request table to I/O and back to an outcome. It knows sectors,
 * segments and buffers, not guests.
 *
 *   admit -> merge with its neighbour -> direct: one vectored I/O on the segments themselves
 *                                     -> bounce: gather/encipher -> I/O on a registered buffer -> decipher/scatter
 *                                        (in pieces of at most PIECE_BYTES, one after another)
 *            flush -> FlushGroup        discard, write zeroes -> RangeRunner
 *   -> finished list, with outcome
 *
 * An I/O is named by its first request's slot; further requests of a merged I/O hang on `#next`. Buffers
 * belong to the I/O from emission until its completion was handled. Direct I/O uses the guest's own memory:
 * the front end keeps it mapped until the request is finished.
 *
 * Cost: about 60 ns a request besides the cipher and the kernel; no allocation.
 */
import { assert } from "../errors.ts";
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { f64, high64, i32, u32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { BufferPool } from "./buffer-pool.ts";
import { FlushGroup } from "./flush-group.ts";
import type { IoEngine } from "./io-engine.ts";
import { RangeRunner } from "./range-runner.ts";
import { Operation, Outcome, type RequestTable } from "./request-table.ts";
import { type SectorCipher, SectorCopy } from "./sector-copy.ts";
import { SubBlockWriter } from "./sub-block-writer.ts";

/** Ids of the engine above all slots. */
const FLUSH_ID = 0x2000_0000;

/** The largest bounced piece and the largest merged I/O. */
const PIECE_BYTES = 256 * 1024;
/** The largest I/O that goes to guest memory in one call. */
const DIRECT_BYTES_MAX = 4 * 2 ** 20;
/** Below this a copy is cheaper than letting the kernel look up the guest's pages. */
const DIRECT_BYTES_MIN = 32 * 1024;
const RETRIES_MAX = 3;
const EINTR = -4;
const EAGAIN = -11;

const Path = { direct: 0, bounce: 1 } as const;

/** The disk as the executor sees it. */
export interface ExecutorDisk {
  readonly fd: number;
  readonly sectors: number;
  /** Smallest unit of I/O for offset and length, bytes: 512 or 4096. */
  readonly blockBytes: number;
  /** Addresses of direct I/O are multiples of this. */
  readonly memoryAlignBytes: number;
  readonly isReadOnly: boolean;
  /** Completes at once without any I/O: for measuring the front end alone. */
  readonly isNull: boolean;
}

export interface ExecutorOptions {
  readonly engine: IoEngine;
  readonly disk: ExecutorDisk;
  readonly cipher: SectorCipher | undefined;
  readonly requests: RequestTable;
  readonly bufferLimitBytes: number;
  readonly flush: {
    readonly shared: SharedArrayBuffer;
    readonly queue: number;
    readonly queues: number;
  };
  readonly wakeQueue: (queue: number) => void;
  /** Keeps read-modify-writes of all queues apart: 4 bytes. */
  readonly subBlockLock: SharedArrayBuffer;
}

export class RequestExecutor implements Disposable {
  /** Slots whose outcome is known, in the order of their ends; the front end empties it. */
  readonly finished: Int32Array;
  finishedCount = 0;

  readonly #engine: IoEngine;
  readonly #disk: ExecutorDisk;
  readonly #requests: RequestTable;
  readonly #copy: SectorCopy;
  readonly #pool: BufferPool;
  readonly #flushes: FlushGroup;
  readonly #ranges: RangeRunner;
  readonly #subBlocks: SubBlockWriter;
  readonly #isPlain: boolean;
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
  /** I/O that waits for a buffer, first come first served: a circle. */
  readonly #waiting: Int32Array;
  #waitingHead = 0;
  #waitingCount = 0;
  /** The I/O that the next request may still join. */
  #pending = -1;
  #isWriteThrough = false;

  constructor(options: ExecutorOptions) {
    const { engine, disk, requests, cipher } = options;
    const slots = requests.slotsMax;
    this.#engine = engine;
    this.#disk = disk;
    this.#requests = requests;
    this.#isPlain = cipher === undefined;
    this.#copy = new SectorCopy(requests, cipher);
    this.#pool = new BufferPool(options.bufferLimitBytes, (chunk, address, length) =>
      engine.registerBuffer(chunk, address, length),
    );
    this.finished = new Int32Array(slots);
    this.#flushes = new FlushGroup({
      ...options.flush,
      slotsMax: slots,
      host: {
        startSync: () => engine.prepareSync(FLUSH_ID),
        finish: (slot, isOk) => this.#finish(slot, isOk ? Outcome.ok : Outcome.ioError),
        wake: options.wakeQueue,
      },
    });
    this.#ranges = new RangeRunner({ engine, disk, requests, cipher, pool: this.#pool });
    this.#subBlocks = new SubBlockWriter(disk, requests, this.#copy, options.subBlockLock);
    this.#arena = new Arena(slots * requests.segmentsPerSlot * 16 + 4096);
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
    this.#waiting = new Int32Array(slots);
  }

  /** Bytes of bounce buffers mapped so far. */
  get bufferBytes(): number {
    return this.#pool.sizeBytes;
  }

  /**
   * Takes a request whose columns are filled. Reads and writes lie inside the disk and are whole sectors
   * (the front end has answered others); `flushBatch` must follow before the engine is entered.
   */
  admit(slot: number): void {
    const operation = this.#requests.operation[slot];
    if (operation === Operation.read || operation === Operation.write) {
      this.#admitTransfer(slot, operation);
    } else if (operation === Operation.flush) {
      this.#admitFlush(slot);
    } else if (this.#disk.isNull) {
      this.#finish(slot, Outcome.ok);
    } else {
      this.#settleRange(slot, this.#ranges.start(slot));
    }
  }

  /** From now on a write is durable when it is finished, or not. Without requests under way. */
  setWriteThrough(isWriteThrough: boolean): void {
    this.#isWriteThrough = isWriteThrough;
    this.#engine.setWriteThrough(isWriteThrough);
    this.#subBlocks.setWriteThrough(isWriteThrough);
  }

  /** Ends a batch: what still waited for a neighbour is emitted, flushes are started. */
  flushBatch(): void {
    if (this.#pending >= 0) {
      this.#emit(this.#pending);
      this.#pending = -1;
    }
    this.#flushes.advance();
  }

  /** Handles a completion whose id is not a watch. */
  complete(id: number, result: number): void {
    if (id === FLUSH_ID) {
      this.#flushes.ended(result >= 0);
      return;
    }
    const operation = this.#requests.operation[id];
    if (operation === Operation.discard || operation === Operation.writeZeroes) {
      this.#settleRange(id, this.#ranges.complete(id, result));
    } else if (result === this.#expected[id]) {
      this.#advance(id);
    } else {
      this.#recover(id, result);
    }
    if (this.#waitingCount > 0) {
      this.#emitWaiting();
    }
  }

  /** Wipes and unmaps the buffers. No request may be under way. */
  [Symbol.dispose](): void {
    this.#pool[Symbol.dispose]();
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #admitTransfer(slot: number, operation: number): void {
    const bytes = f64(this.#requests.bytes, slot);
    if (bytes === 0 || this.#disk.isNull) {
      this.#finish(slot, Outcome.ok);
      return;
    }
    if (this.#disk.blockBytes > SECTOR_BYTES && !this.#isBlockAligned(slot)) {
      this.#finish(slot, this.#subBlocks.run(slot) ? Outcome.ok : Outcome.ioError);
      return;
    }
    const path = this.#pathOf(slot, bytes);
    if (this.#pending >= 0 && this.#join(slot, operation, path, bytes)) {
      return;
    }
    if (this.#pending >= 0) {
      this.#emit(this.#pending);
    }
    this.#pending = slot;
    this.#startIo(slot, path, bytes);
  }

  #admitFlush(slot: number): void {
    if (this.#disk.isNull || this.#disk.isReadOnly) {
      this.#finish(slot, Outcome.ok);
    } else {
      this.#flushes.request(slot);
    }
  }

  #isBlockAligned(slot: number): boolean {
    const block = this.#disk.blockBytes;
    const offset = f64(this.#requests.sector, slot) * SECTOR_BYTES;
    return offset % block === 0 && f64(this.#requests.bytes, slot) % block === 0;
  }

  #pathOf(slot: number, bytes: number): number {
    const isDirect =
      this.#isPlain &&
      bytes >= DIRECT_BYTES_MIN &&
      bytes <= DIRECT_BYTES_MAX &&
      i32(this.#requests.segmentCount, slot) <= this.#requests.segmentsPerSlot &&
      this.#requests.isAligned(slot, this.#disk.memoryAlignBytes, this.#disk.blockBytes);
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
  #join(slot: number, operation: number, path: number, bytes: number): boolean {
    const first = this.#pending;
    const requests = this.#requests;
    const total = f64(this.#total, first);
    const end = f64(requests.sector, first) + total / SECTOR_BYTES;
    if (
      requests.sector[slot] !== end ||
      requests.operation[first] !== operation ||
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
    } else if (this.#waitingCount > 0 || !this.#emitPiece(first)) {
      this.#wait(first);
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
      if (this.#waitingCount > 0 || !this.#emitPiece(first)) {
        this.#wait(first);
      }
      return;
    }
    this.#finishAll(first, Outcome.ok);
  }

  /** A failed or short transfer: once more for passing causes, then each request on its own, then an error. */
  #recover(first: number, result: number): void {
    const isPassing = result === EINTR || result === EAGAIN || result >= 0;
    const retries = (this.#retries[first] ?? 0) + 1;
    this.#retries[first] = retries;
    if (isPassing && retries <= RETRIES_MAX) {
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
      this.#finish(first, Outcome.ioError);
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
      this.#finish(slot, outcome);
      slot = next;
    }
  }

  #finish(slot: number, outcome: number): void {
    this.#requests.outcome[slot] = outcome;
    this.finished[this.finishedCount] = slot;
    this.finishedCount += 1;
  }

  #settleRange(slot: number, state: number): void {
    if (state === RangeRunner.NO_BUFFER) {
      this.#wait(slot);
    } else if (state === Outcome.ok && this.#isWriteThrough) {
      this.#flushes.request(slot); // fallocate has no durable form of its own
    } else if (state !== RangeRunner.UNDER_WAY) {
      this.#finish(slot, state);
    }
  }

  #wait(slot: number): void {
    assert(this.#waitingCount < this.#waiting.length, "every request waits at most once");
    this.#waiting[(this.#waitingHead + this.#waitingCount) % this.#waiting.length] = slot;
    this.#waitingCount += 1;
  }

  #emitWaiting(): void {
    while (this.#waitingCount > 0) {
      const slot = i32(this.#waiting, this.#waitingHead);
      const operation = this.#requests.operation[slot];
      if (operation === Operation.read || operation === Operation.write) {
        if (!this.#emitPiece(slot)) {
          return;
        }
        this.#dropWaiting();
      } else {
        const state = this.#ranges.resume(slot);
        if (state === RangeRunner.NO_BUFFER) {
          return;
        }
        this.#dropWaiting();
        this.#settleRange(slot, state);
      }
    }
  }

  #dropWaiting(): void {
    this.#waitingHead = (this.#waitingHead + 1) % this.#waiting.length;
    this.#waitingCount -= 1;
  }
}
