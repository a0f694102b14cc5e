/**
 * Which stripes a request touches, and where in them it has got to: columns by slot, and by slot and range.
 *
 *   range    |.. first: in part ..|== whole ==|== whole ==|.. last: in part ..|
 *
 * What lies before a slot's place (range, stripe in it) is done; ranges behind it begin with their first stripe.
 */
import { assert } from "../errors.ts";
import { f64, i32 } from "../ffi/view.ts";

export class RequestRanges {
  readonly #rangesMax: number;
  readonly #stripeSectors: number;
  #diskSectors: number;
  readonly #count: Int32Array;
  readonly #areApart: Uint8Array;
  readonly #atRange: Int32Array;
  readonly #atStripe: Float64Array;
  readonly #first: Float64Array;
  readonly #last: Float64Array;
  readonly #firstWhole: Float64Array;
  readonly #lastWhole: Float64Array;

  constructor(options: {
    readonly slotsMax: number;
    readonly rangesMax: number;
    readonly stripeSectors: number;
    readonly diskSectors: number;
  }) {
    const { slotsMax, rangesMax } = options;
    this.#rangesMax = rangesMax;
    this.#stripeSectors = options.stripeSectors;
    this.#diskSectors = options.diskSectors;
    this.#count = new Int32Array(slotsMax);
    this.#areApart = new Uint8Array(slotsMax);
    this.#atRange = new Int32Array(slotsMax);
    this.#atStripe = new Float64Array(slotsMax);
    this.#first = new Float64Array(slotsMax * rangesMax);
    this.#last = new Float64Array(slotsMax * rangesMax);
    this.#firstWhole = new Float64Array(slotsMax * rangesMax);
    this.#lastWhole = new Float64Array(slotsMax * rangesMax);
  }

  /** Ranges that are added from here on may lie in a larger disk. Others keep what is whole of them. */
  grow(diskSectors: number): void {
    this.#diskSectors = diskSectors;
  }

  begin(slot: number): void {
    this.#count[slot] = 0;
    this.#areApart[slot] = 1;
  }

  /** A range inside the disk. An empty one is nothing. */
  add(slot: number, sector: number, sectorCount: number): void {
    const size = this.#stripeSectors;
    const end = sector + sectorCount;
    assert(end <= this.#diskSectors, "a request is checked against the disk before");
    if (sectorCount === 0) {
      return;
    }
    const range = i32(this.#count, slot);
    assert(range < this.#rangesMax, "ranges are counted before");
    const place = slot * this.#rangesMax + range;
    this.#count[slot] = range + 1;
    this.#first[place] = Math.floor(sector / size);
    this.#last[place] = Math.floor((end - 1) / size);
    this.#firstWhole[place] = Math.ceil(sector / size);
    // The last stripe of the disk may be short, and is whole all the same.
    this.#lastWhole[place] =
      (end === this.#diskSectors ? Math.ceil(end / size) : Math.floor(end / size)) - 1;
    if (range > 0 && f64(this.#first, place) <= f64(this.#last, place - 1)) {
      this.#areApart[slot] = 0;
    }
  }

  count(slot: number): number {
    return i32(this.#count, slot);
  }

  /** The ranges ascend and no two touch one stripe. */
  areApart(slot: number): boolean {
    return this.#areApart[slot] === 1;
  }

  first(slot: number, range: number): number {
    return f64(this.#first, slot * this.#rangesMax + range);
  }

  last(slot: number, range: number): number {
    return f64(this.#last, slot * this.#rangesMax + range);
  }

  /** Whether the range covers all of the stripe. */
  isWhole(slot: number, range: number, stripe: number): boolean {
    const place = slot * this.#rangesMax + range;
    return stripe >= f64(this.#firstWhole, place) && stripe <= f64(this.#lastWhole, place);
  }

  lastWhole(slot: number, range: number): number {
    return f64(this.#lastWhole, slot * this.#rangesMax + range);
  }

  // The slot's place:

  rewind(slot: number): void {
    this.moveTo(slot, 0, this.first(slot, 0));
  }

  moveTo(slot: number, range: number, stripe: number): void {
    this.#atRange[slot] = range;
    this.#atStripe[slot] = stripe;
  }

  /** The first range that is not done. */
  range(slot: number): number {
    return i32(this.#atRange, slot);
  }

  /** The first stripe of a range that is not done. */
  start(slot: number, range: number): number {
    return range === i32(this.#atRange, slot) ? f64(this.#atStripe, slot) : this.first(slot, range);
  }

  /** The first stripe of a range that is not done and wholly covered. */
  startWhole(slot: number, range: number): number {
    return Math.max(this.start(slot, range), f64(this.#firstWhole, slot * this.#rangesMax + range));
  }
}
