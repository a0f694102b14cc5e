/**
 * Notes which requests of a split ring are under way, in memory that outlives this process (layout:
 * formats/inflight-region.ts). Killed between any two of its stores, it leaves a region from which the
 * successor can tell what was answered:
 *
 *   take     counter, then "in flight"                            -> done again when the I/O never was
 *   push     next, last_batch_head                                -> still in flight: its answer was not shown
 *   publish  used index of the ring | the batch out of flight | used_idx
 *                                   ^ killed from here on: the two indexes differ, and the list tells the batch
 *
 * The order of these stores is that of the program: the used index of the ring is stored atomically between the
 * second line and the rest, and nothing is moved across that.
 * Cost: about 5 ns a request; without a region a compare.
 */
import { viewOf } from "../ffi/memory.ts";
import { u16 } from "../ffi/view.ts";
import {
  ENTRY_FIELD,
  REGION_FIELD,
  SPLIT_ENTRY_BYTES,
  SPLIT_HEADER_BYTES,
  splitRegionBytes,
} from "../formats/inflight-region.ts";

const ENTRY_WORDS = SPLIT_ENTRY_BYTES / 4;
const ENTRY_HALVES = SPLIT_ENTRY_BYTES / 2;
const FIRST_WORD = SPLIT_HEADER_BYTES / 4;
const FIRST_NEXT = (SPLIT_HEADER_BYTES + ENTRY_FIELD.next) / 2;
const LAST_BATCH_HEAD = REGION_FIELD.lastBatchHead / 2;
const USED_INDEX = REGION_FIELD.usedIndex / 2;
const COUNTER_WORD = ENTRY_FIELD.counter / 4;

export class SplitInflight {
  readonly #entries: number;
  readonly #halves: Uint16Array;
  readonly #words: Uint32Array;
  /** Heads pushed since the last publication; our own list, the region is not ours alone. */
  readonly #batch: Uint16Array;
  readonly #batchMask: number;
  #batchCount = 0;
  #lastBatchHead: number;
  #counterLow: number;
  #counterHigh: number;

  /**
   * @param address of a region that `recoverSplit` has put in order
   * @param entries that the region holds; at least those of the ring
   * @param counter of the next request
   */
  constructor(address: number, entries: number, ringEntries: number, counter: bigint) {
    const region = viewOf(address, splitRegionBytes(entries));
    this.#entries = ringEntries;
    this.#halves = new Uint16Array(region);
    this.#words = new Uint32Array(region);
    this.#batch = new Uint16Array(ringEntries);
    this.#batchMask = ringEntries - 1;
    this.#lastBatchHead = u16(this.#halves, LAST_BATCH_HEAD);
    this.#counterLow = Number(counter & 0xffff_ffffn);
    this.#counterHigh = Number((counter >> 32n) & 0xffff_ffffn);
  }

  /** A chain was taken. Heads that no ring has are answered and not noted. */
  take(head: number): void {
    if (head >= this.#entries) {
      return;
    }
    const word = FIRST_WORD + head * ENTRY_WORDS;
    this.#words[word + COUNTER_WORD] = this.#counterLow;
    this.#words[word + COUNTER_WORD + 1] = this.#counterHigh;
    this.#words[word] = 1; // the flag and its padding
    this.#counterLow = (this.#counterLow + 1) >>> 0;
    if (this.#counterLow === 0) {
      this.#counterHigh = (this.#counterHigh + 1) >>> 0;
    }
  }

  /** A used element was added. */
  push(head: number): void {
    if (head >= this.#entries) {
      return;
    }
    this.#halves[FIRST_NEXT + head * ENTRY_HALVES] = this.#lastBatchHead;
    this.#halves[LAST_BATCH_HEAD] = head;
    this.#lastBatchHead = head;
    this.#batch[this.#batchCount & this.#batchMask] = head;
    this.#batchCount += 1;
  }

  /** The used index of the ring was stored. */
  publish(usedIndex: number): void {
    const count = this.#batchCount;
    for (let i = 0; i < count; i++) {
      this.#words[FIRST_WORD + u16(this.#batch, i & this.#batchMask) * ENTRY_WORDS] = 0;
    }
    this.#batchCount = 0;
    Atomics.store(this.#halves, USED_INDEX, usedIndex);
  }
}
