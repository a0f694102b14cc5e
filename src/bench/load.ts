/**
 * The measured workloads: reads or writes of one size, in order or at random, with flushes between.
 * Nothing here allocates once it runs; latencies are from the turn that started a request to the turn
 * that found it ended, so one reading of the clock serves a batch.
 */
import { fillMemory } from "../ffi/memory.ts";
import { REQUEST_TYPE, SECTOR_BYTES, STATUS } from "../formats/virtio-blk.ts";
import type { DriverQueue } from "./driver-queue.ts";
import type { Progress } from "./progress.ts";
import { Random } from "./random.ts";
import { type BlockRange, blockSector } from "./range.ts";
import type { SlotTable } from "./slots.ts";
import type { Statistics } from "./statistics.ts";
import type { MeasuringWindow } from "./window.ts";
import type { Work } from "./work.ts";

export type LoadKind = "randread" | "randwrite" | "read" | "write";

export interface LoadOptions {
  readonly kind: LoadKind;
  readonly range: BlockRange;
  readonly seed: number;
  /** A flush behind that many writes; 0 = none. */
  readonly flushEvery: number;
  readonly slots: SlotTable;
  readonly statistics: Statistics;
  readonly window: MeasuringWindow;
  readonly progress: Progress;
}

export class Load implements Work {
  readonly #options: LoadOptions;
  readonly #random: Random;
  readonly #type: number;
  readonly #isRandom: boolean;
  readonly #blockBytes: number;
  #nextBlock = 0;
  #writesSinceFlush = 0;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#isRandom = options.kind.startsWith("rand");
    this.#type = options.kind.endsWith("read") ? REQUEST_TYPE.IN : REQUEST_TYPE.OUT;
    this.#blockBytes = options.range.blockSectors * SECTOR_BYTES;
  }

  start(queue: DriverQueue, slot: number, nowNs: number): boolean {
    const { window, flushEvery, slots, range } = this.#options;
    if (window.isOver) {
      return false;
    }
    if (flushEvery > 0 && this.#writesSinceFlush >= flushEvery) {
      this.#writesSinceFlush = 0;
      slots.start(queue, slot, REQUEST_TYPE.FLUSH, 0, 0, nowNs);
      return true;
    }
    if (this.#type === REQUEST_TYPE.OUT) {
      this.#writesSinceFlush += 1;
    }
    const sector = blockSector(range, this.#chooseBlock());
    slots.start(queue, slot, this.#type, sector, this.#blockBytes, nowNs);
    return true;
  }

  finish(queue: DriverQueue, slot: number, status: number, nowNs: number): void {
    const { slots, statistics, window } = this.#options;
    const place = slots.place(queue, slot);
    if (status !== STATUS.OK) {
      statistics.recordFailure(slots.type(place), slots.sector(place), status);
      window.close(nowNs);
    } else if (window.isOpen) {
      const latencyNs = nowNs - slots.startNs(place);
      statistics.record(slots.type(place), slots.lengthBytes(place), latencyNs);
    }
  }

  turn(nowNs: number): void {
    const { window, progress, statistics, kind } = this.#options;
    window.turn(nowNs);
    progress.show(kind, window.progress(nowNs), statistics.operations, nowNs);
  }

  #chooseBlock(): number {
    const { blockCount } = this.#options.range;
    if (this.#isRandom) {
      return this.#random.below(blockCount);
    }
    const block = this.#nextBlock;
    this.#nextBlock = block + 1 === blockCount ? 0 : block + 1;
    return block;
  }
}

/** Gives all buffers contents that are not zeros, which some disks store in their own way. */
export function fillBuffers(queues: readonly DriverQueue[]): void {
  for (const queue of queues) {
    for (let slot = 0; slot < queue.shape.depth; slot++) {
      fillMemory(queue.dataAddress(slot), 0x51 + slot, queue.shape.dataBytesMax);
    }
  }
}
