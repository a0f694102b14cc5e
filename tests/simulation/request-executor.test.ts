/**
 * Random requests of all kinds over a fake engine that finishes them in any order and with any faults,
 * against an array of bytes: every outcome and every byte is the model's, no request is lost or finished
 * twice, and at the end all buffers are back. A failure prints its seed; `fc.assert`'s `seed` and `path`
 * replay it.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { FakeWork } from "../../src/disk/fake-engine.ts";
import {
  ExecutorWorld,
  type Finished,
  Operation,
  Outcome,
  SECTOR,
  type WorldRequest,
} from "../support/executor-world.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";

const SECTORS = 3072;
const STEPS = 120;
const LIMIT_MS = rounds(30_000, 1_200_000);
const EIO = -5;
const EINTR = -4;
const EAGAIN = -11;
const ZERO_RANGE = 16;
/** More passing faults in a row are a failure. */
const PASSING_MAX = 3;

test.each([
  { name: "plain", isEnciphered: false, blockBytes: 512 },
  { name: "enciphered", isEnciphered: true, blockBytes: 512 },
  { name: "plain, blocks of 4096 bytes", isEnciphered: false, blockBytes: 4096 },
  { name: "enciphered, blocks of 4096 bytes", isEnciphered: true, blockBytes: 4096 },
])(
  "random requests, $name",
  ({ isEnciphered, blockBytes }) => {
    fc.assert(
      fc.property(fc.noShrink(fc.integer()), (seed) => {
        using run = new Run(seed, isEnciphered, blockBytes);
        run.play();
      }),
      { numRuns: rounds(12, 1500), includeErrorInReport: true },
    );
  },
  LIMIT_MS,
);

// --- internal ---

class Run implements Disposable {
  readonly #random: SeededRandom;
  readonly #world: ExecutorWorld;
  /** What the disk must hold, and which bytes nobody can know (freed, or under a failed write). */
  readonly #model = new Uint8Array(SECTORS * SECTOR);
  readonly #isUnknown = new Uint8Array(SECTORS);
  /** Sectors of the medium that fail whatever touches them. */
  readonly #bad = new Set<number>();
  readonly #passing = new Map<number, number>();
  #last: WorldRequest | undefined;

