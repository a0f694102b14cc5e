/**
 * A driver's side of one split ring in memory that is shared with the device: it keeps requests in slots, shows them in
 * batches, kicks when the device asks for it, and takes ends when it was called. What comes back is checked: a head that
 * is under way, once, a status that was written, a length that fits.
 *
 *   queue     | descriptors | available | used | slot 0 | slot 1 | ...
 *   slot      | header | status | indirect table | data |
 */
import { drainEvent, signalEvent } from "../../../src/ffi/event.ts";
import { REQUEST_HEADER_BYTES } from "../../../src/formats/virtio-blk.ts";
import {
  AVAILABLE_NO_INTERRUPT,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_INDIRECT,
  DESCRIPTOR_NEXT,
  DESCRIPTOR_WRITE,
  needEvent,
  ringLayout,
  USED_NO_NOTIFY,
} from "../../../src/formats/virtio-ring.ts";

/** Of one request: header and status, and data in a few pieces. */
const DESCRIPTORS_A_SLOT = 8;
export const DATA_BYTES = 24 * 1024;
const PAGE = 4096;
const HEADER_AT = 0;
const STATUS_AT = 16;
const TABLE_AT = 64;
const DATA_AT = 512;
const SLOT_BYTES = DATA_AT + DATA_BYTES + 512;
export const STATUS_UNSET = 0xff;

export interface QueueShape {
  readonly entries: number;
  readonly slots: number;
  readonly isIndirect: boolean;
}

/** A piece of a chain, by offset in the guest's memory. */
export interface ChainPart {
  readonly offset: number;
  readonly bytes: number;
  readonly isWritable: boolean;
}

export interface EndedSlot {
  readonly slot: number;
  readonly status: number;
  readonly writtenBytes: number;
}

/** The guest's memory in this process, and where the guest believes it to be. */
export interface QueueMemory {
  readonly bytes: Uint8Array;
  readonly guestAddress: (offset: number) => number;
}

export function queueBytes(shape: QueueShape): number {
  return slotsAt(shape) + shape.slots * SLOT_BYTES;
}

export class GuestQueue {
  readonly shape: QueueShape;
  kickFd = -1;
  callFd = -1;
  hasEventIndex = false;
  readonly #memory: QueueMemory;
  readonly #base: number;
  readonly #view: DataView;
  readonly #available: Uint16Array;
  readonly #usedHalves: Uint16Array;
  readonly #usedWords: Uint32Array;
  readonly #isUnderWay: boolean[];
  #nextAvailable = 0;
  #shownAvailable = 0;
  #lastUsed = 0;
  #lastShown = 0;

  constructor(shape: QueueShape, memory: QueueMemory, base: number) {
    this.shape = shape;
    this.#memory = memory;
    this.#base = base;
    const { buffer, byteOffset, byteLength } = memory.bytes;
    this.#view = new DataView(buffer, byteOffset, byteLength);
    const layout = ringLayout(shape.entries);
    const { available, used } = areasOf(shape);
    const at = byteOffset + base;
    this.#available = new Uint16Array(buffer, at + available, layout.availableBytes / 2);
    this.#usedHalves = new Uint16Array(buffer, at + used, Math.floor(layout.usedBytes / 2));
    this.#usedWords = new Uint32Array(buffer, at + used + 4, shape.entries * 2);
    this.#isUnderWay = Array.from({ length: shape.slots }, () => false);
  }

  /** Offsets in the guest's memory. */
  get areas(): { readonly descriptors: number; readonly available: number; readonly used: number } {
    const { available, used } = areasOf(this.shape);
    return {
      descriptors: this.#base,
      available: this.#base + available,
      used: this.#base + used,
    };
  }

  /** What a front end that knows nothing else gives as the ring's base. */
  get usedIndex(): number {
    return this.#usedHalves[1] ?? 0;
  }

  get underWay(): number {
    return this.#isUnderWay.filter(Boolean).length;
  }

  freeSlot(): number {
    return this.#isUnderWay.indexOf(false);
  }

  dataOffset(slot: number): number {
    return this.#slotAt(slot) + DATA_AT;
  }

  header(slot: number): ChainPart {
    return {
      offset: this.#slotAt(slot) + HEADER_AT,
      bytes: REQUEST_HEADER_BYTES,
      isWritable: false,
    };
  }

