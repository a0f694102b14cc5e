/**
 * What a guest may find in each sector, of what it sent and was told:
 *
 *   settled   what a read may see when no write is on its way: the last write that succeeded, or one that was on its
 *             way at the same time; one that failed and those before it
 *   kept      what is there after a loss of power if no later write is: settled when the last flush that succeeded
 *             was sent, or the last durable write ended
 *   later     writes that a loss of power may show or not
 *   doubtful  a flush failed, or a write with its own sync: it may come back until it is overwritten
 */
import { Content, nameOfContent } from "./sector-content.ts";

interface Later {
  readonly value: number;
  /** Step at which the guest was told its end; Infinity before. */
  endedAt: number;
}

interface Sector {
  settled: readonly number[];
  kept: readonly number[];
  keptAt: number;
  later: Later[];
  doubtful: readonly number[];
  /** Writes on their way, and reads that are to see them. */
  readonly writes: Set<GuestWrite>;
  readonly reads: Set<GuestRead>;
}

/** A write, a write of zeros or a discard on its way. */
export interface GuestWrite {
  readonly first: number;
  readonly count: number;
  readonly values: readonly number[];
  /** What was there before may stay. */
  readonly isDiscard: boolean;
  /** By sector: what ended while this was on its way. */
  readonly meanwhile: (readonly number[])[];
  readonly later: Later[];
  /** When its end was shown to the guest, which may look later. */
  shownAt: number;
  /** A flush failed, shown to the guest no earlier than this: the disk may have had the data by then, and lost it. */
  isDoubtful: boolean;
}

export interface GuestRead {
  readonly first: number;
  readonly count: number;
  readonly visible: Set<number>[];
  /** By sector: a write was on its way at some time. */
  readonly isShaky: boolean[];
}

export interface FlushPoint {
  readonly at: number;
  readonly settled: Map<number, readonly number[]>;
}

export class GuestModel {
  readonly #sectors: Sector[];
  /** Sectors that a loss of power may change. */
  readonly #dirty = new Set<number>();
  /** Flushes on their way. */
  readonly #points = new Set<FlushPoint>();
  readonly #isDropped: (sector: number) => boolean;
  #step = 0;

  /** @param isDropped whether a failed sync has dropped what is read there */
  constructor(initial: readonly number[], isDropped: (sector: number) => boolean) {
    this.#isDropped = isDropped;
    this.#sectors = initial.map((value) => newSector([value]));
  }

  /** The disk is larger. */
  grow(sectors: number): void {
    while (this.#sectors.length < sectors) {
      this.#sectors.push(newSector([Content.zeros]));
    }
  }

  beginWrite(options: {
    readonly first: number;
    readonly count: number;
    readonly values: readonly number[];
    readonly isDiscard: boolean;
  }): GuestWrite {
    const write: GuestWrite = {
      ...options,
      meanwhile: Array.from({ length: options.count }, () => []),
      later: [],
      shownAt: Number.POSITIVE_INFINITY,
      isDoubtful: false,
    };
    for (const [i, sector] of this.#range(write)) {
      sector.writes.add(write);
      this.#dirty.add(write.first + i);
      for (const value of write.values) {
        const later = { value, endedAt: Number.POSITIVE_INFINITY };
        sector.later.push(later);
        write.later.push(later);
      }
      for (const read of sector.reads) {
        const place = write.first + i - read.first;
        for (const value of write.values) {
          read.visible[place]?.add(value);
        }
        read.isShaky[place] = true;
      }
    }
    return write;
  }

  /** @param isDurable it is on the medium, as a device without a write cache says */
  endWrite(write: GuestWrite, isOk: boolean, isDurable: boolean): void {
    this.#end(write, isOk);
    if (isOk && isDurable && !write.isDiscard) {
      for (const [i, sector] of this.#range(write)) {
        this.#keep(write.first + i, sector, sector.settled, this.#step);
      }
    }
  }

  /** Nobody will be told its end: it is there or not. */
  abandon(write: GuestWrite): void {
    this.#end(write, false);
  }

  beginRead(first: number, count: number): GuestRead {
    const read: GuestRead = { first, count, visible: [], isShaky: [] };
    for (const [, sector] of this.#range(read)) {
      const underWay = [...sector.writes].flatMap(({ values }) => values);
      read.visible.push(new Set([...sector.settled, ...underWay]));
      read.isShaky.push(sector.writes.size > 0);
      sector.reads.add(read);
    }
    return read;
  }

  /** @param values undefined when it failed or nobody will be told. @throws Error that names what is wrong */
  endRead(read: GuestRead, values: readonly number[] | undefined): void {
    for (const [i, sector] of this.#range(read)) {
      sector.reads.delete(read);
      const value = values?.[i];
      if (value === undefined) {
        continue;
      }
      const visible = read.visible[i] ?? new Set();
      if (!visible.has(value)) {
        throw new Error(
          `sector ${read.first + i} reads as ${nameOfContent(value)} and may hold ${namesOf(visible)}`,
        );
      }
      if (read.isShaky[i] === false && sector.writes.size === 0) {
        sector.settled = [value];
      }
    }
  }

