/**
 * The guest's memory as the front end shared it: a table of regions, sorted by guest address, that
 * translates guest addresses to addresses of this process. Nothing here reads guest memory.
 *
 *   guest   |---- region 0 ----|      |-- region 1 --|-- region 2 --|
 *   host        anywhere                  anywhere       anywhere
 *
 * Cost of a translation: 3 ns when it hits the region of the one before, else a binary search.
 */
import { assert } from "../errors.ts";
import { f64 } from "../ffi/view.ts";

export interface GuestRegion {
  readonly guestAddress: number;
  readonly sizeBytes: number;
  readonly hostAddress: number;
}

/** Regions that a table holds: what GET_MAX_MEM_SLOTS announces. */
export const REGIONS_MAX = 509;

const WORDS = 3;

export class GuestMemory {
  readonly #guest: Float64Array;
  readonly #size: Float64Array;
  readonly #host: Float64Array;
  #count = 0;
  #last = 0;
  #lastGuest = 0;
  #lastSize = 0;
  #lastHost = 0;

  constructor(regionsMax = REGIONS_MAX) {
    this.#guest = new Float64Array(regionsMax);
    this.#size = new Float64Array(regionsMax);
    this.#host = new Float64Array(regionsMax);
  }

  /** Words of Float64 that `store` needs. */
  static sharedWords(regionsMax = REGIONS_MAX): number {
    return 1 + regionsMax * WORDS;
  }

  /** Writes a table for other threads' `load`. The regions do not overlap. */
  static store(shared: Float64Array, regions: readonly GuestRegion[]): void {
    assert(
      GuestMemory.sharedWords(regions.length) <= shared.length,
      "the number of regions is checked before",
    );
    const sorted = regions.toSorted((a, b) => a.guestAddress - b.guestAddress);
    shared[0] = sorted.length;
    sorted.forEach((region, i) => {
      shared[1 + i * WORDS] = region.guestAddress;
      shared[2 + i * WORDS] = region.sizeBytes;
      shared[3 + i * WORDS] = region.hostAddress;
    });
  }

  /** Takes over a stored table. */
  load(shared: Float64Array): void {
    this.#count = f64(shared, 0);
    this.#last = 0;
    this.#lastSize = 0;
    for (let i = 0; i < this.#count; i++) {
      this.#guest[i] = f64(shared, 1 + i * WORDS);
      this.#size[i] = f64(shared, 2 + i * WORDS);
      this.#host[i] = f64(shared, 3 + i * WORDS);
    }
  }

  /** The region that holds `address`, or -1. */
  find(address: number): number {
    const last = this.#last;
    if (last < this.#count) {
      const offset = address - f64(this.#guest, last);
      if (offset >= 0 && offset < f64(this.#size, last)) {
        return last;
      }
    }
    return this.#search(address);
  }

  /** Bytes from `address` to the end of `region`. */
  bytesLeft(region: number, address: number): number {
    return f64(this.#guest, region) + f64(this.#size, region) - address;
  }

  /** The host address of `address` in `region`. */
  hostAddress(region: number, address: number): number {
    return f64(this.#host, region) + (address - f64(this.#guest, region));
  }

  /** The host address of `lengthBytes` at `address` when one region holds them all, else -1. */
  translate(address: number, lengthBytes: number): number {
    // The region of the translation before, without a look at the table: most addresses are there.
    const offset = address - this.#lastGuest;
    if (offset >= 0 && offset + lengthBytes <= this.#lastSize && offset < this.#lastSize) {
      return this.#lastHost + offset;
    }
    const region = this.find(address);
    if (region < 0 || this.bytesLeft(region, address) < lengthBytes) {
      return -1;
    }
    this.#lastGuest = f64(this.#guest, region);
    this.#lastSize = f64(this.#size, region);
    this.#lastHost = f64(this.#host, region);
    return this.hostAddress(region, address);
  }

  // --- internal ---

  #search(address: number): number {
    let low = 0;
    let high = this.#count - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const offset = address - f64(this.#guest, middle);
      if (offset < 0) {
        high = middle - 1;
      } else if (offset >= f64(this.#size, middle)) {
        low = middle + 1;
      } else {
        this.#last = middle;
        return middle;
      }
    }
    return -1;
  }
}