  status(slot: number): ChainPart {
    return { offset: this.#slotAt(slot) + STATUS_AT, bytes: 1, isWritable: true };
  }

  /** Makes a request ready; `show` lets the device see it. */
  add(slot: number, type: number, sector: number, chain: readonly ChainPart[]): void {
    const at = this.#slotAt(slot);
    this.#view.setUint32(at, type, true);
    this.#view.setUint32(at + 4, 0, true);
    this.#view.setBigUint64(at + 8, BigInt(sector), true);
    this.#view.setUint8(at + STATUS_AT, STATUS_UNSET);
    const { isIndirect } = this.shape;
    const first = isIndirect ? 0 : slot * DESCRIPTORS_A_SLOT;
    const table = isIndirect ? at + TABLE_AT : this.#base + first * DESCRIPTOR_BYTES;
    chain.forEach((part, i) => {
      const next = i < chain.length - 1 ? DESCRIPTOR_NEXT : 0;
      this.#describe(table + i * DESCRIPTOR_BYTES, {
        address: this.#memory.guestAddress(part.offset),
        bytes: part.bytes,
        flags: next | (part.isWritable ? DESCRIPTOR_WRITE : 0),
        next: first + i + 1,
      });
    });
    if (isIndirect) {
      this.#describe(this.#base + slot * DESCRIPTOR_BYTES, {
        address: this.#memory.guestAddress(table),
        bytes: chain.length * DESCRIPTOR_BYTES,
        flags: DESCRIPTOR_INDIRECT,
        next: 0,
      });
    }
    this.#isUnderWay[slot] = true;
    this.#available[2 + (this.#nextAvailable & (this.shape.entries - 1))] = this.#headOf(slot);
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
  }

  get hasHidden(): boolean {
    return this.#nextAvailable !== this.#shownAvailable;
  }

  show(): void {
    const before = this.#shownAvailable;
    const next = this.#nextAvailable;
    this.#shownAvailable = next;
    Atomics.store(this.#available, 1, next);
    if (before !== next && this.#isKickWanted(before, next)) {
      signalEvent(this.kickFd);
    }
  }

  /** As a driver that was set going again does: it cannot know what the device saw. */
  kick(): void {
    signalEvent(this.kickFd);
  }

  /** True when it was called since the last time. */
  takeCall(): boolean {
    return this.callFd >= 0 && drainEvent(this.callFd) === 1;
  }

  /** Takes all ends, then asks for a call and looks once more. @throws Error when the device broke the rules */
  reap(): readonly EndedSlot[] {
    const ended: EndedSlot[] = [];
    this.setCallWanted(false);
    for (;;) {
      while (this.#lastUsed !== Atomics.load(this.#usedHalves, 1)) {
        ended.push(this.#takeOne());
      }
      this.setCallWanted(true);
      if (this.#lastUsed === Atomics.load(this.#usedHalves, 1)) {
        return ended;
      }
    }
  }

  /** Slots whose ends are in the ring since this was last asked. Nothing is taken. */
  shown(): readonly number[] {
    const slots: number[] = [];
    for (const end = Atomics.load(this.#usedHalves, 1); this.#lastShown !== end; ) {
      slots.push(this.#slotIn(this.#lastShown));
      this.#lastShown = (this.#lastShown + 1) & 0xffff;
    }
    return slots;
  }

  setCallWanted(isWanted: boolean): void {
    if (this.hasEventIndex) {
      const event = isWanted ? this.#lastUsed : this.#lastUsed - 1;
      Atomics.store(this.#available, this.shape.entries + 2, event & 0xffff);
    } else {
      Atomics.store(this.#available, 0, isWanted ? 0 : AVAILABLE_NO_INTERRUPT);
    }
  }

  /** The ring as a driver makes it; whatever was under way is forgotten. */
  reset(): void {
    this.#available.fill(0);
    this.#usedHalves.fill(0);
    this.#nextAvailable = 0;
    this.#shownAvailable = 0;
    this.#lastUsed = 0;
    this.#lastShown = 0;
    this.#isUnderWay.fill(false);
  }

  /** Breaks the rules: the index jumps by more than the ring holds. */
  breakRing(): void {
    Atomics.store(this.#available, 1, (this.#shownAvailable + this.shape.entries + 3) & 0xffff);
    signalEvent(this.kickFd);
  }

  // --- internal ---

  #slotAt(slot: number): number {
    return this.#base + slotsAt(this.shape) + slot * SLOT_BYTES;
  }

  #headOf(slot: number): number {
    return this.shape.isIndirect ? slot : slot * DESCRIPTORS_A_SLOT;
  }

  #describe(
    at: number,
    part: {
      readonly address: number;
      readonly bytes: number;
      readonly flags: number;
      readonly next: number;
    },
  ): void {
    this.#view.setBigUint64(at, BigInt(part.address), true);
    this.#view.setUint32(at + 8, part.bytes, true);
    this.#view.setUint16(at + 12, part.flags, true);
    this.#view.setUint16(at + 14, part.next, true);
  }

  #isKickWanted(before: number, next: number): boolean {
    if (this.hasEventIndex) {
      const event = Atomics.load(this.#usedHalves, this.shape.entries * 4 + 2);
      return needEvent(event, next, before);
    }
    return (Atomics.load(this.#usedHalves, 0) & USED_NO_NOTIFY) === 0;
  }

  #placeOf(usedIndex: number): number {
    return (usedIndex & (this.shape.entries - 1)) * 2;
  }

  #slotIn(usedIndex: number): number {
    const head = this.#usedWords[this.#placeOf(usedIndex)] ?? -1;
    return this.shape.isIndirect ? head : head / DESCRIPTORS_A_SLOT;
  }

  #takeOne(): EndedSlot {
    const place = this.#placeOf(this.#lastUsed);
    const slot = this.#slotIn(this.#lastUsed);
    if (this.#isUnderWay[slot] !== true) {
      throw new Error(`slot ${slot} was answered and is not under way`);
    }
    this.#isUnderWay[slot] = false;
    this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
    const status = this.#view.getUint8(this.#slotAt(slot) + STATUS_AT);
    return { slot, status, writtenBytes: this.#usedWords[place + 1] ?? 0 };
  }
}

function areasOf({ entries }: QueueShape): { readonly available: number; readonly used: number } {
  const layout = ringLayout(entries);
  const available = roundUp(layout.descriptorsBytes);
  return { available, used: available + roundUp(layout.availableBytes) };
}

function slotsAt(shape: QueueShape): number {
  return areasOf(shape).used + roundUp(ringLayout(shape.entries).usedBytes);
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / PAGE) * PAGE;
}
