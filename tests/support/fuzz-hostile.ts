/**
 * The hostile half of a fuzzing guest: descriptors, indirect tables, headers and ranges made of the words of
 * `fuzz-layout.ts`. It needs only the memory, so that a second thread can go on changing it (`ring-mutator.ts`).
 */
import {
  guestAddress,
  HOSTILE,
  HOSTILE_ADDRESSES,
  HOSTILE_BYTES,
  HOSTILE_COUNTS,
  HOSTILE_FLAGS,
  HOSTILE_HEADER_COUNT,
  HOSTILE_HEADERS,
  HOSTILE_LENGTHS,
  HOSTILE_RANGE_COUNT,
  HOSTILE_RANGE_FLAGS,
  HOSTILE_RANGES,
  HOSTILE_SECTORS,
  HOSTILE_TABLE_COUNT,
  HOSTILE_TABLE_ENTRIES,
  HOSTILE_TABLE_LENGTHS,
  HOSTILE_TABLES,
  HOSTILE_TYPES,
} from "./fuzz-layout.ts";
import type { Descriptor } from "./fuzz-ring.ts";
import type { SeededRandom } from "./random.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const TABLE_STRIDE = HOSTILE_TABLE_ENTRIES * 16;

/** Headers at addresses that a descriptor may name: the first of the list. */
const HEADER_ADDRESSES = HOSTILE_ADDRESSES.slice(0, 12);

export class HostileHalf {
  /** How tables are written: in a packed ring flags lie in the upper half of a descriptor's last word. */
  isPacked = false;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #random: SeededRandom;

  /** @param memory the guest's file, all of it */
  constructor(memory: ArrayBuffer, random: SeededRandom) {
    this.#words = new Uint32Array(memory);
    this.#bytes = new Uint8Array(memory);
    this.#random = random;
  }

  /** Payload everywhere: bytes that are no part of any address or sector of the trusted half. */
  reset(): void {
    this.#bytes.fill(0xff, HOSTILE, HOSTILE + HOSTILE_BYTES);
    for (let i = 0; i < HOSTILE_HEADER_COUNT; i++) {
      this.changeHeader(i);
    }
    for (let i = 0; i < HOSTILE_RANGE_COUNT; i++) {
      this.changeRange(i);
    }
    for (let table = 0; table < HOSTILE_TABLE_COUNT; table++) {
      this.changeTable(table);
    }
  }

  /** Bytes that the argument of `fuzz-layout.ts` forbids: there must be none at any time. */
  forbiddenBytes(): number {
    let count = 0;
    for (const byte of this.#bytes.subarray(HOSTILE, HOSTILE + HOSTILE_BYTES)) {
      count += byte >= 0x40 && byte <= 0x7f ? 1 : 0;
    }
    return count;
  }

  changeHeader(index: number): void {
    const [low, high] = this.#pick(HOSTILE_SECTORS, [0, 0]);
    this.#store(HOSTILE_HEADERS + index * 16, this.#pick(HOSTILE_TYPES, 0), 0xffffffff, low, high);
  }

  changeRange(index: number): void {
    const [low, high] = this.#pick(HOSTILE_SECTORS, [0, 0]);
    const count = this.#pick(HOSTILE_COUNTS, 0);
    const flags = this.#pick(HOSTILE_RANGE_FLAGS, 0);
    this.#store(HOSTILE_RANGES + index * 16, low, high, count, flags);
  }

