/**
 * Compares a disk with a journal: each sector of a block must hold a generation that was sent, and none
 * older than the last acknowledged one (after a loss of power: than the last flushed one), whole.
 * Blocks without such a write may hold anything.
 */
import { UbiError } from "../errors.ts";
import type { ArenaView } from "../ffi/arena.ts";
import { copyMemory, fillMemory } from "../ffi/memory.ts";
import { f64, u32 } from "../ffi/view.ts";
import { REQUEST_TYPE, SECTOR_BYTES, STATUS } from "../formats/virtio-blk.ts";
import type { DriverQueue } from "./driver-queue.ts";
import type { BlockHistory } from "./journal.ts";
import { type Pattern, readStamp, SECTOR_WORDS } from "./pattern.ts";
import type { Progress } from "./progress.ts";
import { type BlockRange, blockSector } from "./range.ts";
import type { SlotTable } from "./slots.ts";
import type { Statistics } from "./statistics.ts";
import { stampText } from "./sweep.ts";
import type { Work } from "./work.ts";

const POISON = 0xa5;

export interface CheckOptions {
  readonly history: BlockHistory;
  /** Only flushed writes must be there: the machine lost power, not just the backend its life. */
  readonly isPowerLoss: boolean;
  readonly range: BlockRange;
  readonly pattern: Pattern;
  /** Room for one block. */
  readonly scratch: ArenaView<Uint32Array>;
  readonly slots: SlotTable;
  readonly slotCount: number;
  readonly statistics: Statistics;
  readonly progress: Progress;
}

export class JournalCheck implements Work {
  readonly #options: CheckOptions;
  readonly #required: Uint32Array;
  readonly #blocks: Float64Array;
  #nextBlock = 0;
  #checkedBlocks = 0;
  #wrongSectors = 0;
  #failure: UbiError | undefined;

  constructor(options: CheckOptions) {
    this.#options = options;
    const { history, isPowerLoss } = options;
    this.#required = isPowerLoss ? history.flushed : history.acknowledged;
    this.#blocks = new Float64Array(options.slotCount);
  }

  /** The first wrong sector, told with the number of all. */
  get failure(): UbiError | undefined {
    if (this.#failure === undefined || this.#wrongSectors <= 1) {
      return this.#failure;
    }
    const count = `${this.#wrongSectors} sectors are wrong`;
    return new UbiError("E_VERIFY", `${count}; the first: ${this.#failure.message}`);
  }

  get checkedBlocks(): number {
    return this.#checkedBlocks;
  }

  start(queue: DriverQueue, slot: number, nowNs: number): boolean {
    const { range, slots } = this.#options;
    while (this.#nextBlock < range.blockCount && u32(this.#required, this.#nextBlock) === 0) {
      this.#nextBlock += 1;
    }
    const block = this.#nextBlock;
    if (block >= range.blockCount) {
      return false;
    }
    this.#nextBlock += 1;
    this.#blocks[slots.place(queue, slot)] = block;
    const lengthBytes = range.blockSectors * SECTOR_BYTES;
    fillMemory(queue.dataAddress(slot), POISON, lengthBytes);
    slots.start(queue, slot, REQUEST_TYPE.IN, blockSector(range, block), lengthBytes, nowNs);
    return true;
  }

  finish(queue: DriverQueue, slot: number, status: number, nowNs: number): void {
    const { slots, statistics, scratch } = this.#options;
    const place = slots.place(queue, slot);
    if (status !== STATUS.OK) {
      statistics.recordFailure(slots.type(place), slots.sector(place), status);
      return;
    }
    const lengthBytes = slots.lengthBytes(place);
    statistics.record(slots.type(place), lengthBytes, nowNs - slots.startNs(place));
    copyMemory(scratch.address, queue.dataAddress(slot), lengthBytes);
    this.#checkBlock(f64(this.#blocks, place));
  }

  turn(nowNs: number): void {
    const { progress, statistics, range } = this.#options;
    progress.show("check", this.#nextBlock / range.blockCount, statistics.operations, nowNs);
  }

  // --- internal ---

  #checkBlock(block: number): void {
    const { range } = this.#options;
    this.#checkedBlocks += 1;
    for (let i = 0; i < range.blockSectors; i++) {
      const why = this.#wrong(block, blockSector(range, block) + i, i * SECTOR_WORDS);
      if (why !== undefined) {
        this.#wrongSectors += 1;
        this.#failure ??= new UbiError("E_VERIFY", why);
      }
    }
  }

  /** What is wrong with one sector of the scratch buffer. */
  #wrong(block: number, sector: number, offset: number): string | undefined {
    const { pattern, scratch, history } = this.#options;
    const required = u32(this.#required, block);
    const sent = u32(history.sent, block);
    const generation = readStamp(scratch.view, offset)?.generation ?? 0;
    if (generation < required || generation > sent) {
      const kind = required <= u32(history.flushed, block) ? "flushed" : "acknowledged";
      const held = stampText(scratch.view, offset);
      return `sector ${sector}: the ${kind} write of generation ${required} is lost; it holds ${held}`;
    }
    const word = pattern.firstDifference(scratch.view, offset, sector, generation);
    if (word < 0) {
      return undefined;
    }
    const what = pattern.differenceText(scratch.view, offset, word);
    return `sector ${sector} of generation ${generation} differs at ${what}`;
  }
}
