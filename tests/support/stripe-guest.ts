/**
 * What a guest may find in each sector: the value that is certain, and those written since. A value is a number:
 * negative ones come from the source, positive ones from the guest, 0 is zeros.
 */
import { expect } from "bun:test";

interface Written {
  readonly value: number;
  /** The guest was told that the write succeeded. */
  isAnswered: boolean;
}

/** A write on its way: the entries that it added. */
export type GuestWrite = readonly Written[];

export class StripeGuest {
  readonly #sectors: Written[][];

  constructor(initial: readonly number[]) {
    this.#sectors = initial.map((value) => [{ value, isAnswered: true }]);
  }

  /** A write is sent: from here on a crash may show its value. */
  begin(sector: number, values: readonly number[]): GuestWrite {
    return values.map((value, i) => {
      const written = { value, isAnswered: false };
      this.#at(sector + i).push(written);
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

  /** A read sees the last write that succeeded, or one that failed after it; a loose one any not certain. */
  expectRead(sector: number, values: readonly number[], isLoose: boolean): void {
    values.forEach((value, i) => {
      const history = this.#at(sector + i);
      const last = history.findLastIndex(({ isAnswered }) => isAnswered);
      const visible = history
        .slice(isLoose ? 0 : Math.max(last, 0))
        .map((written) => written.value);
      expect(visible, `sector ${sector + i} was read`).toContain(value);
    });
  }

  /** After a crash: what is found is what there is. */
  collapse(sector: number, value: number): void {
    this.#sectors[sector] = [{ value, isAnswered: true }];
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
