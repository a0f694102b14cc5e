/**
 * The device side of a split virtqueue (virtio 1.2, 2.7), over the guest's own ring memory.
 *
 *   available ring   the driver's: index read once a batch, heads taken in order
 *   used ring        ours: entries written, then the index stored once a batch, then at most one call
 *
 * Indexes that both sides touch go through Atomics (plain loads may be hoisted by the JIT, and the
 * notification handshake needs a full fence between our store and our next load). Every field of a
 * descriptor is read once: the guest may change it at any time.
 */
import { viewOf } from "../ffi/memory.ts";
import { u16 } from "../ffi/view.ts";
import {
  AVAILABLE_NO_INTERRUPT,
  needEvent,
  ringLayout,
  USED_NO_NOTIFY,
} from "../formats/virtio-ring.ts";

/** Host addresses of the three areas; each lies wholly in one mapping and is aligned as specified. */
export interface RingAreas {
  readonly entries: number;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
}

const FLAGS = 0;
const INDEX = 1;
const ELEMENTS = 2;

export class SplitRing {
  readonly entries: number;
  /** Four words a descriptor: address low and high, length, flags and next. */
  readonly descriptors: Uint32Array;
  readonly #mask: number;
  readonly #available: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedElements: Uint32Array;
  readonly #usedEventAt: number;
  readonly #availableEventAt: number;
  readonly #hasEventIndex: boolean;
  #nextAvailable: number;
  #usedIndex: number;
  /** As a driver finds a fresh used ring: it kicks. */
  #areKicksEnabled = true;
  /** Used index at the last publication. */
  #shownIndex: number;
  /** The first publication always calls: a backend before this one may have died between the two. */
  #hasShown = false;

  /**
   * @param nextAvailable index of the first chain to take (SET_VRING_BASE)
   * @param hasEventIndex whether VIRTIO_F_EVENT_IDX was negotiated
   */
  constructor(areas: RingAreas, nextAvailable: number, hasEventIndex: boolean) {
    const layout = ringLayout(areas.entries);
    this.entries = areas.entries;
    this.#mask = areas.entries - 1;
    this.descriptors = new Uint32Array(viewOf(areas.descriptors, layout.descriptorsBytes));
    this.#available = new Uint16Array(viewOf(areas.available, layout.availableBytes));
    const used = viewOf(areas.used, layout.usedBytes);
    this.#used = new Uint16Array(used);
    this.#usedElements = new Uint32Array(used, 4, areas.entries * 2);
    this.#usedEventAt = layout.usedEventOffset / 2;
    this.#availableEventAt = layout.availableEventOffset / 2;
    this.#hasEventIndex = hasEventIndex;
    this.#nextAvailable = nextAvailable & 0xffff;
    this.#usedIndex = Atomics.load(this.#used, INDEX);
    this.#shownIndex = this.#usedIndex;
  }

  /** Index of the next chain to take: what GET_VRING_BASE answers. */
  get nextAvailable(): number {
    return this.#nextAvailable;
  }

  /** Chains that wait; more than `entries` means that the driver broke the ring. */
  waiting(): number {
    return (Atomics.load(this.#available, INDEX) - this.#nextAvailable) & 0xffff;
  }

  /** The head of the next chain, which stays in the ring until `take`. */
  peek(): number {
    return u16(this.#available, ELEMENTS + (this.#nextAvailable & this.#mask));
  }

  take(): void {
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
  }

  /** Adds a used element; the driver sees it after `publish`. */
  push(head: number, writtenBytes: number): void {
    const at = (this.#usedIndex & this.#mask) * 2;
    this.#usedElements[at] = head;
    this.#usedElements[at + 1] = writtenBytes;
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
  }

  /** Shows all pushed elements to the driver. True when it wants a call for them (2.7.7.2, 2.7.10). */
  publish(): boolean {
    Atomics.store(this.#used, INDEX, this.#usedIndex);
    if (!this.#hasEventIndex) {
      return (Atomics.load(this.#available, FLAGS) & AVAILABLE_NO_INTERRUPT) === 0;
    }
    // The window starts at the last publication, called for or not: a driver that sleeps again after it
    // polled through 65536 elements would otherwise never be called.
    const event = Atomics.load(this.#available, this.#usedEventAt);
    const isWanted = needEvent(event, this.#usedIndex, this.#shownIndex) || !this.#hasShown;
    this.#shownIndex = this.#usedIndex;
    this.#hasShown = true;
    return isWanted;
  }

  /** Asks the driver for a kick when it adds chains. Look at `waiting` afterwards. */
  enableKicks(): void {
    this.#areKicksEnabled = true;
    if (this.#hasEventIndex) {
      Atomics.store(this.#used, this.#availableEventAt, this.#nextAvailable);
    } else {
      Atomics.store(this.#used, FLAGS, 0);
    }
  }

  /** Tells the driver that the ring is being watched: an event index of the past is never stepped over. */
  disableKicks(): void {
    if (!this.#areKicksEnabled) {
      return;
    }
    this.#areKicksEnabled = false;
    if (this.#hasEventIndex) {
      Atomics.store(this.#used, this.#availableEventAt, (this.#nextAvailable - 1) & 0xffff);
    } else {
      Atomics.store(this.#used, FLAGS, USED_NO_NOTIFY);
    }
  }
}
