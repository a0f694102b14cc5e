/**
 * A packed ring of a fuzzing guest. Its hostile chains are of hostile descriptors, but as many as their flags say: a
 * driver that lies about that has only lost count itself.
 */
import {
  availableBits,
  EVENTS_AT,
  EVENTS_MASK,
  EVENTS_NONE,
  needPackedEvent,
  OWNER_MASK,
  usedBits,
} from "../../src/formats/packed-ring.ts";
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

const LAP = 0x8000;
const NEXT = 1;
const INDIRECT = 4;
const NOT_SHOWN = -1;

export class PackedFuzzRing implements FuzzRing {
  readonly isPacked = true;
  readonly entries: number;
  readonly base: number;
  readonly #shape: RingShape;
  readonly #random: SeededRandom;
  readonly #words: Uint32Array;
  readonly #signed: Int32Array;
  #place: number;
  #lap: number;
  #usedPlace: number;
  #usedLap: number;
  #free: number;
  #pending = 0;
  /** Descriptors of the chain that is used by an id, 0 where there is none. */
  readonly #counts = new Uint16Array(0x10000);
  /** The last word of the first descriptor since the last `show`, which is stored last, and where. */
  #firstTail = 0;
  #firstPlace = NOT_SHOWN;
  #shownPosition: number;
  #hidden = 0;

  constructor(memory: ArrayBuffer, shape: RingShape, random: SeededRandom) {
    this.entries = random.pick([64, 100, 256, 333, 1024]);
    this.#shape = shape;
    this.#random = random;
    this.#words = new Uint32Array(memory);
    this.#signed = new Int32Array(memory);
    this.#place = random.pick([0, this.entries - 1, random.below(this.entries)]);
    this.#lap = random.pick([LAP, LAP, 0]);
    this.#usedPlace = this.#place;
    this.#usedLap = this.#lap;
    this.#free = this.entries;
    this.base = this.#place | this.#lap;
    this.#shownPosition = this.base;
    for (let i = 0; i < this.entries; i++) {
      const lap = i < this.#place ? this.#lap : this.#lap ^ LAP;
      this.#signed[i * 4 + 3] = usedBits(lap); // as the driver before this one left it
    }
    this.#words[AVAILABLE / 4] = shape.isPolling ? EVENTS_NONE : 0;
    this.#words[USED / 4] = 0;
  }

  /** Both positions are where the next chain goes. */
  get endBase(): number {
    const position = this.#place | this.#lap;
    return position * 0x10000 + position;
  }

  get pending(): number {
    return this.#pending;
  }

  get mutableFrom(): number {
    return this.entries;
  }

  beginBatch(): void {
    // Descriptors follow each other.
  }

  hasRoom(descriptors: number): boolean {
    return descriptors <= this.#free;
  }

  put(chain: readonly Descriptor[], tableOffset: number | undefined): number {
    if (tableOffset === undefined) {
      return this.#add(chain);
    }
    const address = guestAddress(tableOffset);
    return this.#add([{ address, length: chain.length * 16, flags: INDIRECT }]);
  }

  putHostile(half: HostileHalf): readonly number[] {
    const chain = half.anyDescriptors(this.#random.between(1, 5));
    return this.hasRoom(chain.length) ? [this.#add(chain)] : [];
  }

  show(): boolean {
    if (this.#firstPlace === NOT_SHOWN) {
      return false;
    }
    const position = this.#shownPosition;
    const moved = this.#hidden;
    Atomics.store(this.#signed, this.#firstPlace * 4 + 3, this.#firstTail);
    this.#firstPlace = NOT_SHOWN;
    this.#hidden = 0;
    this.#shownPosition = this.#place | this.#lap;
    const events = Atomics.load(this.#signed, USED / 4);
    const kind = events & EVENTS_MASK;
    if (kind === EVENTS_AT) {
      return needPackedEvent(events, this.entries, position, moved);
    }
    return kind !== EVENTS_NONE;
  }

  arm(): void {
    if (this.#shape.hasEventIndex) {
      Atomics.store(this.#signed, AVAILABLE / 4, EVENTS_AT | this.#usedPlace | this.#usedLap);
    }
  }

  hasUsed(): boolean {
    const tail = Atomics.load(this.#signed, this.#usedPlace * 4 + 3);
    return this.#pending > 0 && (tail & OWNER_MASK) === usedBits(this.#usedLap);
  }

  takeUsed(): UsedChain {
    const at = this.#usedPlace * 4;
    const id = (this.#words[at + 3] ?? 0) & 0xffff;
    const length = this.#words[at + 2] ?? 0;
    const count = this.#counts[id] ?? 0;
    if (count === 0) {
      throw new Error(`id ${id} is used, which no chain has`);
    }
    this.#counts[id] = 0;
    this.#free += count;
    this.#pending -= 1;
    this.#usedPlace += count;
    if (this.#usedPlace >= this.entries) {
      this.#usedPlace -= this.entries;
      this.#usedLap ^= LAP;
    }
    return { id, length };
  }

  /** A chain that goes round the whole ring and on. */
  spoil(): void {
    let [place, lap] = [this.#place, this.#lap];
    for (let i = 0; i < this.entries; i++) {
      this.#signed[place * 4 + 3] = (NEXT << 16) | availableBits(lap);
      place += 1;
      if (place === this.entries) {
        place = 0;
        lap ^= LAP;
      }
    }
  }

  scramble(): void {
    for (let i = 0; i < this.entries * 4; i++) {
      this.#words[i] = this.#random.below(2 ** 32);
    }
  }

  // --- internal ---

  #add(chain: readonly Descriptor[]): number {
    const id = this.#freeId();
    chain.forEach((descriptor, i) => {
      const isLast = i + 1 === chain.length;
      const flags = (descriptor.flags & ~NEXT) | (isLast ? 0 : NEXT);
      // The id counts in the last one only.
      const tail = (isLast ? id : this.#random.below(0x10000)) | (flags << 16);
      const owned = (tail & ~OWNER_MASK) | availableBits(this.#lap);
      const isHidden = this.#firstPlace === NOT_SHOWN;
      if (isHidden) {
        this.#firstPlace = this.#place;
        this.#firstTail = owned;
      }
      const old = this.#signed[this.#place * 4 + 3] ?? 0;
      writeDescriptor(this.#words, this.#place * 16, descriptor, isHidden ? old : owned);
      this.#place += 1;
      if (this.#place === this.entries) {
        this.#place = 0;
        this.#lap ^= LAP;
      }
    });
    this.#counts[id] = chain.length;
    this.#free -= chain.length;
    this.#hidden += chain.length;
    this.#pending += 1;
    return id;
  }

  /** Drivers number chains as they like. */
  #freeId(): number {
    for (;;) {
      const id = this.#random.below(0x10000);
      if (this.#counts[id] === 0) {
        return id;
      }
    }
  }
}
