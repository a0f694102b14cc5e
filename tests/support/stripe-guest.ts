/**
 * What a guest may find in each sector: the value that is certain, and those written since. A value is a number:
 * negative ones come from the source, positive ones from the guest, 0 is zeros.
 */
import { expect } from "bun:test";
import type { SeededRandom } from "./random.ts";
import { DISK_SECTORS, STRIPE_SECTORS, USED } from "./stripe-disk.ts";

interface Written {
  readonly value: number;
  /** The guest was told that the write succeeded. */
  isAnswered: boolean;
}

/** A write on its way: the entries that it added. */
export type GuestWrite = readonly Written[];

/** A read on its way: what it may see of each sector, from what was there when it began to what was begun since. */
export interface GuestRead {
  readonly sector: number;
  readonly visible: readonly Set<number>[];
}

/** Sector and count of a request: within a stripe or across several, with a bias to whole ones. */
export function rangeOf(random: SeededRandom): readonly [number, number] {
  const stripe = random.pick(USED);
  const isWhole = random.oneIn(2);
  const sector = stripe * STRIPE_SECTORS + (isWhole ? 0 : random.below(2));
  const stripes = stripe === 3 || random.oneIn(2) ? 1 : random.between(1, 3);
  const end = isWhole
    ? (stripe + stripes) * STRIPE_SECTORS
    : sector + random.between(1, stripes * STRIPE_SECTORS);
  const limit = stripe <= 3 ? 4 * STRIPE_SECTORS : DISK_SECTORS;
  return [sector, Math.min(end, limit) - sector];
}

export class StripeGuest {
  readonly #sectors: Written[][];
  readonly #reads = new Set<GuestRead>();

  constructor(initial: readonly number[]) {
    this.#sectors = initial.map((value) => [{ value, isAnswered: true }]);
  }

  /** A write is sent: from here on a crash may show its value. */
  begin(sector: number, values: readonly number[]): GuestWrite {
    return values.map((value, i) => {
      const written = { value, isAnswered: false };
      this.#at(sector + i).push(written);
      for (const read of this.#reads) {
        read.visible[sector + i - read.sector]?.add(value);
      }
      return written;
    });
  }

  answered(write: GuestWrite): void {
    for (const written of write) {
      written.isAnswered = true;
    }
  }

  /** What is to be certain when a flush that is sent now succeeds. */
  flushPoint(): readonly (Written | undefined)[] {
    return this.#sectors.map((history) => history.findLast(({ isAnswered }) => isAnswered));
  }

  flushed(point: readonly (Written | undefined)[]): void {
    point.forEach((written, sector) => {
      const index = written === undefined ? -1 : this.#at(sector).indexOf(written);
      if (index > 0) {
        this.#at(sector).splice(0, index);
      }
    });
  }

  /** The values of the write are certain, and older ones are gone. */
  certain(sector: number, write: GuestWrite): void {
    write.forEach((written, i) => {
      const history = this.#at(sector + i);
      history.splice(0, history.indexOf(written));
    });
  }

  /** Whether a crash may leave this. */
  mayHold(sector: number, value: number): boolean {
    return this.#at(sector).some((written) => written.value === value);
  }

  /** The last write that succeeded may be seen, or one that failed or was begun after it. */
  beginRead(sector: number, sectorCount: number): GuestRead {
    const visible = Array.from({ length: sectorCount }, (_, i) => {
      const history = this.#at(sector + i);
      const last = history.findLastIndex(({ isAnswered }) => isAnswered);
      return new Set(history.slice(Math.max(last, 0)).map(({ value }) => value));
    });
    const read = { sector, visible };
    this.#reads.add(read);
    return read;
  }

  /** @param values undefined when the read failed */
  endRead(read: GuestRead, values: readonly number[] | undefined): void {
    this.#reads.delete(read);
    values?.forEach((value, i) => {
      expect([...(read.visible[i] ?? [])], `sector ${read.sector + i} was read`).toContain(value);
    });
  }

  /** After a crash: what is found is what there is. */
  collapse(sector: number, value: number): void {
    this.#sectors[sector] = [{ value, isAnswered: true }];
    this.#reads.clear();
  }

  // --- internal ---

  #at(sector: number): Written[] {
    const history = this.#sectors[sector];
    if (history === undefined) {
      throw new Error(`sector ${sector} is outside the disk`);
    }
    return history;
  }
}
