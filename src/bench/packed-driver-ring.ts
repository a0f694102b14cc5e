/**
 * The driver's side of a packed ring. Chains are kept in the tables of their slots and copied into the ring,
 * wherever it stands, or led to where indirect descriptors are used. The id of a chain is its slot.
 */
import { high64, i32, low64, u16 } from "../ffi/view.ts";
import * as ring from "../formats/packed-ring.ts";
import { DESCRIPTOR_BYTES } from "../formats/virtio-ring.ts";
import {
  brokenRing,
  type DriverRing,
  type DriverRingOptions,
  type LinkKind,
} from "./driver-ring.ts";
import { descriptorsPerSlot, type QueueShape } from "./guest-memory.ts";

const DESCRIPTOR_WORDS = DESCRIPTOR_BYTES / 4;
const TAIL = 3;
const NOTHING = -1;

export class PackedDriverRing implements DriverRing {
  readonly base = ring.FIRST_POSITION * 0x1_0000 + ring.FIRST_POSITION;
  readonly #index: number;
  readonly #shape: QueueShape;
  readonly #usesEventIndex: boolean;
  readonly #linksMax: number;
  readonly #ring: Int32Array;
  readonly #tables: Int32Array;
  readonly #tablesAt: number;
  readonly #driverEvents: Int32Array;
  readonly #deviceEvents: Int32Array;
  /** Links of each slot's chain, and descriptors that it took of the ring when it was offered. */
  readonly #links: Uint16Array;
  readonly #taken: Uint16Array;
  #place = 0;
  #lap: number = ring.LAP_BIT;
  #usedPlace = 0;
  #usedLap: number = ring.LAP_BIT;
  /** The first descriptor of the batch: shown last. */
  #firstAt = NOTHING;
  #firstTail = 0;
  #moved = 0;
  #shownPosition: number = ring.FIRST_POSITION;

  constructor(options: DriverRingOptions) {
    const { index, shape, layout, memory, base, usesEventIndex } = options;
    this.#index = index;
    this.#shape = shape;
    this.#usesEventIndex = usesEventIndex;
    this.#linksMax = descriptorsPerSlot(shape);
    const view = memory.view(base, layout.data);
    this.#ring = new Int32Array(view, layout.descriptors, shape.entries * DESCRIPTOR_WORDS);
    this.#tables = new Int32Array(view, layout.tables, (layout.data - layout.tables) / 4);
    this.#tablesAt = memory.guestAddress(base + layout.tables);
    this.#driverEvents = new Int32Array(view, layout.available, 1);
    this.#deviceEvents = new Int32Array(view, layout.used, 1);
    this.#links = new Uint16Array(shape.depth);
    this.#taken = new Uint16Array(shape.depth);
  }

  /** No more is to be seen in a packed ring: as QEMU, what is said of a fresh one. The backend's notes know better. */
  lostBase(): number {
    return this.base;
  }

  writeLink(
    slot: number,
    link: number,
    address: number,
    lengthBytes: number,
    kind: LinkKind,
  ): void {
    const word = (slot * this.#linksMax + link) * DESCRIPTOR_WORDS;
    this.#tables[word] = low64(address);
    this.#tables[word + 1] = high64(address);
    this.#tables[word + 2] = lengthBytes;
    this.#tables[word + TAIL] = kind.isWritable ? ring.PACKED_WRITE : 0;
  }

  endChain(slot: number, count: number): void {
    this.#links[slot] = count;
  }

  offer(slot: number): void {
    const links = u16(this.#links, slot);
    const table = slot * this.#linksMax * DESCRIPTOR_WORDS;
    if (this.#shape.isIndirect) {
      const address = this.#tablesAt + table * 4;
      const length = links * DESCRIPTOR_BYTES;
      this.#put(low64(address), high64(address), length, slot | ring.PACKED_INDIRECT);
      this.#taken[slot] = 1;
      return;
    }
    for (let link = 0; link < links; link++) {
      const from = table + link * DESCRIPTOR_WORDS;
      const next = link + 1 < links ? ring.PACKED_NEXT : 0;
      const tail = i32(this.#tables, from + TAIL) | next | slot;
      const address = i32(this.#tables, from);
      this.#put(address, i32(this.#tables, from + 1), i32(this.#tables, from + 2), tail);
    }
    this.#taken[slot] = links;
  }

  show(): boolean {
    if (this.#firstAt === NOTHING) {
      return false;
    }
    const { entries } = this.#shape;
    const position = this.#shownPosition;
    const moved = this.#moved;
    Atomics.store(this.#ring, this.#firstAt, this.#firstTail);
    this.#firstAt = NOTHING;
    this.#moved = 0;
    this.#shownPosition = this.#place | this.#lap;
    const events = Atomics.load(this.#deviceEvents, 0);
    const kind = events & ring.EVENTS_MASK;
    return kind === ring.EVENTS_AT
      ? ring.needPackedEvent(events, entries, position, moved)
      : kind !== ring.EVENTS_NONE;
  }

  nextUsed(inFlight: number): number {
    const at = this.#usedPlace * DESCRIPTOR_WORDS + TAIL;
    const tail = Atomics.load(this.#ring, at);
    if ((tail & ring.OWNER_MASK) !== ring.usedBits(this.#usedLap)) {
      return -1;
    }
    const slot = tail & 0xffff;
    if (inFlight === 0 || slot >= this.#shape.depth) {
      throw brokenRing(this.#index, `id ${slot} in the ring is of no request in flight`);
    }
    this.#usedPlace += u16(this.#taken, slot);
    if (this.#usedPlace >= this.#shape.entries) {
      this.#usedPlace -= this.#shape.entries;
      this.#usedLap ^= ring.LAP_BIT;
    }
    return slot;
  }

  arm(): boolean {
    const events = ring.EVENTS_AT | this.#usedPlace | this.#usedLap;
    Atomics.store(this.#driverEvents, 0, this.#usesEventIndex ? events : ring.EVENTS_ALL);
    const tail = Atomics.load(this.#ring, this.#usedPlace * DESCRIPTOR_WORDS + TAIL);
    return (tail & ring.OWNER_MASK) === ring.usedBits(this.#usedLap);
  }

  // --- internal ---

  #put(low: number, high: number, lengthBytes: number, tail: number): void {
    const at = this.#place * DESCRIPTOR_WORDS;
    const owned = tail | ring.availableBits(this.#lap);
    this.#ring[at] = low;
    this.#ring[at + 1] = high;
    this.#ring[at + 2] = lengthBytes;
    if (this.#firstAt === NOTHING) {
      this.#firstAt = at + TAIL;
      this.#firstTail = owned;
    } else {
      this.#ring[at + TAIL] = owned;
    }
    this.#moved += 1;
    this.#place += 1;
    if (this.#place === this.#shape.entries) {
      this.#place = 0;
      this.#lap ^= ring.LAP_BIT;
    }
  }
}