  /** What is to be kept when a flush that is sent now succeeds. */
  flushPoint(): FlushPoint {
    this.#step += 1;
    const settled = new Map<number, readonly number[]>();
    for (const place of this.#dirty) {
      const sector = this.#at(place);
      settled.set(place, union(sector.settled, sector.doubtful));
    }
    const point = { at: this.#step, settled };
    this.#points.add(point);
    return point;
  }

  /** Nobody will be told its end. */
  abandonFlush(point: FlushPoint): void {
    this.#points.delete(point);
  }

  /**
   * A failure is one of the device: what others on their way cover is doubtful as well, and what they wrote when their
   * ends were shown before this one. A write whose end is shown later is not: another flush would have to tell.
   * @param shownAt when its end was shown to the guest
   */
  endFlush(point: FlushPoint, isOk: boolean, shownAt: number): void {
    this.#points.delete(point);
    if (isOk) {
      for (const [place, settled] of point.settled) {
        this.#keep(place, this.#at(place), settled, point.at);
      }
      return;
    }
    for (const place of this.#dirty) {
      const sector = this.#at(place);
      sector.doubtful = this.#afterPowerLoss(sector);
      sector.settled = union(sector.settled, sector.doubtful);
      for (const write of sector.writes) {
        write.isDoubtful ||= write.shownAt <= shownAt;
      }
      for (const other of this.#points) {
        const settled = other.settled.get(place);
        if (settled !== undefined) {
          other.settled.set(place, union(settled, sector.doubtful));
        }
      }
      for (const read of sector.reads) {
        for (const value of sector.settled) {
          read.visible[place - read.first]?.add(value);
        }
        read.isShaky[place - read.first] = true;
      }
    }
  }

  /** @throws Error when the sector may not hold this after a loss of power */
  checkAfterPowerLoss(place: number, value: number): void {
    const possible = this.#afterPowerLoss(this.#at(place));
    if (!possible.includes(value)) {
      throw new Error(
        `after a loss of power sector ${place} holds ${nameOfContent(value)}, not ${namesOf(possible)}`,
      );
    }
  }

  /** @throws Error when the sector may not hold this, with nothing on its way */
  check(place: number, value: number): void {
    const { settled, writes } = this.#at(place);
    const possible = [...settled, ...[...writes].flatMap(({ values }) => values)];
    if (!possible.includes(value)) {
      throw new Error(`sector ${place} holds ${nameOfContent(value)}, not ${namesOf(possible)}`);
    }
  }

  /** Power was lost, and this is what was found. */
  collapse(place: number, value: number): void {
    this.#sectors[place] = newSector([value]);
    this.#dirty.delete(place);
  }

  // --- internal ---

  #end(write: GuestWrite, isOk: boolean): void {
    this.#step += 1;
    for (const later of write.later) {
      later.endedAt = this.#step;
    }
    for (const [i, sector] of this.#range(write)) {
      sector.writes.delete(write);
      const meanwhile = write.meanwhile[i] ?? [];
      const isCertain = isOk && !write.isDiscard && !write.isDoubtful;
      sector.settled = union(isCertain ? [] : sector.settled, [...write.values, ...meanwhile]);
      sector.doubtful = isCertain ? [] : sector.doubtful;
      if (!isOk && this.#isDropped(write.first + i)) {
        sector.doubtful = union(sector.doubtful, sector.settled);
      }
      for (const other of sector.writes) {
        const place = write.first + i - other.first;
        other.meanwhile[place] = union(other.meanwhile[place] ?? [], write.values);
      }
    }
  }

  #keep(place: number, sector: Sector, settled: readonly number[], at: number): void {
    if (at <= sector.keptAt) {
      return; // a later one was told before
    }
    sector.keptAt = at;
    sector.kept = settled;
    sector.later = sector.later.filter(({ endedAt }) => endedAt > at);
    if (sector.later.length === 0 && sector.doubtful.length === 0) {
      this.#dirty.delete(place);
    }
  }

  #afterPowerLoss({ kept, later, doubtful }: Sector): readonly number[] {
    return union(
      union(kept, doubtful),
      later.map(({ value }) => value),
    );
  }

  *#range({ first, count }: { readonly first: number; readonly count: number }) {
    for (let i = 0; i < count; i++) {
      yield [i, this.#at(first + i)] as const;
    }
  }

  #at(place: number): Sector {
    const sector = this.#sectors[place];
    if (sector === undefined) {
      throw new Error(`sector ${place} is outside the disk`);
    }
    return sector;
  }
}

function newSector(values: readonly number[]): Sector {
  return {
    settled: values,
    kept: values,
    keptAt: 0,
    later: [],
    doubtful: [],
    writes: new Set(),
    reads: new Set(),
  };
}

function union(a: readonly number[], b: readonly number[]): readonly number[] {
  return b.length === 0 ? a : [...new Set([...a, ...b])];
}

function namesOf(values: Iterable<number>): string {
  return [...values].map(nameOfContent).join(" or ");
}
