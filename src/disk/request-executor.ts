/**
 * Carries requests out: from a slot of the request table to I/O and back to an outcome. It knows sectors,
 * segments and buffers, not guests.
 *
 *   admit -> read, write              -> TransferRunner (SubBlockWriter below the disk's block), or
 *                                        InPlaceRunner on memory that is the front end's own
 *            flush                    -> FlushGroup
 *            discard, write zeroes    -> RangeRunner
 *   -> finished list, with outcome
 */
import { assert } from "../errors.ts";
import { f64, i32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { BufferPool } from "./buffer-pool.ts";
import { DoubtfulWrites, Durability } from "./doubtful-writes.ts";
import { FlushGroup } from "./flush-group.ts";
import { InPlaceRunner } from "./in-place-runner.ts";
import { type IoEngine, isPassing, RETRIES_MAX } from "./io-engine.ts";
import { RangeLists } from "./range-lists.ts";
import { RangeRunner } from "./range-runner.ts";
import { Operation, Outcome, type RequestTable } from "./request-table.ts";
import { type SectorCipher, SectorCopy } from "./sector-copy.ts";
import { SlotWaits, Wait } from "./slot-waits.ts";
import { SubBlockWriter } from "./sub-block-writer.ts";
import { TransferRunner } from "./transfer-runner.ts";

/** Ids of the engine above all slots. */
const FLUSH_ID = 0x2000_0000;
const EIO = -5;

/** The disk as the executor sees it. */
export interface ExecutorDisk {
  readonly fd: number;
  /** At the start. */
  readonly sectors: number;
  /** Smallest unit of I/O for offset and length, bytes: 512 or 4096. */
  readonly blockBytes: number;
  /** False where the page cache is used. */
  readonly isDirect: boolean;
  /** Addresses of direct I/O are multiples of this. */
  readonly memoryAlignBytes: number;
  readonly isReadOnly: boolean;
  /** Blocks may be freed. */
  readonly isDiscardOffered: boolean;
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
  /** A sync of the disk failed; no other one begins before this returns. */
  readonly noteSyncFailure?: () => void;
  /** The disk's I/O of the request in this slot failed for good: `result` is a negative errno, or the bytes of a short one. */
  readonly noteFailure?: (slot: number, result: number) => void;
  /** Is told what requests wait for, in case anybody looks. */
  readonly waits?: SlotWaits;
  /** Keeps read-modify-writes of all queues apart: 4 bytes. */
  readonly subBlockLock: SharedArrayBuffer;
  /**
   * Each request's memory is one segment that is the front end's own: I/O and cipher work in it. By slot, the
   * registered buffer that it lies in, or -1.
   */
  readonly ownBuffers?: Int32Array | undefined;
}

/** Takes requests by slot and tells when they are finished: what a front end needs of a disk. */
export interface RequestRunner extends Disposable {
  /** Slots whose outcome is known, in the order of their ends; the front end empties it. */
  readonly finished: Int32Array;
  finishedCount: number;
  /** Ranges of the discards and write-zeroes that were admitted. */
  readonly lists: RangeLists;
  /**
   * Takes a request whose columns are filled. Reads and writes lie inside the disk and are whole sectors
   * (the front end has answered others); `flushBatch` must follow before the engine is entered.
   */
  admit(slot: number): void;
  /** Before requests are taken from the front end. Once a batch. */
  beforeTaking(): void;
  /** Before and after the ends of what is in `finished` are shown to the front end; before, outcomes may change. */
  beforeAnswers(): void;
  afterAnswers(): void;
  /** Handles a completion whose id is not a watch. */
  complete(id: number, result: number): void;
  /** Ends a batch: what still waited for others is handed to the engine. Once a turn. */
  flushBatch(): void;
  /** From now on a write is durable when it is finished, or not. Without requests under way. */
  setWriteThrough(isWriteThrough: boolean): void;
  /** The disk is larger from now on. Requests under way are not touched by it. */
  grow(sectors: number): void;
}

export class RequestExecutor implements RequestRunner {
  readonly finished: Int32Array;
  finishedCount = 0;
  readonly lists: RangeLists;

  readonly #engine: IoEngine;
  readonly #disk: ExecutorDisk;
  readonly #requests: RequestTable;
  readonly #pool: BufferPool;
  readonly #flushes: FlushGroup;
  readonly #doubtful: DoubtfulWrites;
  readonly #ranges: RangeRunner;
  readonly #subBlocks: SubBlockWriter;
  readonly #transfers: TransferRunner | InPlaceRunner;
  /** I/O that waits for a buffer, first come first served: a circle. */
  readonly #waiting: Int32Array;
  readonly #noteFailure: (slot: number, result: number) => void;
  readonly #waits: SlotWaits;
  #waitingHead = 0;
  #waitingCount = 0;
  #isWriteThrough = false;
  /** Writes are durable by a sync of their own, not by themselves. */
  #areWritesSynced = false;
  #syncRetries = 0;
  /** Why flushes fail: what the last sync of this queue met, or EIO for one of another queue. */
  #syncResult = EIO;

  constructor(options: ExecutorOptions) {
    const { engine, disk, requests, cipher } = options;
    const slots = requests.slotsMax;
    this.#noteFailure = options.noteFailure ?? (() => {});
    this.#waits = options.waits ?? SlotWaits.unseen(slots);
    this.#engine = engine;
    this.#disk = disk;
    this.#requests = requests;
    const copy = new SectorCopy(requests, cipher);
    this.#pool = new BufferPool(options.bufferLimitBytes, (chunk, address, length) =>
      engine.registerBuffer(chunk, address, length),
    );
    this.finished = new Int32Array(slots);
    this.#flushes = new FlushGroup({
      ...options.flush,
      slotsMax: slots,
      host: {
        startSync: () => engine.prepareSync(FLUSH_ID),
        finish: (slot, isOk) => this.#endFlush(slot, isOk),
        wake: options.wakeQueue,
        noteFailure: options.noteSyncFailure ?? (() => {}),
      },
    });
    this.#doubtful = new DoubtfulWrites({
      flushes: this.#flushes,
      requests,
      durabilityOf: (slot) => this.#durabilityOf(slot),
      failed: (slot) => this.#noteFailure(slot, EIO),
    });
    const sharedLock = options.subBlockLock;
    this.#subBlocks = new SubBlockWriter({ disk, requests, copy, cipher, sharedLock });
    this.lists = new RangeLists(requests, disk.sectors);
    this.#ranges = new RangeRunner({
      engine,
      disk,
      requests,
      lists: this.lists,
      cipher,
      pool: this.#pool,
      subBlocks: this.#subBlocks,
      isWaiting: () => this.#waitingCount > 0,
      failed: this.#noteFailure,
    });
    this.#transfers = this.#openTransfers(options, copy);
    this.#waiting = new Int32Array(slots);
  }

  /** Bytes of bounce buffers mapped so far. */
  get bufferBytes(): number {
    return this.#pool.sizeBytes;
  }

  admit(slot: number): void {
    const operation = this.#requests.operation[slot];
    if (operation === Operation.read || operation === Operation.write) {
      this.#admitTransfer(slot);
    } else if (operation === Operation.flush) {
      this.#admitFlush(slot);
    } else if (this.#disk.isNull) {
      this.#finish(slot, Outcome.ok);
    } else {
      const outcome = this.lists.load(slot);
      if (outcome === Outcome.ok) {
        this.startRanges(slot, false);
      } else {
        this.#finish(slot, outcome);
      }
    }
  }

  /**
   * Takes a discard or write zeroes whose list is loaded.
   * @param mustLeaveZeros of a discard: what was there before must not show
   */
  startRanges(slot: number, mustLeaveZeros: boolean): void {
    this.#settleRange(slot, this.#ranges.start(slot, mustLeaveZeros));
  }

  /**
   * A write is made durable by itself (DSYNC), or by a sync behind it that others may share. Of writes through the page
   * cache only the latter is certain: the kernel tells of what it could not write back to the first that asks, and that
   * may be another write's DSYNC.
   */
  setWriteThrough(isWriteThrough: boolean, mustBeSynced = false): void {
    const isDurable = isWriteThrough && !mustBeSynced && this.#disk.isDirect;
    this.#isWriteThrough = isWriteThrough;
    this.#areWritesSynced = isWriteThrough && !isDurable;
    this.#engine.setWriteThrough(isDurable);
    this.#subBlocks.setWriteThrough(isDurable);
  }

  grow(sectors: number): void {
    this.lists.grow(sectors);
  }

  beforeTaking(): void {
    this.#doubtful.look();
  }

  /** @param finished whose ends are shown, where that is not this executor's own list */
  beforeAnswers(finished = this.finished, count = this.finishedCount): void {
    this.#doubtful.beforeAnswers(finished, count);
  }

  afterAnswers(): void {
    this.#doubtful.afterAnswers();
  }

  flushBatch(): void {
    this.#transfers.endBatch();
    this.#flushes.advance();
  }

  complete(id: number, result: number): void {
    if (id === FLUSH_ID) {
      this.#settleSync(result);
      return;
    }
    const operation = this.#requests.operation[id];
    if (operation === Operation.discard || operation === Operation.writeZeroes) {
      this.#settleRange(id, this.#ranges.complete(id, result));
    } else {
      this.#transfers.complete(id, result);
    }
    if (this.#waitingCount > 0) {
      this.#emitWaiting();
    }
  }

  /**
   * Wipes and unmaps the buffers. After a failure with requests under way it leaves them as they are: the
   * kernel may still write from them, and zeros on the disk are worse than buffers that end with the process.
   */
  [Symbol.dispose](): void {
    if (this.#requests.inFlight === 0) {
      this.releaseMemory();
    }
  }

  /** For a table that others use as well: none of the requests under way is this executor's. */
  releaseMemory(): void {
    this.#pool[Symbol.dispose]();
    this.#transfers[Symbol.dispose]();
    this.lists[Symbol.dispose]();
    this.#subBlocks[Symbol.dispose]();
  }

  // --- internal ---

  #openTransfers(options: ExecutorOptions, copy: SectorCopy): TransferRunner | InPlaceRunner {
    const { engine, disk, requests, cipher, ownBuffers } = options;
    const finish = (slot: number, outcome: number) => this.#settleTransfer(slot, outcome);
    if (ownBuffers !== undefined) {
      const failed = this.#noteFailure;
      const registeredBuffer = ownBuffers;
      return new InPlaceRunner({ engine, requests, cipher, registeredBuffer, finish, failed });
    }
    return new TransferRunner({
      engine,
      requests,
      copy,
      pool: this.#pool,
      host: {
        finish,
        failed: this.#noteFailure,
        wait: (slot) => this.#wait(slot),
        isWaiting: () => this.#waitingCount > 0,
      },
      isPlain: cipher === undefined,
      blockBytes: disk.blockBytes,
      memoryAlignBytes: disk.memoryAlignBytes,
    });
  }

  #admitTransfer(slot: number): void {
    const bytes = f64(this.#requests.bytes, slot);
    if (bytes === 0 || this.#disk.isNull) {
      this.#finish(slot, Outcome.ok);
      return;
    }
    if (this.#disk.blockBytes > SECTOR_BYTES && !this.#isBlockAligned(slot)) {
      this.#runSubBlocks(slot);
      return;
    }
    this.#transfers.start(slot);
  }

  #runSubBlocks(slot: number): void {
    const result = this.#subBlocks.run(slot);
    if (result !== 0) {
      this.#noteFailure(slot, result);
    }
    this.#settleTransfer(slot, result === 0 ? Outcome.ok : Outcome.ioError);
  }

  #admitFlush(slot: number): void {
    if (this.#disk.isNull || this.#disk.isReadOnly) {
      this.#finish(slot, Outcome.ok);
    } else {
      this.#flushes.request(slot, true);
    }
  }

  #isBlockAligned(slot: number): boolean {
    const block = this.#disk.blockBytes;
    const offset = f64(this.#requests.sector, slot) * SECTOR_BYTES;
    return offset % block === 0 && f64(this.#requests.bytes, slot) % block === 0;
  }

  #finish(slot: number, outcome: number): void {
    this.#requests.outcome[slot] = outcome;
    this.finished[this.finishedCount] = slot;
    this.finishedCount += 1;
  }

  #settleTransfer(slot: number, outcome: number): void {
    const isWrite = this.#requests.operation[slot] === Operation.write;
    if (isWrite && outcome === Outcome.ok && this.#isWriteSynced(slot)) {
      this.#awaitSync(slot);
    } else {
      this.#finish(slot, outcome);
    }
  }

  #isWriteSynced(slot: number): boolean {
    return this.#areWritesSynced || this.#requests.isDurable[slot] === 1;
  }

  /** As a request that changes the disk is answered at the end of it. */
  #durabilityOf(slot: number): number {
    const isWrite = this.#requests.operation[slot] === Operation.write;
    if (isWrite ? this.#isWriteSynced(slot) : this.#isWriteThrough) {
      return Durability.bySync;
    }
    return this.#isWriteThrough ? Durability.byItself : Durability.byFlush;
  }

  /** A request that is done is answered when a sync has made it durable. */
  #awaitSync(slot: number): void {
    this.#waits.begin(slot, Wait.sync);
    this.#flushes.request(slot, false);
  }

  #endFlush(slot: number, isOk: boolean): void {
    this.#waits.end(slot);
    if (!isOk) {
      this.#noteFailure(slot, this.#syncResult);
    }
    this.#finish(slot, isOk ? Outcome.ok : Outcome.ioError);
  }

  #settleSync(result: number): void {
    if (result < 0 && isPassing(result) && this.#syncRetries < RETRIES_MAX) {
      this.#syncRetries += 1;
      this.#engine.prepareSync(FLUSH_ID);
      return;
    }
    this.#syncRetries = 0;
    this.#syncResult = result < 0 ? result : EIO;
    this.#flushes.ended(result >= 0);
  }

  #settleRange(slot: number, state: number): void {
    if (state === RangeRunner.NO_BUFFER) {
      this.#wait(slot);
    } else if (state === Outcome.ok && this.#isWriteThrough) {
      this.#awaitSync(slot); // fallocate has no durable form of its own
    } else if (state !== RangeRunner.UNDER_WAY) {
      this.#finish(slot, state);
    }
  }

  #wait(slot: number): void {
    assert(this.#waitingCount < this.#waiting.length, "every request waits at most once");
    this.#waits.begin(slot, Wait.buffer);
    this.#waiting[(this.#waitingHead + this.#waitingCount) % this.#waiting.length] = slot;
    this.#waitingCount += 1;
  }

  #emitWaiting(): void {
    while (this.#waitingCount > 0) {
      const slot = i32(this.#waiting, this.#waitingHead);
      const operation = this.#requests.operation[slot];
      if (operation === Operation.read || operation === Operation.write) {
        if (!this.#transfers.resume(slot)) {
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
    this.#waits.end(i32(this.#waiting, this.#waitingHead));
    this.#waitingHead = (this.#waitingHead + 1) % this.#waiting.length;
    this.#waitingCount -= 1;
  }
}
