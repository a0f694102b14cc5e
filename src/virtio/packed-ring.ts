/**
 * The device side of a packed virtqueue (virtio 1.2, 2.8), over the guest's own ring memory: the same methods
 * as a split ring.
 *
 *   | used | used | taken | taken | taken | available | available | old ... |
 *                  ^ used place            ^ next place
 *
 * A batch of used descriptors is hidden until the first of them is stored, which `publish` does: the driver
 * looks at that one before all others. What both sides touch at the same time goes through Atomics. A chain has
 * no index of its own: its ticket is the id, which is the guest's and names nothing here, and the number of
 * its descriptors above it. Where requests under way are noted, their entry stands in the place of the id, and
 * chains that another back end had taken stand before all others, in memory of our own (`resume`).
 */
import { viewOf } from "../ffi/memory.ts";
import { u16 } from "../ffi/view.ts";
import {
  availableBits,
  descriptorRingBytes,
  EVENT_AREA_BYTES,
  EVENTS_ALL,
  EVENTS_AT,
  EVENTS_MASK,
  EVENTS_NONE,
  FIRST_POSITION,
  LAP_BIT,
  needPackedEvent,
  OWNER_MASK,
  PACKED_WRITE,
  PLACE_MASK,
  usedBits,
} from "../formats/packed-ring.ts";
import type { DirtyLog } from "./dirty-log.ts";
import { PackedInflight } from "./packed-inflight.ts";
import { isPositionOf, NO_POSITION } from "./packed-position.ts";
import { type PackedChain, recoverPacked } from "./packed-recovery.ts";
import type { RingAreas, RingNotes } from "./split-ring.ts";

const DESCRIPTOR_WORDS = 4;
const DESCRIPTOR_BYTES = 16;
const LENGTH = 2;
const TAIL = 3;

export class PackedRing {
  readonly isPacked = true;
  readonly entries: number;
  /** Where the next chain is read, four words a descriptor: address low and high, length, id and flags. */
  descriptors: Uint32Array;
  readonly #ring: Uint32Array;
  readonly #words: Int32Array;
  readonly #driverEvents: Int32Array;
  readonly #deviceEvents: Int32Array;
  readonly #hasEventIndex: boolean;
  readonly #areas: RingAreas;
  readonly #dirtyLog: DirtyLog | undefined;
  #nextPlace: number;
  #nextLap: number;
  /** What the next descriptor looks like once it is available. */
  #availableBits: number;
  #usedPlace: number;
  #usedLap: number;
  #usedBits: number;
  /** Descriptors that were not taken, or are shown as used. */
  #free: number;
  /** Descriptors of used chains that are not shown yet, and the first of them. */
  #pushed = 0;
  #firstTailAt = 0;
  #firstTail = 0;
  #shownPosition: number;
  #areKicksEnabled = true;
  /** The first publication always calls: a backend before this one may have died between the two. */
  #hasShown = false;
  #inflight: PackedInflight | undefined;
  /** Of chains that are taken once more: their entries and descriptors, how many are left, and where the next is. */
  #againEntries = new Uint16Array(0);
  #againCounts = new Uint16Array(0);
  #againCount = 0;
  #againPlace = 0;

  /**
   * @param areas `available` is the driver's event area, `used` the device's
   * @param position place and lap of the first chain to take, where the last one before it was used too
   * @param hasEventIndex whether VIRTIO_F_EVENT_IDX was negotiated
   * @param dirtyLog where writes to the ring are marked, when they are
   */
  constructor(
    areas: RingAreas,
    position: number,
    hasEventIndex: boolean,
    dirtyLog: DirtyLog | undefined,
  ) {
    const { entries } = areas;
    this.#areas = areas;
    this.#dirtyLog = dirtyLog;
    const ring = viewOf(areas.descriptors, descriptorRingBytes(entries));
    this.entries = entries;
    this.#ring = new Uint32Array(ring);
    this.descriptors = this.#ring;
    this.#words = new Int32Array(ring);
    this.#driverEvents = new Int32Array(viewOf(areas.available, EVENT_AREA_BYTES));
    this.#deviceEvents = new Int32Array(viewOf(areas.used, EVENT_AREA_BYTES));
    this.#hasEventIndex = hasEventIndex;
    this.#nextPlace = position & PLACE_MASK;
    this.#nextLap = position & LAP_BIT;
    this.#availableBits = availableBits(this.#nextLap);
    this.#usedPlace = this.#nextPlace;
    this.#usedLap = this.#nextLap;
    this.#usedBits = usedBits(this.#usedLap);
    this.#free = entries;
    this.#shownPosition = position;
    if (dirtyLog?.isUsedOn) {
      // A backend before this one may have died between writing and marking.
      dirtyLog.mark(areas.descriptors, descriptorRingBytes(entries));
      dirtyLog.mark(areas.used, EVENT_AREA_BYTES);
    }
  }

