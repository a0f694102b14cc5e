/**
 * The requests of one queue that are under way, as columns of typed arrays: a request is a slot number.
 * A slot's memory is a list of segments (host address and length); most requests have a few and keep
 * them in the slot's own places, one at a time may have up to SEGMENTS_MAX in the overflow area.
 *
 *   segments  | slot 0: n places | slot 1: n places | ... | overflow: SEGMENTS_MAX places |
 */
import { assert } from "../errors.ts";
import { i32, u32 } from "../ffi/view.ts";

export const Operation = { read: 0, write: 1, flush: 2, discard: 3, writeZeroes: 4 } as const;

export const Outcome = { ok: 0, ioError: 1, unsupported: 2 } as const;

/** No chain is longer: it is the largest ring of the virtio specification (2.7.1). */
export const SEGMENTS_MAX = 32_768;

export class RequestTable {
  readonly slotsMax: number;
  readonly operation: Uint8Array;
  readonly sector: Float64Array;
  /** Length of the request's data, bytes. */
  readonly bytes: Float64Array;
  /** Of a write: 1 when it is finished only once it is durable, whatever holds for others. */
  readonly isDurable: Uint8Array;
  readonly segmentStart: Int32Array;
  readonly segmentCount: Int32Array;
  readonly outcome: Uint8Array;
  readonly segmentAddress: Float64Array;
  readonly segmentLength: Uint32Array;
  readonly segmentsPerSlot: number;
  readonly #free: Int32Array;
  readonly #isTaken: Uint8Array;
  #freeCount: number;
  #overflowSlot = -1;

  constructor(slotsMax: number, segmentsPerSlot: number) {
    this.slotsMax = slotsMax;
    this.segmentsPerSlot = segmentsPerSlot;
    this.operation = new Uint8Array(slotsMax);
    this.sector = new Float64Array(slotsMax);
    this.bytes = new Float64Array(slotsMax);
    this.isDurable = new Uint8Array(slotsMax);
    this.segmentStart = new Int32Array(slotsMax);
    this.segmentCount = new Int32Array(slotsMax);
    this.outcome = new Uint8Array(slotsMax);
    const places = slotsMax * segmentsPerSlot + SEGMENTS_MAX;
    this.segmentAddress = new Float64Array(places);
    this.segmentLength = new Uint32Array(places);
    this.#free = new Int32Array(slotsMax);
    this.#isTaken = new Uint8Array(slotsMax);
    for (let i = 0; i < slotsMax; i++) {
      this.#free[i] = slotsMax - 1 - i;
    }
    this.#freeCount = slotsMax;
  }

  /** Of all columns. */
  get sizeBytes(): number {
    const columns = [this.#free, this.#isTaken, ...Object.values(this)];
    return columns.reduce((sum, each) => sum + (ArrayBuffer.isView(each) ? each.byteLength : 0), 0);
  }

  get inFlight(): number {
    return this.slotsMax - this.#freeCount;
  }

  isTaken(slot: number): boolean {
    return this.#isTaken[slot] === 1;
  }

  /** A free slot with places for `segments`, or -1 when it must wait for another request to end. */
  take(segments: number): number {
    const isLong = segments > this.segmentsPerSlot;
    if (this.#freeCount === 0 || (isLong && this.#overflowSlot >= 0)) {
      return -1;
    }
    this.#freeCount -= 1;
    const slot = i32(this.#free, this.#freeCount);
    this.#isTaken[slot] = 1;
    if (isLong) {
      assert(segments <= SEGMENTS_MAX, "a chain's length is checked before it gets a slot");
      this.#overflowSlot = slot;
    }
    this.segmentStart[slot] = isLong
      ? this.slotsMax * this.segmentsPerSlot
      : slot * this.segmentsPerSlot;
    this.segmentCount[slot] = segments;
    return slot;
  }

  give(slot: number): void {
    assert(this.#isTaken[slot] === 1, "a slot is given back once");
    this.#isTaken[slot] = 0;
    if (slot === this.#overflowSlot) {
      this.#overflowSlot = -1;
    }
    this.#free[this.#freeCount] = slot;
    this.#freeCount += 1;
  }

  /** True when every segment starts and ends on the given multiples (powers of two). */
  isAligned(slot: number, addressAlign: number, lengthAlign: number): boolean {
    const start = i32(this.segmentStart, slot);
    const end = start + i32(this.segmentCount, slot);
    for (let i = start; i < end; i++) {
      if (
        (this.segmentAddress[i] ?? 0) % addressAlign !== 0 ||
        u32(this.segmentLength, i) % lengthAlign !== 0
      ) {
        return false;
      }
    }
    return true;
  }
}
