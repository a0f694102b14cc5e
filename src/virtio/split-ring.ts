/**
 * The device side of a split virtqueue (virtio 1.2, 2.7), over the guest's own ring memory.
 *
 *   available ring   the driver's: index read once a batch, heads taken in order
 *   used ring        ours: entries written, then the index stored once a batch, then at most one call
 *
 * Indexes that both sides touch go through Atomics (plain loads may be hoisted by the JIT, and the
 * notification handshake needs a full fence between our store and our next load). Every field of a
 * descriptor is read once: the guest may change it at any time.
 *
 * A ring that was another back end's before may go on with chains that it had taken: `resume`. They stand before all
 * others, and are not in the available ring any more.
 */
import { viewOf } from "../ffi/memory.ts";
import { u16, u32 } from "../ffi/view.ts";
import {
  AVAILABLE_NO_INTERRUPT,
  needEvent,
  ringLayout,
  USED_NO_NOTIFY,
} from "../formats/virtio-ring.ts";
import type { DirtyLog } from "./dirty-log.ts";
import { isUntouched, type LostRing, lostRequests, NO_ANSWER } from "./lost-requests.ts";
import { SplitInflight } from "./split-inflight.ts";
import { recoverSplit } from "./split-recovery.ts";

/** Host addresses of the three areas; each lies wholly in one mapping and is aligned as specified. */
export interface RingAreas {
  readonly entries: number;
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
}

/** Where requests under way are noted. */
export interface RingNotes {
  readonly address: number;
  /** That there is room for; at least those of the ring. */
  readonly entries: number;
}

const FLAGS = 0;
const INDEX = 1;
const ELEMENTS = 2;
const ELEMENT_BYTES = 8;

export class SplitRing {
  readonly isPacked = false;
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
  /** Used index up to which elements were marked as dirty. */
  #markedIndex: number;
  readonly #dirtyLog: DirtyLog | undefined;
  /** The first publication always calls: a backend before this one may have died between the two. */
  #hasShown = false;
  #inflight: SplitInflight | undefined;
  /** Chains that an earlier back end took and did not answer: they are taken once more. */
  #again = new Uint16Array(0);
  #againCount = 0;

  /**
   * @param nextAvailable index of the first chain to take (SET_VRING_BASE)
   * @param hasEventIndex whether VIRTIO_F_EVENT_IDX was negotiated
   * @param dirtyLog where writes to the used ring are marked, when they are
   */
  constructor(
    areas: RingAreas,
    nextAvailable: number,
    hasEventIndex: boolean,
    dirtyLog: DirtyLog | undefined,
  ) {
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
    this.#markedIndex = this.#usedIndex;
    this.#dirtyLog = dirtyLog;
    if (dirtyLog?.isUsedOn) {
      dirtyLog.markUsed(0, layout.usedBytes); // a backend before this one may have died between writing and marking
    }
  }

  /** Index of the next chain to take: what GET_VRING_BASE answers. */
  get nextAvailable(): number {
    return this.#nextAvailable;
  }

  /** Nothing was ever answered in it; an index of 0 is also that of a ring that went round. */
  get isFresh(): boolean {
    return this.#usedIndex === 0 && this.#usedHead(-1) === NO_ANSWER;
  }

  /**
   * Notes requests from here on, and goes on where those that noted them before stopped. Before anything is taken.
   * @returns why the notes do not fit the ring, which then must be left alone
   */
  resume(notes: RingNotes): string | undefined {
    const recovery = recoverSplit(notes.address, notes.entries, this.#found());
    if (typeof recovery === "string") {
      return recovery;
    }
    this.#inflight = new SplitInflight(
      notes.address,
      notes.entries,
      this.entries,
      recovery.counter,
    );
    this.#nextAvailable = recovery.nextAvailable ?? this.#nextAvailable;
    this.#takeAgain(recovery.heads);
    return undefined;
  }

