/** A split ring of a fuzzing guest: checked chains in the lower half of its descriptors, hostile ones in the upper. */
import { needEvent, ringLayout } from "../../src/formats/virtio-ring.ts";
import type { HostileHalf } from "./fuzz-hostile.ts";
import { AVAILABLE, guestAddress, USED } from "./fuzz-layout.ts";
import {
  type Descriptor,
  type FuzzRing,
  type RingShape,
  type UsedChain,
  writeDescriptor,
} from "./fuzz-ring.ts";
import type { SeededRandom } from "./random.ts";

const NEXT = 1;
const INDIRECT = 4;

export class SplitFuzzRing implements FuzzRing {
  readonly isPacked = false;
  readonly entries: number;
  readonly base: number;
  readonly #shape: RingShape;
  readonly #random: SeededRandom;
  readonly #words: Uint32Array;
  readonly #halves: Uint16Array;
  /** Descriptors for checked chains in no order, and how many of them are taken. */
  readonly #places: readonly number[];
  #taken = 0;
  /** Free-running indexes: of the next chain, the last that was shown, and the next used element. */
  #next: number;
  #shown: number;
  #lastUsed: number;

  constructor(memory: ArrayBuffer, shape: RingShape, random: SeededRandom) {
    this.entries = random.pick([64, 128, 256, 256, 1024]);
    this.base = random.pick([0, random.below(0x10000), 0xfff0]);
    this.#shape = shape;
    this.#random = random;
    this.#words = new Uint32Array(memory);
    this.#halves = new Uint16Array(memory);
    const half = Array.from({ length: this.entries / 2 }, (_, i) => i);
    this.#places = shuffled(half, random);
    this.#next = this.base;
    this.#shown = this.base;
    this.#lastUsed = this.base;
    this.#halves.fill(0, AVAILABLE / 2, USED / 2 + 2 + this.entries * 4 + 1);
    this.#halves[AVAILABLE / 2] = shape.isPolling ? 1 : 0;
    this.#halves[AVAILABLE / 2 + 1] = this.base;
    this.#halves[USED / 2 + 1] = this.base;
  }

  get endBase(): number {
    return this.#next;
  }

  get pending(): number {
    return (this.#next - this.#lastUsed) & 0xffff;
  }

  get mutableFrom(): number {
    return this.entries / 2;
  }

  beginBatch(): void {
    this.#taken = 0;
  }

  hasRoom(descriptors: number): boolean {
    return this.#taken + descriptors <= this.#places.length && this.pending < this.entries;
  }

  put(chain: readonly Descriptor[], tableOffset: number | undefined): number {
    const count = tableOffset === undefined ? chain.length : 1;
    const places = this.#places.slice(this.#taken, this.#taken + count);
    this.#taken += count;
    const [head = 0] = places;
    if (tableOffset === undefined) {
      chain.forEach((descriptor, i) => {
        const next = places[i + 1];
        const link = next === undefined ? 0 : NEXT | (next << 16);
        writeDescriptor(this.#words, (places[i] ?? 0) * 16, descriptor, descriptor.flags | link);
      });
    } else {
      const table = { address: guestAddress(tableOffset), length: chain.length * 16, flags: 0 };
      writeDescriptor(this.#words, head * 16, table, INDIRECT);
    }
    this.#offer(head);
    return head;
  }

  putHostile(half: HostileHalf): readonly number[] {
    const random = this.#random;
    const middle = this.entries / 2;
    const times = random.oneIn(40) ? 3 : 1;
    if (this.pending + times > this.entries) {
      return [];
    }
    let head = middle + random.below(middle);
    if (random.oneIn(30)) {
      head = this.entries + random.below(0x10000 - this.entries);
    } else if (!random.oneIn(4)) {
      half.makeChain(head, this.entries);
    }
    const heads = Array.from({ length: times }, () => head);
    for (const each of heads) {
      this.#offer(each);
    }
    return heads;
  }

  show(): boolean {
    const before = this.#shown;
    this.#shown = this.#next;
    Atomics.store(this.#halves, AVAILABLE / 2 + 1, this.#next);
    if (this.#shape.hasEventIndex) {
      const { availableEventOffset } = ringLayout(this.entries);
      const event = Atomics.load(this.#halves, (USED + availableEventOffset) / 2);
      return needEvent(event, this.#next, before);
    }
    return (Atomics.load(this.#halves, USED / 2) & 1) === 0;
  }

  arm(): void {
    if (this.#shape.hasEventIndex) {
      const { usedEventOffset } = ringLayout(this.entries);
      Atomics.store(this.#halves, (AVAILABLE + usedEventOffset) / 2, this.#lastUsed);
    }
  }

  hasUsed(): boolean {
    const count = (Atomics.load(this.#halves, USED / 2 + 1) - this.#lastUsed) & 0xffff;
    if (count > this.pending) {
      throw new Error(`the used index is ${count} ahead with ${this.pending} chains offered`);
    }
    return count > 0;
  }

  takeUsed(): UsedChain {
    const place = USED / 4 + 1 + (this.#lastUsed & (this.entries - 1)) * 2;
    this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
    return { id: this.#words[place] ?? -1, length: this.#words[place + 1] ?? -1 };
  }

  /** An index that is further ahead than the ring holds. */
  spoil(): void {
    const index = this.#next + this.#random.between(this.entries + 1, 0xffff);
    Atomics.store(this.#halves, AVAILABLE / 2 + 1, index & 0xffff);
  }

  scramble(): void {
    for (let i = 0; i < this.entries * 4; i++) {
      this.#words[i] = this.#random.below(2 ** 32);
    }
    Atomics.store(this.#halves, AVAILABLE / 2 + 1, (this.#next + this.entries / 2) & 0xffff);
  }

  // --- internal ---

  #offer(head: number): void {
    this.#halves[AVAILABLE / 2 + 2 + (this.#next & (this.entries - 1))] = head;
    this.#next = (this.#next + 1) & 0xffff;
  }
}

function shuffled(values: number[], random: SeededRandom): number[] {
  for (let i = values.length - 1; i > 0; i--) {
    const other = random.below(i + 1);
    [values[i], values[other]] = [values[other] ?? 0, values[i] ?? 0];
  }
  return values;
}
