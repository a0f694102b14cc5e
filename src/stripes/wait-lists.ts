/**
 * Requests that wait, by the stripe that each waits for: a list of slots a stripe, found through a hash of the
 * stripe. A slot waits in one list at a time, so all memory is there from the start and nothing is allocated.
 *
 *   buckets --> list --> list (same hash)
 *                |
 *               slot --> slot --> slot (in the order of arrival)
 */
import { SlotWaits, Wait } from "../disk/slot-waits.ts";
import { assert } from "../errors.ts";
import { f64, i32, u8 } from "../ffi/view.ts";

const NONE = -1;

export class WaitLists {
  /** Lists in use: columns below `count`. */
  count = 0;
  /** The stripe's byte when it was last looked at. */
  readonly byte: Uint8Array;
  /** Intents that are still to be told to the stripe worker. */
  readonly untold: Uint8Array;
  /** Intents that were asked for, told or not. */
  readonly asked: Uint8Array;
  readonly #stripe: Float64Array;
  readonly #head: Int32Array;
  readonly #tail: Int32Array;
  readonly #nextInBucket: Int32Array;
  readonly #nextSlot: Int32Array;
  readonly #buckets: Int32Array;
  readonly #waits: SlotWaits;

  /** @param waits is told which stripe each slot waits for */
  constructor(slotsMax: number, waits = SlotWaits.unseen(slotsMax)) {
    this.#waits = waits;
    this.byte = new Uint8Array(slotsMax);
    this.untold = new Uint8Array(slotsMax);
    this.asked = new Uint8Array(slotsMax);
    this.#stripe = new Float64Array(slotsMax);
    this.#head = new Int32Array(slotsMax);
    this.#tail = new Int32Array(slotsMax);
    this.#nextInBucket = new Int32Array(slotsMax);
    this.#nextSlot = new Int32Array(slotsMax);
    this.#buckets = new Int32Array(2 ** Math.ceil(Math.log2(slotsMax + 1))).fill(NONE);
  }

  stripe(list: number): number {
    return f64(this.#stripe, list);
  }

  /** Puts a slot at the end of the stripe's list, which is made with `byte` when there is none. */
  add(slot: number, stripe: number, byte: number): number {
    let list = this.#find(stripe);
    if (list === NONE) {
      list = this.#create(stripe, byte);
      this.#head[list] = slot;
    } else {
      this.#nextSlot[i32(this.#tail, list)] = slot;
    }
    this.#tail[list] = slot;
    this.#nextSlot[slot] = NONE;
    this.#waits.begin(slot, Wait.stripe, stripe);
    return list;
  }

  /** Removes a list, whose place another one takes. Returns its first slot; `next` leads to the others. */
  remove(list: number): number {
    const head = i32(this.#head, list);
    for (let slot = head; slot !== NONE; slot = i32(this.#nextSlot, slot)) {
      this.#waits.end(slot);
    }
    this.#unlink(list);
    const last = this.count - 1;
    if (list !== last) {
      this.#unlink(last);
      this.byte[list] = u8(this.byte, last);
      this.untold[list] = u8(this.untold, last);
      this.asked[list] = u8(this.asked, last);
      this.#head[list] = i32(this.#head, last);
      this.#tail[list] = i32(this.#tail, last);
      this.#stripe[list] = f64(this.#stripe, last);
      this.#link(list);
    }
    this.count = last;
    return head;
  }

  /** The slot behind one of a removed list, or -1. Read it before the slot is added anywhere. */
  next(slot: number): number {
    return i32(this.#nextSlot, slot);
  }

  // --- internal ---

  #bucket(stripe: number): number {
    return Math.imul(stripe, 0x9e37_79b1) & (this.#buckets.length - 1);
  }

  #find(stripe: number): number {
    let list = i32(this.#buckets, this.#bucket(stripe));
    while (list !== NONE && f64(this.#stripe, list) !== stripe) {
      list = i32(this.#nextInBucket, list);
    }
    return list;
  }

  #create(stripe: number, byte: number): number {
    const list = this.count;
    assert(list < this.byte.length, "no more lists than slots");
    this.count = list + 1;
    this.#stripe[list] = stripe;
    this.byte[list] = byte;
    this.untold[list] = 0;
    this.asked[list] = 0;
    this.#link(list);
    return list;
  }

  #link(list: number): void {
    const bucket = this.#bucket(f64(this.#stripe, list));
    this.#nextInBucket[list] = i32(this.#buckets, bucket);
    this.#buckets[bucket] = list;
  }

  #unlink(list: number): void {
    const bucket = this.#bucket(f64(this.#stripe, list));
    const first = i32(this.#buckets, bucket);
    if (first === list) {
      this.#buckets[bucket] = i32(this.#nextInBucket, list);
      return;
    }
    let before = first;
    while (i32(this.#nextInBucket, before) !== list) {
      before = i32(this.#nextInBucket, before);
    }
    this.#nextInBucket[before] = i32(this.#nextInBucket, list);
  }
}
