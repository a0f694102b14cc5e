/**
 * Notes which requests of a packed ring are under way, in memory that outlives this process (layout:
 * formats/inflight-region.ts). Their descriptors are copied, since used ones are written over them. Killed
 * between any two of its stores, it leaves a region from which the successor can tell what was answered:
 *
 *   take      copies, number, counter, "in flight" | free_head | old_free_head     taken with the last of these
 *   prepare   links of the free list | free_head | used_idx, used_wrap_counter
 *   (the ring shows the batch, with one store)                                     answered with this one
 *   settle    the batch out of flight | old_free_head | old_used_idx, old_used_wrap_counter
 *
 * Between `prepare` and the end of `settle` free_head and old_free_head differ, and so do the positions: then the
 * descriptor at the old position tells whether the batch was shown. A push changes nothing before `prepare`, so that
 * what is taken meanwhile finds the two heads equal.
 * Cost: about 5 ns a request and 3 ns a descriptor; without a region a compare.
 */
import { viewOf } from "../ffi/memory.ts";
import { i32, u16 } from "../ffi/view.ts";
import {
  PACKED_ENTRY,
  PACKED_ENTRY_BYTES,
  PACKED_FIELD,
  PACKED_HEADER_BYTES,
  packedRegionBytes,
} from "../formats/inflight-region.ts";
import { LAP_BIT, PLACE_MASK } from "../formats/packed-ring.ts";
import { DESCRIPTOR_BYTES } from "../formats/virtio-ring.ts";

const DESCRIPTOR_WORDS = DESCRIPTOR_BYTES / 4;
const ENTRY_WORDS = PACKED_ENTRY_BYTES / 4;
const ENTRY_HALVES = PACKED_ENTRY_BYTES / 2;
const FIRST_WORD = PACKED_HEADER_BYTES / 4;
const FIRST_HALF = PACKED_HEADER_BYTES / 2;
const NEXT = FIRST_HALF + PACKED_ENTRY.next / 2;
const LAST = FIRST_HALF + PACKED_ENTRY.last / 2;
const NUMBER = FIRST_HALF + PACKED_ENTRY.number / 2;
const COUNTER = FIRST_WORD + PACKED_ENTRY.counter / 4;
const TAIL = FIRST_WORD + PACKED_ENTRY.id / 4;
const LENGTH = FIRST_WORD + PACKED_ENTRY.length / 4;
const ADDRESS = FIRST_WORD + PACKED_ENTRY.address / 4;

/** What is known of a region when a ring starts: our own copy, since the region is not ours alone. */
export interface PackedNotes {
  /** Entries that the region holds. */
  readonly entries: number;
  /** The next entry of each, of the free list or of its chain. */
  readonly next: Uint16Array;
  readonly freeHead: number;
  /** Of the next request. */
  readonly counter: bigint;
}

export class PackedInflight {
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Int32Array;
  readonly #next: Uint16Array;
  readonly #last: Uint16Array;
  readonly #id: Uint16Array;
  readonly #batch: Uint16Array;
  #batchCount = 0;
  #freeHead: number;
  #counterLow: number;
  #counterHigh: number;

  /** @param address of a region that `recoverPacked` has put in order */
  constructor(address: number, notes: PackedNotes) {
    const { entries } = notes;
    const region = viewOf(address, packedRegionBytes(entries));
    this.#bytes = new Uint8Array(region);
    this.#halves = new Uint16Array(region);
    this.#words = new Int32Array(region);
    this.#next = notes.next;
    this.#last = new Uint16Array(entries);
    this.#id = new Uint16Array(entries);
    this.#batch = new Uint16Array(entries);
    this.#freeHead = notes.freeHead;
    this.#counterLow = Number(notes.counter & 0xffff_ffffn);
    this.#counterHigh = Number((notes.counter >> 32n) & 0xffff_ffffn);
  }

  /** A chain that the region knows already. */
  adopt(entry: number, last: number, id: number): void {
    this.#last[entry] = last;
    this.#id[entry] = id;
  }

  /** A chain of `count` descriptors from `place` on was taken. The entry that stands for it. */
  take(ring: Int32Array, place: number, count: number, id: number): number {
    const head = this.#freeHead;
    let from = place * DESCRIPTOR_WORDS;
    let entry = head;
    let last = head;
    for (let i = 0; i < count; i++) {
      const to = entry * ENTRY_WORDS;
      this.#words[TAIL + to] = i32(ring, from + 3);
      this.#words[LENGTH + to] = i32(ring, from + 2);
      this.#words[ADDRESS + to] = i32(ring, from);
      this.#words[ADDRESS + to + 1] = i32(ring, from + 1);
      last = entry;
      entry = u16(this.#next, entry);
      from += DESCRIPTOR_WORDS;
      from = from === ring.length ? 0 : from;
    }
    this.adopt(head, last, id);
    this.#halves[LAST + head * ENTRY_HALVES] = last;
    this.#halves[NUMBER + head * ENTRY_HALVES] = count;
    this.#words[COUNTER + head * ENTRY_WORDS] = this.#counterLow;
    this.#words[COUNTER + head * ENTRY_WORDS + 1] = this.#counterHigh;
    this.#bytes[PACKED_HEADER_BYTES + head * PACKED_ENTRY_BYTES] = 1;
    this.#halves[PACKED_FIELD.freeHead / 2] = entry;
    this.#halves[PACKED_FIELD.oldFreeHead / 2] = entry;
    this.#freeHead = entry;
    this.#counterLow = (this.#counterLow + 1) >>> 0;
    if (this.#counterLow === 0) {
      this.#counterHigh = (this.#counterHigh + 1) >>> 0;
    }
    return head;
  }

  /** A used descriptor was added for the chain of this entry. Its id. */
  push(entry: number): number {
    this.#batch[this.#batchCount] = entry;
    this.#batchCount += 1;
    return u16(this.#id, entry);
  }

  /** The ring is about to show the batch, and then goes on at `position`. */
  prepare(position: number): void {
    for (let i = 0; i < this.#batchCount; i++) {
      const entry = u16(this.#batch, i);
      const last = u16(this.#last, entry);
      this.#next[last] = this.#freeHead;
      this.#halves[NEXT + last * ENTRY_HALVES] = this.#freeHead;
      this.#freeHead = entry;
    }
    this.#halves[PACKED_FIELD.freeHead / 2] = this.#freeHead;
    this.#halves[PACKED_FIELD.usedPlace / 2] = position & PLACE_MASK;
    this.#bytes[PACKED_FIELD.usedLap] = position & LAP_BIT ? 1 : 0;
  }

  /** The ring has shown the batch. */
  settle(position: number): void {
    for (let i = 0; i < this.#batchCount; i++) {
      this.#bytes[PACKED_HEADER_BYTES + u16(this.#batch, i) * PACKED_ENTRY_BYTES] = 0;
    }
    this.#batchCount = 0;
    this.#halves[PACKED_FIELD.oldFreeHead / 2] = this.#freeHead;
    this.#halves[PACKED_FIELD.oldUsedPlace / 2] = position & PLACE_MASK;
    this.#bytes[PACKED_FIELD.oldUsedLap] = position & LAP_BIT ? 1 : 0;
  }
}
