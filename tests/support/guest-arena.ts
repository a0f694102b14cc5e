/**
 * Guest memory and a ring for tests of the virtio code. Pages that belong to nobody lie before, between
 * and behind the regions, so that a read outside ends the test process.
 *
 *   host    | hole | region A, 2 pages | hole | region B, 2 pages | hole |
 *   guest     0x10000 .. 0x12000 A, 0x12000 .. 0x14000 B: they touch each other
 */
import { Arena } from "../../src/ffi/arena.ts";
import { mapAnonymous, PAGE_SIZE, unmap, viewOf } from "../../src/ffi/memory.ts";
import { DESCRIPTOR_BYTES, ringLayout } from "../../src/formats/virtio-ring.ts";
import { GuestMemory } from "../../src/virtio/guest-memory.ts";
import { SplitRing } from "../../src/virtio/split-ring.ts";

const REGION_BYTES = 2 * PAGE_SIZE;
export const GUEST_A = 0x10000;
export const GUEST_B = GUEST_A + REGION_BYTES;
/** The first guest address behind both regions. */
export const GUEST_END = GUEST_B + REGION_BYTES;

export interface TestDescriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next?: number;
}

export class GuestArena implements Disposable {
  readonly memory = new GuestMemory();
  readonly ring: SplitRing;
  /** The ring's three areas, as the driver sees them. */
  readonly available: Uint16Array;
  readonly used: Uint16Array;
  readonly usedElements: Uint32Array;
  readonly #hostA: number;
  readonly #hostB: number;
  readonly #viewA: DataView;
  readonly #viewB: DataView;
  readonly #arena: Arena;
  readonly #descriptors: DataView;
  readonly #makeRing: (next: number) => SplitRing;

  constructor(options: { readonly entries: number; readonly hasEventIndex?: boolean }) {
    const { entries, hasEventIndex = false } = options;
    const hole = mapAnonymous(7 * PAGE_SIZE);
    this.#hostA = hole + PAGE_SIZE;
    this.#hostB = this.#hostA + REGION_BYTES + PAGE_SIZE;
    unmap(hole, PAGE_SIZE);
    unmap(this.#hostA + REGION_BYTES, PAGE_SIZE);
    unmap(this.#hostB + REGION_BYTES, PAGE_SIZE);
    this.#viewA = new DataView(viewOf(this.#hostA, REGION_BYTES));
    this.#viewB = new DataView(viewOf(this.#hostB, REGION_BYTES));
    const shared = new Float64Array(GuestMemory.sharedWords());
    GuestMemory.store(shared, [
      { guestAddress: GUEST_B, sizeBytes: REGION_BYTES, hostAddress: this.#hostB },
      { guestAddress: GUEST_A, sizeBytes: REGION_BYTES, hostAddress: this.#hostA },
    ]);
    this.memory.load(shared);
    const layout = ringLayout(entries);
    this.#arena = new Arena(
      layout.descriptorsBytes + layout.availableBytes + layout.usedBytes + 256,
    );
    const descriptors = this.#arena.bytes(layout.descriptorsBytes);
    const available = this.#arena.bytes(layout.availableBytes);
    const used = this.#arena.bytes(layout.usedBytes);
    this.#descriptors = new DataView(viewOf(descriptors.address, layout.descriptorsBytes));
    this.available = new Uint16Array(viewOf(available.address, layout.availableBytes));
    this.used = new Uint16Array(viewOf(used.address, layout.usedBytes));
    this.usedElements = new Uint32Array(viewOf(used.address, layout.usedBytes - 2), 4, entries * 2);
    const areas = {
      entries,
      descriptors: descriptors.address,
      available: available.address,
      used: used.address,
    };
    this.#makeRing = (next) => new SplitRing(areas, next, hasEventIndex, undefined);
    this.ring = this.#makeRing(0);
  }

  /** The same ring set up anew, as after SET_VRING_BASE. */
  restart(nextAvailable: number): SplitRing {
    return this.#makeRing(nextAvailable);
  }

  setDescriptor(index: number, descriptor: TestDescriptor): void {
    writeDescriptor(this.#descriptors, index * DESCRIPTOR_BYTES, descriptor);
  }

  /** One entry of an indirect table at a guest address. */
  setIndirect(tableAddress: number, index: number, descriptor: TestDescriptor): void {
    const address = tableAddress + index * DESCRIPTOR_BYTES;
    writeDescriptor(this.#view(address), this.#offset(address), descriptor);
  }

  /** The driver's bytes: writes at a guest address inside one region. */
  write(address: number, bytes: Uint8Array): void {
    bytes.forEach((byte, i) => {
      this.#view(address + i).setUint8(this.#offset(address + i), byte);
    });
  }

  /** The host address of one byte, or -1 outside the regions. */
  hostOf(address: number): number {
    if (address >= GUEST_A && address < GUEST_B) {
      return this.#hostA + (address - GUEST_A);
    }
    if (address >= GUEST_B && address < GUEST_END) {
      return this.#hostB + (address - GUEST_B);
    }
    return -1;
  }

  /** The byte at a host address inside a region. */
  byteAt(host: number): number {
    const isInA = host >= this.#hostA && host < this.#hostA + REGION_BYTES;
    return isInA
      ? this.#viewA.getUint8(host - this.#hostA)
      : this.#viewB.getUint8(host - this.#hostB);
  }

  /** The driver offers chains. */
  offer(...heads: readonly number[]): void {
    const index = this.available[1] ?? 0;
    heads.forEach((head, i) => {
      this.available[2 + ((index + i) & (this.ring.entries - 1))] = head;
    });
    this.available[1] = index + heads.length;
  }

  [Symbol.dispose](): void {
    unmap(this.#hostA, REGION_BYTES);
    unmap(this.#hostB, REGION_BYTES);
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #view(address: number): DataView {
    return address < GUEST_B ? this.#viewA : this.#viewB;
  }

  #offset(address: number): number {
    return address < GUEST_B ? address - GUEST_A : address - GUEST_B;
  }
}

function writeDescriptor(view: DataView, offset: number, descriptor: TestDescriptor): void {
  view.setBigUint64(offset, BigInt(descriptor.address), true);
  view.setUint32(offset + 8, descriptor.length, true);
  view.setUint16(offset + 12, descriptor.flags, true);
  view.setUint16(offset + 14, descriptor.next ?? 0, true);
}
