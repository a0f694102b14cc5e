import { expect, test } from "bun:test";
import fc from "fast-check";
import { SeededRandom } from "../../tests/support/random.ts";
import { Arena } from "../ffi/arena.ts";
import { viewOf } from "../ffi/memory.ts";
import { RequestTable } from "./request-table.ts";
import { type SectorCipher, SectorCopy } from "./sector-copy.ts";

const SECTOR = 512;
const SECTORS_MAX = 16;
const FIRST_SECTOR = 1000;

test("sector copy: whole sectors are enciphered in one pass each, with their own numbers", () => {
  using bench = new Bench([1024, 512]);
  bench.copy.gather(bench.slot, FIRST_SECTOR, bench.buffer.address, 3 * SECTOR);
  expect(bench.passes).toEqual([
    { sector: FIRST_SECTOR, count: 2, isInPlace: false },
    { sector: FIRST_SECTOR + 2, count: 1, isInPlace: false },
  ]);
});

test("sector copy: segments of odd lengths are gathered first, then enciphered in place", () => {
  using bench = new Bench([256, 256, 512]);
  bench.copy.gather(bench.slot, FIRST_SECTOR, bench.buffer.address, 2 * SECTOR);
  expect(bench.passes).toEqual([{ sector: FIRST_SECTOR, count: 2, isInPlace: true }]);
});

test("sector copy: a cipher that fails is told, in one pass or two", () => {
  for (const segments of [[512], [256, 256]]) {
    using bench = new Bench(segments);
    bench.result = -9;
    const { slot, copy, buffer } = bench;
    expect(copy.gather(slot, FIRST_SECTOR, buffer.address, SECTOR)).toBe(false);
    copy.rewind(slot);
    expect(copy.scatter(slot, FIRST_SECTOR, buffer.address, SECTOR)).toBe(false);
  }
});

test("sector copy: a failure in the first of two segments is not forgotten", () => {
  using bench = new Bench([512, 512]);
  bench.result = -9;
  bench.resultsLeft = 1;
  expect(bench.copy.gather(bench.slot, FIRST_SECTOR, bench.buffer.address, 1024)).toBe(false);
});

test.each([
  { name: "plain", isEnciphered: false },
  { name: "enciphered", isEnciphered: true },
])(
  "sector copy, $name: in pieces and segments of any size, what is gathered can be scattered",
  ({ isEnciphered }) => {
    fc.assert(
      fc.property(fc.noShrink(fc.integer()), (seed) => {
        const random = new SeededRandom(seed);
        const sectors = random.between(1, SECTORS_MAX);
        using bench = new Bench(cut(random, sectors * SECTOR), isEnciphered);
        bench.fillSegments(random);
        const before = bench.segmentBytes();
        inPieces(random, sectors, (sector, count) => {
          const at = bench.buffer.address + sector * SECTOR;
          expect(bench.copy.gather(bench.slot, FIRST_SECTOR + sector, at, count * SECTOR)).toBe(
            true,
          );
        });
        expect(bench.bufferBytes(sectors)).toEqual(isEnciphered ? xored(before) : before);
        bench.clearSegments();
        bench.copy.rewind(bench.slot);
        inPieces(random, sectors, (sector, count) => {
          const at = bench.buffer.address + sector * SECTOR;
          expect(bench.copy.scatter(bench.slot, FIRST_SECTOR + sector, at, count * SECTOR)).toBe(
            true,
          );
        });
        expect(bench.segmentBytes()).toEqual(before);
      }),
      { numRuns: 150, includeErrorInReport: true },
    );
  },
);

// --- internal ---

/** One request with the given segments, one odd byte apart, and a buffer. */
class Bench implements Disposable {
  readonly guest = new Arena(65_536);
  readonly buffer = new Arena(SECTORS_MAX * SECTOR);
  readonly slot: number;
  readonly copy: SectorCopy;
  readonly passes: { sector: number; count: number; isInPlace: boolean }[] = [];
  /** What the next `resultsLeft` passes return. */
  result = 0;
  resultsLeft = Number.POSITIVE_INFINITY;
  readonly #ranges: readonly (readonly [number, number])[];
  readonly #bytes = new Uint8Array(viewOf(this.guest.address, this.guest.lengthBytes));

  constructor(segments: readonly number[], isEnciphered = true) {
    const table = new RequestTable(1, 64);
    this.slot = table.take(segments.length);
    const place = table.segmentStart[this.slot] ?? 0;
    let at = 1;
    this.#ranges = segments.map((length, i) => {
      table.segmentAddress[place + i] = this.guest.address + at;
      table.segmentLength[place + i] = length;
      at += length + 1;
      return [at - length - 1, length];
    });
    this.copy = new SectorCopy(table, isEnciphered ? this.#cipher() : undefined);
    this.copy.rewind(this.slot);
  }

  fillSegments(random: SeededRandom): void {
    for (const [start, length] of this.#ranges) {
      for (let i = 0; i < length; i++) {
        this.#bytes[start + i] = random.below(256);
      }
    }
  }

  clearSegments(): void {
    this.#bytes.fill(0);
  }

  segmentBytes(): Buffer {
    return Buffer.concat(
      this.#ranges.map(([start, length]) => this.#bytes.slice(start, start + length)),
    );
  }

  bufferBytes(sectors: number): Buffer {
    return Buffer.from(viewOf(this.buffer.address, sectors * SECTOR).slice(0));
  }

  [Symbol.dispose](): void {
    this.guest[Symbol.dispose]();
    this.buffer[Symbol.dispose]();
  }

  #cipher(): SectorCipher {
    const pass = (sector: number, count: number, source: number, target: number) => {
      this.passes.push({ sector, count, isInPlace: source === target });
      const from = Buffer.from(viewOf(source, count * SECTOR).slice(0));
      const first = sector - FIRST_SECTOR;
      new Uint8Array(viewOf(target, count * SECTOR)).set(xored(from, first));
      this.resultsLeft -= 1;
      return this.resultsLeft >= 0 ? this.result : 0;
    };
    return { encrypt: pass, decrypt: pass };
  }
}

/** Each byte changed by its sector's number; twice is nothing. */
function xored(bytes: Buffer, firstSector = 0): Buffer {
  return Buffer.from(
    bytes.map((byte, i) => byte ^ (((firstSector + Math.floor(i / SECTOR)) * 7 + 1) & 0xff)),
  );
}

function cut(random: SeededRandom, total: number): readonly number[] {
  const unit = random.pick([1, 256, 512]);
  const segments: number[] = [];
  let left = total;
  while (left > 0 && segments.length < 30) {
    const length = Math.min(left, unit * random.between(1, 9));
    segments.push(length);
    left -= length;
  }
  return left > 0 ? [...segments, left] : segments;
}

function inPieces(
  random: SeededRandom,
  sectors: number,
  body: (sector: number, count: number) => void,
): void {
  for (let sector = 0; sector < sectors; ) {
    const count = Math.min(sectors - sector, random.between(1, 5));
    body(sector, count);
    sector += count;
  }
}
