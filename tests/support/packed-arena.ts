/**
 * A packed ring with its driver for tests of the virtio code, beside the memory of a `GuestArena`. The driver
 * keeps to the specification: it writes the first descriptor of a chain last, and looks for used ones at one place.
 */
import { Arena } from "../../src/ffi/arena.ts";
import { viewOf } from "../../src/ffi/memory.ts";
import { FIRST_POSITION } from "../../src/formats/packed-ring.ts";
import { PackedRing } from "../../src/virtio/packed-ring.ts";
import type { RingAreas } from "../../src/virtio/split-ring.ts";
import { GuestArena, type TestDescriptor } from "./guest-arena.ts";

const NEXT = 1;
const AVAILABLE = 0x80;
const USED = 0x8000;

export interface PackedUsed {
  readonly id: number;
  readonly length: number;
  readonly flags: number;
}

export class PackedArena implements Disposable {
  readonly guest: GuestArena;
  readonly entries: number;
  readonly areas: RingAreas;
  ring: PackedRing;
  readonly #arena: Arena;
  readonly #descriptors: DataView;
  readonly #driverEvents: DataView;
  readonly #deviceEvents: DataView;
  readonly #hasEventIndex: boolean;
  readonly #Ring: typeof PackedRing;
  #place = 0;
  #lap = 1;
  #usedPlace = 0;
  #usedLap = 1;
  /** Descriptors of the chains that the device has, by id. */
  #counts = new Map<number, number>();
  usedCount = 0;

  constructor(options: {
    readonly entries: number;
    readonly hasEventIndex?: boolean;
    /** Another class with the same methods. */
    readonly Ring?: typeof PackedRing;
  }) {
    this.entries = options.entries;
    this.#Ring = options.Ring ?? PackedRing;
    this.#hasEventIndex = options.hasEventIndex ?? false;
    this.guest = new GuestArena({ entries: 8 });
    this.#arena = new Arena(this.entries * 16 + 256);
    const descriptors = this.#arena.bytes(this.entries * 16);
    const available = this.#arena.bytes(4);
    const used = this.#arena.bytes(4);
    this.#descriptors = new DataView(viewOf(descriptors.address, this.entries * 16));
    this.#driverEvents = new DataView(viewOf(available.address, 4));
    this.#deviceEvents = new DataView(viewOf(used.address, 4));
    this.areas = {
      entries: this.entries,
      descriptors: descriptors.address,
      available: available.address,
      used: used.address,
    };
    this.ring = this.restart(FIRST_POSITION);
  }

  /** The same ring set up anew, as after SET_VRING_BASE. */
  restart(position: number): PackedRing {
    this.ring = new this.#Ring(this.areas, position, this.#hasEventIndex, undefined);
    return this.ring;
  }

  /** Ids of the chains that the driver waits for. */
  get waitedFor(): readonly number[] {
    return [...this.#counts.keys()];
  }

  /** Descriptors that the driver may still use. */
  get driverFree(): number {
    return this.entries - [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  /** The ring and the driver as they are in another arena. */
  become(other: PackedArena): void {
    this.descriptorBytes.set(other.descriptorBytes);
    this.#place = other.#place;
    this.#lap = other.#lap;
    this.#usedPlace = other.#usedPlace;
    this.#usedLap = other.#usedLap;
    this.#counts = new Map(other.#counts);
  }

  get descriptorBytes(): Uint8Array {
    return new Uint8Array(this.#descriptors.buffer);
  }

  /** What the driver says about calls: place with lap bit, and flags. */
  setDriverEvents(position: number, flags: number): void {
    this.#driverEvents.setUint16(0, position, true);
    this.#driverEvents.setUint16(2, flags, true);
  }

  get deviceEvents(): { readonly position: number; readonly flags: number } {
    const position = this.#deviceEvents.getUint16(0, true);
    return { position, flags: this.#deviceEvents.getUint16(2, true) };
  }

  /** Makes a chain available under `id`. */
  offer(id: number, chain: readonly TestDescriptor[]): void {
    const first = { place: this.#place, flags: 0 };
    chain.forEach((descriptor, i) => {
      const owner = this.#lap === 1 ? AVAILABLE : USED;
      const link = i + 1 < chain.length ? NEXT : 0;
      const flags = descriptor.flags | link | owner;
      // The id is in the last descriptor; what stands in the others has no meaning.
      this.#write(this.#place, descriptor, link === 0 ? id : 0xeeee);
      if (i === 0) {
        first.flags = flags;
      } else {
        this.setFlags(this.#place, flags);
      }
      this.#place += 1;
      if (this.#place === this.entries) {
        this.#place = 0;
        this.#lap ^= 1;
      }
    });
    this.#counts.set(id, chain.length);
    this.setFlags(first.place, first.flags);
  }

  /** The next used descriptor, as the driver finds it; undefined when there is none. */
  reap(): PackedUsed | undefined {
    const at = this.#usedPlace * 16;
    const flags = this.#descriptors.getUint16(at + 14, true);
    const owner = this.#usedLap === 1 ? AVAILABLE | USED : 0;
    if ((flags & (AVAILABLE | USED)) !== owner) {
      return undefined;
    }
    const id = this.#descriptors.getUint16(at + 12, true);
    const count = this.#counts.get(id);
    if (count === undefined) {
      throw new Error(`used id ${id} is of no chain that the device has`);
    }
    this.#counts.delete(id);
    this.usedCount += 1;
    this.#usedPlace += count;
    if (this.#usedPlace >= this.entries) {
      this.#usedPlace -= this.entries;
      this.#usedLap ^= 1;
    }
    return { id, length: this.#descriptors.getUint32(at + 8, true), flags };
  }

  /** One entry of an indirect table at a guest address. */
  setIndirect(tableAddress: number, index: number, descriptor: TestDescriptor): void {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt(descriptor.address), true);
    view.setUint32(8, descriptor.length, true);
    view.setUint16(12, 0x1ddd, true); // an id, which has no meaning there
    view.setUint16(14, descriptor.flags, true);
    this.guest.write(tableAddress + index * 16, bytes);
  }

  /** Flags of one descriptor, in its last two bytes. */
  setFlags(place: number, flags: number): void {
    this.#descriptors.setUint16(place * 16 + 14, flags, true);
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
    this.guest[Symbol.dispose]();
  }

  // --- internal ---

  #write(place: number, descriptor: TestDescriptor, id: number): void {
    const at = place * 16;
    this.#descriptors.setBigUint64(at, BigInt(descriptor.address), true);
    this.#descriptors.setUint32(at + 8, descriptor.length, true);
    this.#descriptors.setUint16(at + 12, id, true);
  }
}
