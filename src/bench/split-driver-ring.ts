/** The driver's side of a split ring: each slot has descriptors of its own, or one that leads to its table. */
import { high64, low64, u32 } from "../ffi/view.ts";
import * as ring from "../formats/virtio-ring.ts";
import {
  brokenRing,
  type DriverRing,
  type DriverRingOptions,
  type LinkKind,
} from "./driver-ring.ts";
import { descriptorsPerSlot, type QueueShape } from "./guest-memory.ts";

const USED_ELEMENT_WORDS = ring.USED_ELEMENT_BYTES / 4;
const DESCRIPTOR_WORDS = ring.DESCRIPTOR_BYTES / 4;

export class SplitDriverRing implements DriverRing {
  readonly base = 0;
  readonly #index: number;
  readonly #shape: QueueShape;
  readonly #usesEventIndex: boolean;
  /** Descriptors of a slot in the ring, and links of its chain at most. */
  readonly #stride: number;
  readonly #linksMax: number;
  readonly #descriptors: Uint32Array;
  /** Where chains are written: the ring's own table, or the tables of all slots behind each other. */
  readonly #chains: Uint32Array;
  readonly #tablesAt: number;
  readonly #available: Uint16Array;
  readonly #usedHalves: Uint16Array;
  readonly #usedWords: Uint32Array;
  #nextAvailable = 0;
  #shownAvailable = 0;
  #lastUsed = 0;
  /** The used index when it was looked at last. */
  #usedIndex = 0;

  constructor(options: DriverRingOptions) {
    const { index, shape, layout, memory, base, usesEventIndex } = options;
    this.#index = index;
    this.#shape = shape;
    this.#usesEventIndex = usesEventIndex;
    this.#linksMax = descriptorsPerSlot(shape);
    this.#stride = shape.isIndirect ? 1 : this.#linksMax;
    const view = memory.view(base, layout.data);
    this.#descriptors = new Uint32Array(view, layout.descriptors, shape.entries * DESCRIPTOR_WORDS);
    this.#chains = shape.isIndirect
      ? new Uint32Array(view, layout.tables, (layout.data - layout.tables) / 4)
      : this.#descriptors;
    this.#tablesAt = memory.guestAddress(base + layout.tables);
    this.#available = new Uint16Array(view, layout.available, shape.entries + 3);
    this.#usedHalves = new Uint16Array(view, layout.used, shape.entries * 4 + 3);
    this.#usedWords = new Uint32Array(view, layout.used, shape.entries * USED_ELEMENT_WORDS + 1);
  }

  lostBase(): number {
    return Atomics.load(this.#usedHalves, 1);
  }

  writeLink(
    slot: number,
    link: number,
    address: number,
    lengthBytes: number,
    kind: LinkKind,
  ): void {
    const word = (slot * this.#linksMax + link) * DESCRIPTOR_WORDS;
    const next = (this.#shape.isIndirect ? 0 : slot * this.#stride) + link + 1;
    const flags = kind.isWritable ? ring.DESCRIPTOR_WRITE : 0;
    store(this.#chains, word, address, lengthBytes);
    this.#chains[word + 3] = kind.isLast ? flags : flags | ring.DESCRIPTOR_NEXT | (next << 16);
  }

  endChain(slot: number, count: number): void {
    if (this.#shape.isIndirect) {
      const table = this.#tablesAt + slot * this.#linksMax * ring.DESCRIPTOR_BYTES;
      store(this.#descriptors, slot * DESCRIPTOR_WORDS, table, count * ring.DESCRIPTOR_BYTES);
      this.#descriptors[slot * DESCRIPTOR_WORDS + 3] = ring.DESCRIPTOR_INDIRECT;
    }
  }

  offer(slot: number): void {
    const place = 2 + (this.#nextAvailable & (this.#shape.entries - 1));
    this.#available[place] = slot * this.#stride;
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
  }

  show(): boolean {
    const before = this.#shownAvailable;
    const next = this.#nextAvailable;
    if (before === next) {
      return false;
    }
    this.#shownAvailable = next;
    Atomics.store(this.#available, 1, next);
    if (this.#usesEventIndex) {
      const event = Atomics.load(this.#usedHalves, this.#shape.entries * 4 + 2);
      return ring.needEvent(event, next, before);
    }
    return (Atomics.load(this.#usedHalves, 0) & ring.USED_NO_NOTIFY) === 0;
  }

  nextUsed(inFlight: number): number {
    if (this.#usedIndex === this.#lastUsed) {
      this.#usedIndex = Atomics.load(this.#usedHalves, 1);
      const count = (this.#usedIndex - this.#lastUsed) & 0xffff;
      if (count > inFlight) {
        throw brokenRing(
          this.#index,
          `used index jumped by ${count} with ${inFlight} requests in flight`,
        );
      }
      if (count === 0) {
        return -1;
      }
    }
    const element = 1 + (this.#lastUsed & (this.#shape.entries - 1)) * USED_ELEMENT_WORDS;
    this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
    return this.#slotOf(u32(this.#usedWords, element));
  }

  arm(): boolean {
    if (this.#usesEventIndex) {
      Atomics.store(this.#available, this.#shape.entries + 2, this.#lastUsed);
    }
    return Atomics.load(this.#usedHalves, 1) !== this.#lastUsed;
  }

  // --- internal ---

  #slotOf(id: number): number {
    const slot = Math.trunc(id / this.#stride);
    if (slot * this.#stride !== id || slot >= this.#shape.depth) {
      throw brokenRing(this.#index, `id ${id} in the used ring is of no request`);
    }
    return slot;
  }
}

function store(words: Uint32Array, word: number, address: number, lengthBytes: number): void {
  words[word] = low64(address);
  words[word + 1] = high64(address);
  words[word + 2] = lengthBytes;
}
