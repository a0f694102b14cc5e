/**
 * What each request of a queue waits for besides the disk itself, in memory that other threads look at when a request
 * has become old. Only who begins or ends such a wait writes here, so a request that waits for nothing costs nothing.
 *
 *   words   | wait, by slot | stripe, by slot |
 *
 * Stores are plain ones, as those of the statistics: a reader may see one a moment late.
 */
import { i32 } from "../ffi/view.ts";

export const Wait = {
  /** The disk has it. */
  none: 0,
  /** For a free buffer. */
  buffer: 1,
  /** For a sync of the disk that makes a write durable. */
  sync: 2,
  /** For a stripe: its fetch, or its state in the metadata. */
  stripe: 3,
  /** For the image, which a read of a stripe that is not fetched goes to. */
  image: 4,
} as const;

export class SlotWaits {
  readonly #words: Int32Array;
  readonly #slots: number;

  constructor(shared: SharedArrayBuffer, slots: number) {
    this.#words = new Int32Array(shared);
    this.#slots = slots;
  }

  /** With nobody to look at them. */
  static unseen(slots: number): SlotWaits {
    return new SlotWaits(new SharedArrayBuffer(SlotWaits.sharedBytes(slots)), slots);
  }

  static sharedBytes(slots: number): number {
    return slots * 2 * 4;
  }

  begin(slot: number, wait: number, stripe = 0): void {
    this.#words[this.#slots + slot] = stripe | 0;
    this.#words[slot] = wait;
  }

  end(slot: number): void {
    this.#words[slot] = Wait.none;
  }

  wait(slot: number): number {
    return i32(this.#words, slot);
  }

  /** Of a wait for a stripe. */
  stripe(slot: number): number {
    return i32(this.#words, this.#slots + slot) >>> 0;
  }
}
