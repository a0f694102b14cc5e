/**
 * Writes with a journal: every sector carries its block's generation, no two writes of one block are in
 * flight together, and what is acknowledged is recorded. A request that fails or never ends stays
 * unacknowledged: its sectors may hold the old or the new contents.
 */
import type { ArenaView } from "../ffi/arena.ts";
import { copyMemory } from "../ffi/memory.ts";
import { f64, u8 } from "../ffi/view.ts";
import { REQUEST_TYPE, SECTOR_BYTES, STATUS } from "../formats/virtio-blk.ts";
import type { DriverQueue } from "./driver-queue.ts";
import type { JournalWriter } from "./journal.ts";
import type { LoadOptions } from "./load.ts";
import { type Pattern, SECTOR_WORDS } from "./pattern.ts";
import { Random } from "./random.ts";
import { blockSector } from "./range.ts";
import type { Work } from "./work.ts";

/** How often a busy block is answered by choosing another, before waiting for one to end. */
const CHOICES_MAX = 8;

export interface JournaledOptions extends LoadOptions {
  readonly journal: JournalWriter;
  readonly pattern: Pattern;
  /** Room for one block. */
  readonly scratch: ArenaView<Uint32Array>;
  /** Queues times depth. */
  readonly slotCount: number;
}

export class JournaledLoad implements Work {
  readonly #options: JournaledOptions;
  readonly #random: Random;
  readonly #isBusy: Uint8Array;
  /** By place: the block of a write, the number of a flush. */
  readonly #subjects: Float64Array;
  #nextBlock = 0;
  #writesSinceFlush = 0;

  constructor(options: JournaledOptions) {
    this.#options = options;
    this.#random = new Random(options.seed ^ options.journal.history.recordCount);
    this.#isBusy = new Uint8Array(options.range.blockCount);
    this.#subjects = new Float64Array(options.slotCount);
  }

  start(queue: DriverQueue, slot: number, nowNs: number): boolean {
    const { window, flushEvery, slots, journal } = this.#options;
    if (window.isOver) {
      return false;
    }
    const place = slots.place(queue, slot);
    if (flushEvery > 0 && this.#writesSinceFlush >= flushEvery) {
      this.#writesSinceFlush = 0;
      this.#subjects[place] = journal.sendFlush();
      slots.start(queue, slot, REQUEST_TYPE.FLUSH, 0, 0, nowNs);
      return true;
    }
    const block = this.#chooseBlock();
    if (block < 0) {
      return false;
    }
    this.#writesSinceFlush += 1;
    this.#isBusy[block] = 1;
    this.#subjects[place] = block;
    this.#startWrite(queue, slot, block, nowNs);
    return true;
  }

  finish(queue: DriverQueue, slot: number, status: number, nowNs: number): void {
    const { slots, statistics, window, journal } = this.#options;
    const place = slots.place(queue, slot);
    const type = slots.type(place);
    const subject = f64(this.#subjects, place);
    if (type === REQUEST_TYPE.OUT) {
      this.#isBusy[subject] = 0;
    }
    if (status !== STATUS.OK) {
      statistics.recordFailure(type, slots.sector(place), status);
      window.close(nowNs);
      return;
    }
    if (type === REQUEST_TYPE.OUT) {
      journal.acknowledgeWrite(subject);
    } else {
      journal.acknowledgeFlush(subject);
    }
    if (window.isOpen) {
      statistics.record(type, slots.lengthBytes(place), nowNs - slots.startNs(place));
    }
  }

  turn(nowNs: number): void {
    const { window, progress, statistics, journal, kind } = this.#options;
    journal.commit();
    window.turn(nowNs);
    progress.show(kind, window.progress(nowNs), statistics.operations, nowNs);
  }

  // --- internal ---

  /** A block that no write in flight touches, or -1. */
  #chooseBlock(): number {
    const { range, kind } = this.#options;
    for (let choice = 0; choice < CHOICES_MAX; choice++) {
      const block =
        kind === "randwrite"
          ? this.#random.below(range.blockCount)
          : this.#nextBlock % range.blockCount;
      if (u8(this.#isBusy, block) === 0) {
        this.#nextBlock = block + 1;
        return block;
      }
    }
    return -1;
  }

  #startWrite(queue: DriverQueue, slot: number, block: number, nowNs: number): void {
    const { range, pattern, scratch, slots, journal } = this.#options;
    const generation = journal.sendWrite(block);
    const sector = blockSector(range, block);
    for (let i = 0; i < range.blockSectors; i++) {
      pattern.fill(scratch.view, i * SECTOR_WORDS, sector + i, generation);
    }
    const lengthBytes = range.blockSectors * SECTOR_BYTES;
    copyMemory(queue.dataAddress(slot), scratch.address, lengthBytes);
    slots.start(queue, slot, REQUEST_TYPE.OUT, sector, lengthBytes, nowNs);
  }
}
