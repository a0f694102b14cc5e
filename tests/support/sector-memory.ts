/** Memory of a simulation, where a sector is one number and an address counts sectors. */
import { STALE } from "./stripe-disk.ts";

export class SectorMemory {
  readonly #sectors = new Map<number, number>();

  get(address: number): number {
    return this.#sectors.get(address) ?? STALE;
  }

  words(address: number, count: number): Int32Array {
    return Int32Array.from({ length: count }, (_, i) => this.get(address + i));
  }

  /** Changes `count` sectors. */
  map(address: number, count: number, change: (word: number, index: number) => number): void {
    for (let i = 0; i < count; i++) {
      this.#sectors.set(address + i, change(this.get(address + i), i));
    }
  }

  /** Takes sectors as they come from a source: each begins with its number. */
  store(address: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer);
    this.map(address, bytes.length / 512, (_, i) => view.getInt32(i * 512, true));
  }
}