  /**
   * Notes requests from here on, and goes on where those that noted them before stopped. Before anything is taken.
   * @returns why the notes do not fit the ring, which then must be left alone
   */
  resume(notes: RingNotes): string | undefined {
    const { address, entries } = notes;
    const recovery = recoverPacked(address, entries, this.nextAvailable, this.#words);
    if (typeof recovery === "string") {
      return recovery;
    }
    const { chains, usedPosition = this.nextAvailable } = recovery;
    this.#usedPlace = usedPosition & PLACE_MASK;
    this.#usedLap = usedPosition & LAP_BIT;
    this.#usedBits = usedBits(this.#usedLap);
    this.#shownPosition = usedPosition;
    this.#nextPlace = this.#usedPlace;
    this.#nextLap = this.#usedLap;
    this.#inflight = new PackedInflight(address, recovery);
    this.#takeAgain(chains, this.#inflight);
    return undefined;
  }

  /**
   * Nothing was noted, so that the front end must know where the ring is: not if a back end before this one went away.
   * @returns why the ring must be left alone
   */
  resumeWithoutNotes(): string | undefined {
    return isPositionOf(this.#words, this.nextAvailable) ? undefined : NO_POSITION;
  }

  /** Chains that are to be taken once more. */
  get againCount(): number {
    return this.#againCount;
  }

  /** Nothing was ever answered in it; the first place is also that of a ring that went round twice. */
  get isFresh(): boolean {
    const last = this.#ring.subarray((this.entries - 1) * DESCRIPTOR_WORDS);
    const position = this.#usedPlace | this.#usedLap;
    return position === FIRST_POSITION && last.every((word) => word === 0);
  }

  /** Place and lap of the next chain to take: what GET_VRING_BASE answers. */
  get nextAvailable(): number {
    return this.#nextPlace | this.#nextLap;
  }

  /** The longest chain that there can be now. */
  get longest(): number {
    return this.#againCount > 0 ? this.descriptors.length : this.#free;
  }

  /** 1 when a chain waits, else 0: how many there are shows as they are taken. */
  waiting(): number {
    if (this.#againCount > 0) {
      return 1;
    }
    const tail = Atomics.load(this.#words, this.#nextPlace * DESCRIPTOR_WORDS + TAIL);
    return (tail & OWNER_MASK) === this.#availableBits ? 1 : 0;
  }

  /** What to add to the number of waiting chains when so many were taken. */
  waitingBehind(taken: number): number {
    return taken < this.entries ? this.waiting() : 0;
  }

  /** The place of the next chain, which stays in the ring until `take`. */
  peek(): number {
    return this.#againCount > 0 ? this.#againPlace : this.#nextPlace;
  }

  /** @returns what to `push` */
  take(ticket: number): number {
    if (this.#againCount > 0) {
      return this.#takeNoted();
    }
    const count = ticket >>> 16;
    const inflight = this.#inflight;
    const held =
      inflight === undefined
        ? ticket
        : inflight.take(this.#words, this.#nextPlace, count, ticket & 0xffff) + count * 0x1_0000;
    this.#skip(count);
    return held;
  }

  /** Adds a used descriptor; the driver sees it after `publish`. */
  push(ticket: number, writtenBytes: number): void {
    const at = this.#usedPlace * DESCRIPTOR_WORDS;
    const name = ticket & 0xffff;
    const id = this.#inflight === undefined ? name : this.#inflight.push(name);
    const tail = id | this.#usedBits | (writtenBytes > 0 ? PACKED_WRITE : 0);
    this.#words[at + LENGTH] = writtenBytes;
    if (this.#pushed === 0) {
      this.#firstTailAt = at + TAIL;
      this.#firstTail = tail;
    } else {
      this.#words[at + TAIL] = tail;
    }
    const count = ticket >>> 16;
    this.#pushed += count;
    const place = this.#usedPlace + count;
    if (place < this.entries) {
      this.#usedPlace = place;
      return;
    }
    this.#usedPlace = place - this.entries;
    this.#usedLap ^= LAP_BIT;
    this.#usedBits = usedBits(this.#usedLap);
  }

  /** Shows all pushed descriptors to the driver. True when it wants a call for them (2.8.10). */
  publish(): boolean {
    const moved = this.#pushed;
    const position = this.#shownPosition;
    if (moved === 0) {
      return false;
    }
    const next = this.#usedPlace | this.#usedLap;
    this.#inflight?.prepare(next);
    Atomics.store(this.#words, this.#firstTailAt, this.#firstTail);
    this.#inflight?.settle(next);
    if (this.#dirtyLog?.isUsedOn) {
      this.#markUsed(this.#dirtyLog, moved);
    }
    this.#pushed = 0;
    this.#free += moved;
    this.#shownPosition = next;
    const isFirst = !this.#hasShown;
    this.#hasShown = true;
    const events = Atomics.load(this.#driverEvents, 0);
    const kind = events & EVENTS_MASK;
    if (kind === EVENTS_AT && this.#hasEventIndex) {
      return isFirst || needPackedEvent(events, this.entries, position, moved);
    }
    return kind !== EVENTS_NONE;
  }

  /** Asks the driver for a kick when it adds chains. Look at `waiting` afterwards. */
  enableKicks(): void {
    this.#areKicksEnabled = true;
    const events = this.#hasEventIndex ? EVENTS_AT | this.nextAvailable : EVENTS_ALL;
    Atomics.store(this.#deviceEvents, 0, events);
    if (this.#dirtyLog?.isUsedOn) {
      this.#dirtyLog.mark(this.#areas.used, EVENT_AREA_BYTES);
    }
  }

  /** Tells the driver that the ring is being watched. */
  disableKicks(): void {
    if (!this.#areKicksEnabled) {
      return;
    }
    this.#areKicksEnabled = false;
    Atomics.store(this.#deviceEvents, 0, EVENTS_NONE);
    if (this.#dirtyLog?.isUsedOn) {
      this.#dirtyLog.mark(this.#areas.used, EVENT_AREA_BYTES);
    }
  }

  // --- internal ---

  /** The used ring is the descriptor ring: what was written lies between the first used descriptor and the next one. */
  #markUsed(log: DirtyLog, moved: number): void {
    const ring = this.#areas.descriptors;
    const first = this.#shownPosition & PLACE_MASK;
    const straight = Math.min(moved, this.entries - first);
    log.mark(ring + first * DESCRIPTOR_BYTES, straight * DESCRIPTOR_BYTES);
    if (moved > straight) {
      log.mark(ring, (moved - straight) * DESCRIPTOR_BYTES);
    }
  }

  /** The next chain is `count` descriptors further. */
  #skip(count: number): void {
    this.#free -= count;
    const place = this.#nextPlace + count;
    if (place < this.entries) {
      this.#nextPlace = place;
      return;
    }
    this.#nextPlace = place - this.entries;
    this.#nextLap ^= LAP_BIT;
    this.#availableBits = availableBits(this.#nextLap);
  }

  #takeAgain(chains: readonly PackedChain[], inflight: PackedInflight): void {
    this.#availableBits = availableBits(this.#nextLap);
    for (const { entry, last, id, words } of chains) {
      inflight.adopt(entry, last, id);
      for (let i = 0; i < words.length / DESCRIPTOR_WORDS; i++) {
        // Used descriptors of a batch that was never shown lie here: the next batch must not show them.
        this.#words[this.#nextPlace * DESCRIPTOR_WORDS + TAIL] = this.#availableBits;
        this.#skip(1);
      }
    }
    this.#againEntries = Uint16Array.from(chains, ({ entry }) => entry);
    this.#againCounts = Uint16Array.from(chains, ({ words }) => words.length / DESCRIPTOR_WORDS);
    this.#againCount = chains.length;
    if (chains.length > 0) {
      this.descriptors = Uint32Array.from(chains.flatMap(({ words }) => words));
    }
  }

  /** The ring and the notes have moved on before: only what is read next changes. */
  #takeNoted(): number {
    const index = this.#againEntries.length - this.#againCount;
    const count = u16(this.#againCounts, index);
    this.#againCount -= 1;
    this.#againPlace += count;
    if (this.#againCount === 0) {
      this.descriptors = this.#ring;
    }
    return u16(this.#againEntries, index) + count * 0x1_0000;
  }
}