  /** What might be a request, with something wrong here and there; or anything at all. */
  changeTable(table: number): void {
    const offset = HOSTILE_TABLES + table * TABLE_STRIDE;
    const length = this.#random.between(1, 8);
    if (this.#random.oneIn(2)) {
      this.#request(length, (i, address, bytes, flags) => {
        this.#descriptor(offset + i * 16, address, bytes, flags, i + 1);
      });
      return;
    }
    for (let i = 0; i < length; i++) {
      this.changeEntry(table, i);
    }
  }

  changeEntry(table: number, entry: number): void {
    const next = this.#random.below(HOSTILE_TABLE_ENTRIES / 8);
    this.#anything(HOSTILE_TABLES + table * TABLE_STRIDE + entry * 16, next);
  }

  /** A descriptor of the ring from `low` up: its chain goes on among those from `low` to beyond `end`. */
  changeRingEntry(index: number, low: number, end: number): void {
    this.#anything(index * 16, this.#random.between(low, end + 2));
  }

  /** A chain like a request's in the ring's descriptors from `first` to below `end`. */
  makeChain(first: number, end: number): void {
    if (this.#random.oneIn(4)) {
      this.#indirect(first * 16);
      return;
    }
    this.#request(Math.min(this.#random.between(1, 6), end - first), (i, address, bytes, flags) => {
      this.#descriptor((first + i) * 16, address, bytes, flags, first + i + 1);
    });
  }

  /** A chain like a request's, or of anything, for a ring that links by itself. */
  anyDescriptors(count: number): readonly Descriptor[] {
    const chain: Descriptor[] = [];
    const add = (_: number, address: number, length: number, flags: number) => {
      chain.push({ address, length, flags });
    };
    const kind = this.#random.below(4);
    if (kind === 0) {
      add(0, this.#tableAddress(), this.#pick(HOSTILE_TABLE_LENGTHS, 48), INDIRECT);
    } else if (kind === 1) {
      for (let i = 0; i < count; i++) {
        add(i, this.#address(), this.#pick(HOSTILE_LENGTHS, 0), this.#pick(HOSTILE_FLAGS, 0));
      }
    } else {
      this.#request(count, add);
    }
    return chain;
  }

  // --- internal ---

  /** Header, data, status, and one of them wrong as often as not. */
  #request(
    count: number,
    write: (i: number, address: number, bytes: number, flags: number) => void,
  ): void {
    const random = this.#random;
    const isRead = random.oneIn(2);
    for (let i = 0; i < count; i++) {
      const isLast = i === count - 1;
      const link = isLast ? 0 : NEXT;
      if (random.oneIn(6)) {
        write(i, this.#address(), this.#pick(HOSTILE_LENGTHS, 0), this.#pick(HOSTILE_FLAGS, 0));
      } else if (i === 0) {
        write(i, this.#pick(HEADER_ADDRESSES, 0), 16, link);
      } else if (isLast) {
        write(i, this.#address(), 1, WRITE);
      } else {
        write(i, this.#address(), random.pick([512, 512, 1024, 16]), (isRead ? WRITE : 0) | link);
      }
    }
  }

  #anything(offset: number, next: number): void {
    if (this.#random.oneIn(10)) {
      this.#indirect(offset);
      return;
    }
    const [length, flags] = [this.#pick(HOSTILE_LENGTHS, 0), this.#pick(HOSTILE_FLAGS, 0)];
    this.#descriptor(offset, this.#address(), length, flags, next);
  }

  #indirect(offset: number): void {
    const length = this.#pick(HOSTILE_TABLE_LENGTHS, 48);
    this.#descriptor(offset, this.#tableAddress(), length, INDIRECT, 0);
  }

  #tableAddress(): number {
    const table = HOSTILE_TABLES + this.#random.below(HOSTILE_TABLE_COUNT) * TABLE_STRIDE;
    return this.#random.oneIn(10) ? this.#address() : guestAddress(table);
  }

  #address(): number {
    return this.#pick(HOSTILE_ADDRESSES, 0);
  }

  #descriptor(offset: number, address: number, length: number, flags: number, next: number): void {
    const high = Math.floor(address / 2 ** 32);
    const last = this.isPacked ? next | (flags << 16) : flags | (next << 16);
    this.#store(offset, address - high * 2 ** 32, high, length, last);
  }

  #store(offset: number, ...words: readonly number[]): void {
    words.forEach((word, i) => {
      this.#words[offset / 4 + i] = word;
    });
  }

  #pick<T>(choices: readonly T[], otherwise: T): T {
    return choices[this.#random.below(choices.length)] ?? otherwise;
  }
}