  constructor(seed: number, isEnciphered: boolean, blockBytes: number) {
    const random = new SeededRandom(seed);
    this.#random = random;
    this.#world = new ExecutorWorld({
      slots: random.between(1, 16),
      segmentsPerSlot: random.between(1, 6),
      sectors: SECTORS,
      blockBytes,
      isEnciphered,
      memoryAlignBytes: random.pick([4, 512]),
      canRegister: !random.oneIn(4),
      unsupportedModes: random.oneIn(3) ? ZERO_RANGE : 0,
    });
    this.#model.forEach((_, i) => {
      this.#model[i] = (i * 31 + (i >> 9)) & 0xff;
    });
    this.#world.fill(this.#model.slice());
    // The sub-block writer has its own system calls: no bad sectors where it may be used.
    if (blockBytes === SECTOR && random.oneIn(2)) {
      this.#bad.add(random.below(SECTORS)).add(random.below(64));
    }
    this.#world.fault = (work) => this.#fault(work);
  }

  play(): void {
    for (let step = 0; step < STEPS; step++) {
      this.#step();
    }
    this.#check(this.#world.drain());
    expect(this.#world.inFlight.size).toBe(0);
    this.#checkContents();
    this.#checkBuffers();
  }

  [Symbol.dispose](): void {
    this.#world[Symbol.dispose]();
  }

  #step(): void {
    const random = this.#random;
    const { underWay } = this.#world.engine;
    const choice = random.below(10);
    if (choice < 6) {
      this.#admit();
    } else if (choice < 8 || underWay.length === 0) {
      this.#check(this.#world.turn());
    } else {
      this.#check(this.#world.finishWork(random.below(underWay.length)));
    }
  }

  #admit(): void {
    const request = this.#request();
    // What requests under way at the same time leave on the same sectors is undefined by the guest itself.
    const isFree = [...this.#world.inFlight.values()].every((other) => !isConflict(request, other));
    if (isFree) {
      this.#world.admit(request);
    }
  }

  #request(): WorldRequest {
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
    if (!isTransfer || sector + sectors > SECTORS) {
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
    const last = SECTORS - sectors;
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

  #fault(work: FakeWork): number | undefined {
    const random = this.#random;
    const first = work.offset / SECTOR;
    const count = work.bytes / SECTOR;
    if ([...this.#bad].some((sector) => sector >= first && sector < first + count)) {
      return EIO;
    }
    const passed = this.#passing.get(work.id) ?? 0;
    if (random.oneIn(5) && passed < PASSING_MAX) {
      this.#passing.set(work.id, passed + 1);
      const isTransfer = work.kind === "read" || work.kind === "write";
      const short = random.below(count) * SECTOR;
      return random.pick(isTransfer ? [EINTR, EAGAIN, short - (short % 4096)] : [EINTR, EAGAIN]);
    }
    this.#passing.delete(work.id);
    return undefined;
  }

  #check(finished: readonly Finished[]): void {
    for (const each of finished) {
      const { request, outcome } = each;
      const isBad = this.#touchesBad(request);
      switch (request.operation) {
        case Operation.read:
          expect(outcome).toBe(isBad ? Outcome.ioError : Outcome.ok);
          if (!isBad) {
            this.#checkRead(request, each.data);
          }
          break;
        case Operation.write:
          expect(outcome).toBe(isBad ? Outcome.ioError : Outcome.ok);
          this.#set(request.sector, request.data ?? new Uint8Array(0), !isBad);
          break;
        case Operation.flush:
          expect(outcome).toBe(Outcome.ok);
          break;
        default:
          expect(outcome).toBe(isBad ? Outcome.ioError : Outcome.ok);
          this.#setRanges(request, outcome);
      }
    }
  }

  #touchesBad(request: WorldRequest): boolean {
    return spans(request).some(([first, count]) =>
      [...this.#bad].some((sector) => sector >= first && sector < first + count),
    );
  }

  #checkRead(request: WorldRequest, data: Uint8Array): void {
    for (let i = 0; i < data.length / SECTOR; i++) {
      const sector = request.sector + i;
      if (this.#isUnknown[sector] === 0) {
        const expected = this.#model.subarray(sector * SECTOR, (sector + 1) * SECTOR);
        expect(Buffer.compare(data.subarray(i * SECTOR, (i + 1) * SECTOR), expected)).toBe(0);
      }
    }
  }

  #set(sector: number, data: Uint8Array, isKnown: boolean): void {
    this.#model.set(data, sector * SECTOR);
    this.#isUnknown.fill(isKnown ? 0 : 1, sector, sector + data.length / SECTOR);
  }

  #setRanges(request: WorldRequest, outcome: number): void {
    const isKnown = request.operation === Operation.writeZeroes && outcome === Outcome.ok;
    for (const { sector, sectorCount } of request.ranges ?? []) {
      this.#set(sector, new Uint8Array(sectorCount * SECTOR), isKnown);
    }
  }

  #checkContents(): void {
    const contents = this.#world.contents();
    const wrong = Array.from({ length: SECTORS }, (_, sector) => sector).filter(
      (sector) =>
        this.#isUnknown[sector] === 0 &&
        Buffer.compare(
          contents.subarray(sector * SECTOR, (sector + 1) * SECTOR),
          this.#model.subarray(sector * SECTOR, (sector + 1) * SECTOR),
        ) !== 0,
    );
    expect(wrong).toEqual([]);
  }

  /** All of the pool is free: as many 256 KiB pieces start at once as it has room for. */
  #checkBuffers(): void {
    this.#world.fault = () => undefined;
    const { slots } = this.#world.options;
    for (let i = 0; i < slots; i++) {
      const sector = (i % 5) * 600;
      // An odd address keeps them away from direct I/O.
      this.#world.admit({ operation: Operation.read, sector, segments: [2 ** 18], gapBytes: 1 });
    }
    this.#world.turn();
    const underWay = this.#world.engine.underWay.filter(({ bytes }) => bytes === 2 ** 18);
    expect(underWay.length).toBe(Math.min(slots, 4));
    this.#world.drain();
  }
}

function isConflict(a: WorldRequest, b: WorldRequest): boolean {
  if (a.operation === Operation.read && b.operation === Operation.read) {
    return false;
  }
  return spans(a).some(([start, count]) =>
    spans(b).some(([other, otherCount]) => start < other + otherCount && other < start + count),
  );
}

/** First sector and count of everything that a request touches. */
function spans(request: WorldRequest): readonly (readonly [number, number])[] {
  if (request.ranges !== undefined) {
    return request.ranges.map(({ sector, sectorCount }) => [sector, sectorCount]);
  }
  const bytes = request.segments.reduce((sum, length) => sum + length, 0);
  return [[request.sector, bytes / SECTOR]];
}