  /**
   * Goes on where another back end stopped that kept no notes, or none that this one got. Before anything is taken.
   * @returns why that is not certain: the ring then must be left alone
   */
  resumeWithoutNotes(): string | undefined {
    const found = this.#found();
    // A front end that knows more than where the answers ended was told so by a back end that had nothing under way. One
    // that left before the last answers knows less.
    const unseen = (this.#usedIndex - this.#nextAvailable) & 0xffff;
    if (unseen > this.entries || isUntouched(found)) {
      return undefined;
    }
    const heads = lostRequests(found);
    if (heads === undefined) {
      const count = (found.availableIndex - found.usedIndex) & 0xffff;
      return `${count} requests of an earlier backend are open, and the ring does not tell which`;
    }
    this.#nextAvailable = found.availableIndex;
    this.#takeAgain(heads);
    return undefined;
  }

  /** Chains that are to be taken once more. */
  get againCount(): number {
    return this.#againCount;
  }

  /** Chains that wait; more than `entries` means that the driver broke the ring. */
  waiting(): number {
    const offered = (Atomics.load(this.#available, INDEX) - this.#nextAvailable) & 0xffff;
    return offered + this.#againCount;
  }

  /** `waiting` knew of all chains; for a packed ring it is another matter. */
  waitingBehind(): number {
    return 0;
  }

  /** The head of the next chain, which stays in the ring until `take`. */
  peek(): number {
    return this.#againCount > 0
      ? u16(this.#again, this.#again.length - this.#againCount)
      : u16(this.#available, ELEMENTS + (this.#nextAvailable & this.#mask));
  }

  /** @param head that `peek` told @returns what to `push` */
  take(head: number): number {
    if (this.#againCount > 0) {
      this.#againCount -= 1; // it is noted already, before those that come now
      return head;
    }
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    this.#inflight?.take(head);
    return head;
  }

  /** Adds a used element; the driver sees it after `publish`. */
  push(head: number, writtenBytes: number): void {
    const at = (this.#usedIndex & this.#mask) * 2;
    this.#usedElements[at] = head;
    this.#usedElements[at + 1] = writtenBytes;
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    this.#inflight?.push(head);
  }

  /** Shows all pushed elements to the driver. True when it wants a call for them (2.7.7.2, 2.7.10). */
  publish(): boolean {
    Atomics.store(this.#used, INDEX, this.#usedIndex);
    this.#inflight?.publish(this.#usedIndex);
    if (this.#dirtyLog?.isUsedOn) {
      this.#markElements(this.#dirtyLog);
    }
    this.#markedIndex = this.#usedIndex;
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
    if (this.#dirtyLog?.isUsedOn) {
      this.#markEvent(this.#dirtyLog);
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
    if (this.#dirtyLog?.isUsedOn) {
      this.#markEvent(this.#dirtyLog);
    }
  }

  // --- internal ---

  /** The index, and the elements behind those that were marked, which may go over the end of the ring. */
  #markElements(log: DirtyLog): void {
    const count = (this.#usedIndex - this.#markedIndex) & 0xffff;
    const first = this.#markedIndex & this.#mask;
    const straight = Math.min(count, this.entries - first);
    log.markUsed(0, ELEMENTS * 2);
    log.markUsed(ELEMENTS * 2 + first * ELEMENT_BYTES, straight * ELEMENT_BYTES);
    log.markUsed(ELEMENTS * 2, Math.min(count - straight, this.entries) * ELEMENT_BYTES);
  }

  #markEvent(log: DirtyLog): void {
    log.markUsed(this.#hasEventIndex ? this.#availableEventAt * 2 : FLAGS, 2);
  }

  #takeAgain(heads: readonly number[]): void {
    this.#again = Uint16Array.from(heads);
    this.#againCount = this.#again.length;
  }

  #found(): LostRing {
    return {
      entries: this.entries,
      availableIndex: Atomics.load(this.#available, INDEX),
      usedIndex: this.#usedIndex,
      availableHead: (index) => u16(this.#available, ELEMENTS + (index & this.#mask)),
      usedHead: (index) => this.#usedHead(index),
    };
  }

  #usedHead(index: number): number {
    const at = (index & this.#mask) * 2;
    const head = u32(this.#usedElements, at);
    // The last byte that is written tells the status: there is no answer of none.
    return head === 0 && u32(this.#usedElements, at + 1) === 0 ? NO_ANSWER : head;
  }
}
