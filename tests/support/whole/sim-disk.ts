/**
 * A disk with a volatile cache. What was written is read by everybody at once and survives a process; after a loss
 * of power each sector holds what the last sync made durable or any version written since.
 *
 *   write ends --> current, and a version of each sector --- sync that began later succeeds --> durable
 *                                                       \-- that sync fails --> some of them are never durable
 */
import { Arena } from "../../../src/ffi/arena.ts";
import { copyMemory } from "../../../src/ffi/memory.ts";
import type { SeededRandom } from "../random.ts";

export const SECTOR = 512;

interface Version {
  readonly number: number;
  readonly bytes: Uint8Array;
}

/** A write that was handed over and has not ended. */
export interface PendingWrite {
  readonly sector: number;
  /** What it writes, as it is now. */
  readonly bytes: () => Uint8Array;
}

export class SimDisk implements Disposable {
  readonly sectors: number;
  /** What is read. */
  readonly current: Uint8Array;
  readonly #durable: Uint8Array;
  readonly #arena: Arena;
  readonly #versions = new Map<number, Version[]>();
  /** What is read there a failed sync has dropped: it is not written again by itself. */
  readonly #dropped = new Set<number>();
  readonly #random: SeededRandom;
  /** Under way, of whatever engine. */
  readonly pending = new Set<PendingWrite>();
  /** Says that a sync succeeded and did nothing. */
  isLying = false;
  #number = 0;

  constructor(content: Uint8Array, random: SeededRandom) {
    this.sectors = content.length / SECTOR;
    this.#arena = new Arena(content.length + 4096);
    const { view } = this.#arena.bytes(content.length);
    this.current = view;
    this.current.set(content);
    this.#durable = content.slice();
    this.#random = random;
  }

  readBytes(offset: number, bytes: number, address: number): void {
    copyMemory(address, this.#arena.address + offset, bytes);
  }

  /** @param isDurable when this ends, as well as all that was written to these sectors before */
  write(sector: number, bytes: Uint8Array, isDurable: boolean): void {
    this.#number += 1;
    for (let i = 0; i < bytes.length / SECTOR; i++) {
      this.#put(sector + i, bytes.slice(i * SECTOR, (i + 1) * SECTOR));
      if (isDurable) {
        this.#settle(sector + i, this.#number);
      }
    }
  }

  /** Some of the sectors of a write that is not to end well. */
  tear(sector: number, bytes: Uint8Array): void {
    const isPrefix = this.#random.oneIn(2);
    let isWritten = this.#random.oneIn(2);
    for (let i = 0; i < bytes.length / SECTOR; i++) {
      if (isWritten) {
        this.write(sector + i, bytes.subarray(i * SECTOR, (i + 1) * SECTOR), false);
      }
      isWritten = isPrefix ? isWritten && !this.#random.oneIn(4) : this.#random.oneIn(2);
    }
  }

  /** A sync begins: covers what was written up to the number that this returns. */
  syncPoint(): number {
    return this.#number;
  }

  synced(point: number): void {
    if (this.isLying) {
      return;
    }
    for (const sector of [...this.#versions.keys()]) {
      this.#settle(sector, point);
    }
  }

  /** As kernels do: what could not be made durable is dropped, and the next sync knows nothing of it. */
  syncFailed(point: number): void {
    for (const [sector, versions] of this.#versions) {
      if (this.#random.oneIn(2)) {
        this.#keep(sector, versions, point);
        if (!this.#versions.has(sector)) {
          this.#dropped.add(sector);
        }
      }
    }
  }

  /** Whether what is read of a sector will never be durable. */
  isDropped(sector: number): boolean {
    return this.#dropped.has(sector);
  }

  /** What a sector may hold after a loss of power, one of it. */
  chosen(sector: number, bias: CrashBias): Uint8Array {
    const versions = this.#versions.get(sector) ?? [];
    const durable = this.#durable.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    if (versions.length === 0 || bias === "none") {
      return durable;
    }
    const choice =
      bias === "all" ? versions.length - 1 : this.#random.below(versions.length + 1) - 1;
    return versions[choice]?.bytes ?? durable;
  }

  /** Everything after a loss of power, with parts of what was under way. Nothing changes. */
  imageAfterPowerLoss(): Uint8Array {
    const bias = this.#random.pick<CrashBias>(["none", "all", "some", "some"]);
    const image = this.#durable.slice();
    for (const sector of this.#versions.keys()) {
      image.set(this.chosen(sector, bias), sector * SECTOR);
    }
    for (const { sector, bytes } of this.pending) {
      const content = this.#random.oneIn(2) ? bytes() : new Uint8Array(0);
      for (let i = 0; i < content.length / SECTOR; i++) {
        if (this.#random.oneIn(2)) {
          image.set(content.subarray(i * SECTOR, (i + 1) * SECTOR), (sector + i) * SECTOR);
        }
      }
    }
    return image;
  }

  /** The process that wrote is dead: what was under way ends in part. */
  endPending(): void {
    for (const { sector, bytes } of this.pending) {
      if (this.#random.oneIn(2)) {
        this.write(sector, bytes(), false);
      } else {
        this.tear(sector, bytes());
      }
    }
    this.pending.clear();
  }

  losePower(): void {
    const image = this.imageAfterPowerLoss();
    this.pending.clear();
    this.#versions.clear();
    this.#dropped.clear();
    this.#durable.set(image);
    this.current.set(image);
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #put(sector: number, bytes: Uint8Array): void {
    this.current.set(bytes, sector * SECTOR);
    this.#dropped.delete(sector);
    const versions = this.#versions.get(sector) ?? [];
    versions.push({ number: this.#number, bytes });
    this.#versions.set(sector, versions);
  }

  #settle(sector: number, point: number): void {
    const versions = this.#versions.get(sector) ?? [];
    const last = versions.findLast(({ number }) => number <= point);
    if (last !== undefined) {
      this.#durable.set(last.bytes, sector * SECTOR);
      this.#keep(sector, versions, point);
    }
  }

  /** Versions behind the point only. */
  #keep(sector: number, versions: readonly Version[], point: number): void {
    const kept = versions.filter(({ number }) => number > point);
    if (kept.length === 0) {
      this.#versions.delete(sector);
    } else {
      this.#versions.set(sector, kept);
    }
  }
}

export type CrashBias = "none" | "all" | "some";

export function sharedCopy(bytes: Uint8Array): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(bytes.length);
  new Uint8Array(shared).set(bytes);
  return shared;
}
