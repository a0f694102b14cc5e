/**
 * Writes or checks the pattern over a whole range, once. Pieces are whole blocks in a scattered order,
 * or, when `isOdd`, of one sector up to a block, with buffers cut at odd bytes. Pieces never overlap,
 * so requests may end in any order.
 */
import { UbiError } from "../errors.ts";
import type { ArenaView } from "../ffi/arena.ts";
import { copyMemory, fillMemory } from "../ffi/memory.ts";
import { REQUEST_TYPE, SECTOR_BYTES, STATUS } from "../formats/virtio-blk.ts";
import type { DriverQueue } from "./driver-queue.ts";
import { BUFFER_SHIFT_BYTES_MAX } from "./guest-memory.ts";
import { type Pattern, readStamp, SECTOR_WORDS } from "./pattern.ts";
import type { Progress } from "./progress.ts";
import { Random } from "./random.ts";
import { type BlockRange, blockSector } from "./range.ts";
import type { SlotTable } from "./slots.ts";
import type { Statistics } from "./statistics.ts";
import type { Work } from "./work.ts";

/** What read buffers hold before: a device that fills none of it is found out. */
const POISON = 0xa5;

export interface SweepOptions {
  readonly direction: "write" | "read";
  readonly range: BlockRange;
  readonly generation: number;
  readonly isOdd: boolean;
  readonly seed: number;
  readonly pattern: Pattern;
  /** Room for one block, shared by all requests. */
  readonly scratch: ArenaView<Uint32Array>;
  readonly slots: SlotTable;
  readonly statistics: Statistics;
  readonly progress: Progress;
}

export class Sweep implements Work {
  readonly #options: SweepOptions;
  readonly #random: Random;
  readonly #stride: number;
  readonly #totalSectors: number;
  #doneSectors = 0;
  #failure: UbiError | undefined;

  constructor(options: SweepOptions) {
    this.#options = options;
    this.#random = new Random(options.seed ^ options.generation);
    this.#stride = scatterStride(options.range.blockCount);
    this.#totalSectors = options.range.blockCount * options.range.blockSectors;
  }

  /** The first thing that was wrong. */
  get failure(): UbiError | undefined {
    return this.#failure;
  }

  start(queue: DriverQueue, slot: number, nowNs: number): boolean {
    if (this.#doneSectors >= this.#totalSectors || this.#failure !== undefined) {
      return false;
    }
    const { range, direction, slots, isOdd } = this.#options;
    const leftSectors = this.#totalSectors - this.#doneSectors;
    const sectors = isOdd
      ? Math.min(leftSectors, 1 + this.#random.below(range.blockSectors))
      : range.blockSectors;
    const sector = isOdd ? range.firstSector + this.#doneSectors : this.#scatteredSector();
    this.#doneSectors += sectors;
    const lengthBytes = sectors * SECTOR_BYTES;
    if (isOdd) {
      this.#cutOddly(queue, slot, lengthBytes);
    } else {
      queue.cut(slot, Math.ceil(lengthBytes / queue.shape.segmentsMax), 0);
    }
    if (direction === "write") {
      this.#fill(sector, sectors);
      copyMemory(queue.dataAddress(slot), this.#options.scratch.address, lengthBytes);
    } else {
      fillMemory(queue.dataAddress(slot), POISON, lengthBytes);
    }
    const type = direction === "write" ? REQUEST_TYPE.OUT : REQUEST_TYPE.IN;
    slots.start(queue, slot, type, sector, lengthBytes, nowNs);
    return true;
  }

  finish(queue: DriverQueue, slot: number, status: number, nowNs: number): void {
    const { slots, statistics, direction, scratch } = this.#options;
    const place = slots.place(queue, slot);
    if (status !== STATUS.OK) {
      statistics.recordFailure(slots.type(place), slots.sector(place), status);
      this.#failure ??= new UbiError("E_BENCH", "a request failed");
      return;
    }
    const lengthBytes = slots.lengthBytes(place);
    statistics.record(slots.type(place), lengthBytes, nowNs - slots.startNs(place));
    if (direction === "read") {
      copyMemory(scratch.address, queue.dataAddress(slot), lengthBytes);
      this.#check(slots.sector(place), lengthBytes / SECTOR_BYTES);
    }
  }

  turn(nowNs: number): void {
    const { progress, statistics, generation, direction } = this.#options;
    const label = `verify: ${direction} ${generation}`;
    const fraction = this.#doneSectors / this.#totalSectors;
    progress.show(label, fraction, statistics.operations, nowNs);
  }

  // --- internal ---

  #scatteredSector(): number {
    const { range } = this.#options;
    const position = this.#doneSectors / range.blockSectors;
    return blockSector(range, mulMod(position, this.#stride, range.blockCount));
  }

  /** An odd number of bytes to a segment, at an odd address: legal for a guest, rare in practice. */
  #cutOddly(queue: DriverQueue, slot: number, lengthBytes: number): void {
    const least = Math.ceil(lengthBytes / queue.shape.segmentsMax);
    const segmentBytes = least + this.#random.below(lengthBytes);
    queue.cut(slot, segmentBytes, this.#random.below(BUFFER_SHIFT_BYTES_MAX));
  }

  #fill(sector: number, sectors: number): void {
    const { pattern, generation, scratch } = this.#options;
    for (let i = 0; i < sectors; i++) {
      pattern.fill(scratch.view, i * SECTOR_WORDS, sector + i, generation);
    }
  }

  #check(sector: number, sectors: number): void {
    const { pattern, generation, scratch } = this.#options;
    for (let i = 0; i < sectors; i++) {
      const offset = i * SECTOR_WORDS;
      const word = pattern.firstDifference(scratch.view, offset, sector + i, generation);
      if (word >= 0) {
        const what = pattern.differenceText(scratch.view, offset, word);
        const held = stampText(scratch.view, offset);
        this.#failure ??= new UbiError(
          "E_VERIFY",
          `sector ${sector + i} of generation ${generation} differs at ${what}; it holds ${held}`,
        );
        return;
      }
    }
  }
}

/** What a sector says of itself, for messages. */
export function stampText(words: Uint32Array, offset: number): string {
  const stamp = readStamp(words, offset);
  return stamp === undefined
    ? "nothing that this program wrote"
    : `generation ${stamp.generation} of sector ${stamp.sector}`;
}

// --- internal ---

/** A step that visits every block once: coprime to the count, and far from 1. */
function scatterStride(blockCount: number): number {
  let stride = Math.max(1, Math.floor(blockCount * 0.618));
  while (gcd(stride, blockCount) !== 1) {
    stride += 1;
  }
  return stride;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

/** `a * b % modulus` for values below 2^32, exact. */
function mulMod(a: number, b: number, modulus: number): number {
  const high = Math.floor(a / 65536);
  const low = a % 65536;
  return (((((high * b) % modulus) * 65536) % modulus) + ((low * b) % modulus)) % modulus;
}
