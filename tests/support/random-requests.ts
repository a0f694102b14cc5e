/** Random requests of all kinds on a small disk, many of them neighbours, cut into segments of all sizes. */
import { Operation, SECTOR, type WorldRequest } from "./executor-world.ts";
import type { SeededRandom } from "./random.ts";

export class RandomRequests {
  readonly #random: SeededRandom;
  readonly #sectors: number;
  #last: WorldRequest | undefined;

  constructor(random: SeededRandom, sectors: number) {
    this.#random = random;
    this.#sectors = sectors;
  }

  next(): WorldRequest {
    const random = this.#random;
    // Often what goes on where the request before ended: neighbours of one batch are merged.
    const next =
      this.#last !== undefined && random.below(3) < 2 ? this.#following(this.#last) : undefined;
    this.#last = next ?? this.#anyRequest();
    return this.#last;
  }

  #following(last: WorldRequest): WorldRequest | undefined {
    const bytes = last.segments.reduce((sum, length) => sum + length, 0);
    const sector = last.sector + bytes / SECTOR;
    const sectors = this.#random.pick([8, 8, 8, 64, 128, 300]);
    const isTransfer = last.operation === Operation.read || last.operation === Operation.write;
    if (!isTransfer || sector + sectors > this.#sectors) {
      return undefined;
    }
    return this.#transfer(last.operation, sector, sectors);
  }

  #anyRequest(): WorldRequest {
    const random = this.#random;
    const operation = random.pick([
      ...([Operation.read, Operation.read, Operation.write, Operation.write] as const),
      ...([Operation.flush, Operation.discard, Operation.writeZeroes] as const),
    ]);
    if (operation === Operation.flush) {
      return { operation, sector: 0, segments: [] };
    }
    if (operation === Operation.discard || operation === Operation.writeZeroes) {
      const ranges = Array.from({ length: random.between(1, 3) }, () => this.#range(operation));
      return { operation, sector: 0, segments: [random.between(1, 20)], ranges };
    }
    const sectors = random.pick([1, 1, 3, 8, 8, 8, 16, 64, 128, 700, 1500]);
    return this.#transfer(operation, this.#place(sectors), sectors);
  }

  #transfer(operation: number, sector: number, sectors: number): WorldRequest {
    const segments = this.#segments(sectors * SECTOR);
    const gapBytes = this.#random.pick([0, 0, 512, 4, 7]);
    const data = new Uint8Array(sectors * SECTOR).map((_, i) => (i * 17 + sector + i / 512) & 0xff);
    return operation === Operation.write
      ? { operation, sector, segments, gapBytes, data }
      : { operation, sector, segments, gapBytes };
  }

  #range(operation: number) {
    const random = this.#random;
    const sectorCount = random.pick([0, 1, 5, 8, 16, 700]);
    const flags = operation === Operation.writeZeroes ? random.below(2) : 0;
    return { sector: this.#place(sectorCount), sectorCount, flags };
  }

  /** Often near the start, where requests meet and merge. */
  #place(sectors: number): number {
    const random = this.#random;
    const last = this.#sectors - sectors;
    const place = random.oneIn(2) ? random.below(24) * 8 : random.below(last + 1);
    return Math.min(place, last);
  }

  #segments(bytes: number): readonly number[] {
    const random = this.#random;
    const segments: number[] = [];
    const unit = random.pick([512, 512, 4096, 256, 1]);
    let left = bytes;
    while (left > 0 && segments.length < random.pick([0, 1, 2, 8])) {
      const length = Math.min(left, unit * random.between(1, 64));
      segments.push(length);
      left -= length;
    }
    return left > 0 ? [...segments, left] : segments;
  }
}

/** What requests under way at the same time leave on the same sectors is undefined by the guest itself. */
export function isConflict(a: WorldRequest, b: WorldRequest): boolean {
  if (a.operation === Operation.read && b.operation === Operation.read) {
    return false;
  }
  return spans(a).some(([start, count]) =>
    spans(b).some(([other, otherCount]) => start < other + otherCount && other < start + count),
  );
}

/** First sector and count of everything that a request touches. */
export function spans(request: WorldRequest): readonly (readonly [number, number])[] {
  if (request.ranges !== undefined) {
    return request.ranges.map(({ sector, sectorCount }) => [sector, sectorCount]);
  }
  const bytes = request.segments.reduce((sum, length) => sum + length, 0);
  return [[request.sector, bytes / SECTOR]];
}
