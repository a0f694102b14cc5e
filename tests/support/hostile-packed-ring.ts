/** The driver's side of a hostile client's packed ring: chains where they belong, and every word to be set at will. */
import { DESCRIPTOR_BYTES, DESCRIPTOR_NEXT } from "../../src/formats/virtio-ring.ts";
import type { Descriptor } from "./hostile-client.ts";

const AVAILABLE = 0x80;
const USED = 0x8000;
/** Of a fresh ring: both sides begin in the first lap. */
export const FIRST_BASE = 0x8000_8000;

export class HostilePackedRing {
  readonly #memory: DataView;
  readonly #entries: number;
  /** Descriptors of the chains offered under an id, oldest first. */
  readonly #counts = new Map<number, number[]>();
  #place = 0;
  #lap = 1;
  #usedPlace = 0;
  #usedLap = 1;
  usedCount = 0;

  /** @param memory the ring's, from its first descriptor on */
  constructor(memory: DataView, entries: number) {
    this.#memory = memory;
    this.#entries = entries;
  }

  /** Makes a chain available. Its flags are the caller's, but for NEXT and whose it is. */
  offer(id: number, chain: readonly Descriptor[]): void {
    const first = { place: this.#place, flags: 0 };
    chain.forEach((descriptor, i) => {
      const owner = this.#lap === 1 ? AVAILABLE : USED;
      const link = i + 1 < chain.length ? DESCRIPTOR_NEXT : 0;
      const flags = descriptor.flags | link | owner;
      writePackedDescriptor(this.#memory, this.#place * DESCRIPTOR_BYTES, descriptor, id);
      if (i === 0) {
        first.flags = flags;
      } else {
        this.setFlags(this.#place, flags);
      }
      this.#place += 1;
      if (this.#place === this.#entries) {
        this.#place = 0;
        this.#lap ^= 1;
      }
    });
    this.#counts.set(id, [...(this.#counts.get(id) ?? []), chain.length]);
    this.setFlags(first.place, first.flags);
  }

  setFlags(place: number, flags: number): void {
    this.#memory.setUint16(place * DESCRIPTOR_BYTES + 14, flags, true);
  }

  /** The next used descriptor, or undefined. @throws Error when it is of no chain that was offered */
  next(): { readonly id: number; readonly length: number } | undefined {
    const at = this.#usedPlace * DESCRIPTOR_BYTES;
    const flags = this.#memory.getUint16(at + 14, true);
    if ((flags & (AVAILABLE | USED)) !== (this.#usedLap === 1 ? AVAILABLE | USED : 0)) {
      return undefined;
    }
    const id = this.#memory.getUint16(at + 12, true);
    const count = this.#counts.get(id)?.shift();
    if (count === undefined) {
      throw new Error(`used id ${id} is of no chain that was offered`);
    }
    this.#usedPlace += count;
    if (this.#usedPlace >= this.#entries) {
      this.#usedPlace -= this.#entries;
      this.#usedLap ^= 1;
    }
    this.usedCount += 1;
    return { id, length: this.#memory.getUint32(at + 8, true) };
  }
}

/** Address, length and id; of a ring's own, flags come later. */
export function writePackedDescriptor(
  memory: DataView,
  offset: number,
  descriptor: Descriptor,
  id: number,
): void {
  memory.setBigUint64(offset, BigInt(descriptor.address), true);
  memory.setUint32(offset + 8, descriptor.length, true);
  memory.setUint16(offset + 12, id, true);
}
