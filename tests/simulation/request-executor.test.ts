/**
 * Random requests of all kinds over a fake engine that finishes them in any order and with any faults,
 * against an array of bytes: every outcome and every byte is the model's, no request is lost or finished
 * twice, and at the end all buffers are back. A failure prints its seed; `fc.assert`'s `seed` and `path`
 * replay it.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { FakeWork } from "../../src/disk/fake-engine.ts";
import { DiskModel } from "../support/disk-model.ts";
import {
  ExecutorWorld,
  Operation,
  SECTOR,
  type WorldOptions,
  type WorldRequest,
} from "../support/executor-world.ts";
import { SeededRandom } from "../support/random.ts";
import { isConflict, RandomRequests } from "../support/random-requests.ts";
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

const DISKS = [
  { name: "plain", isEnciphered: false, blockBytes: 512 },
  { name: "enciphered", isEnciphered: true, blockBytes: 512 },
  { name: "plain, blocks of 4096 bytes", isEnciphered: false, blockBytes: 4096 },
  { name: "enciphered, blocks of 4096 bytes", isEnciphered: true, blockBytes: 4096 },
] as const;

test.each([
  ...DISKS.map((disk) => ({ ...disk, isMemoryOwn: false })),
  ...DISKS.map((disk) => ({ ...disk, name: `${disk.name}, in place`, isMemoryOwn: true })),
])(
  "random requests, $name",
  ({ isEnciphered, blockBytes, isMemoryOwn }) => {
    fc.assert(
      fc.property(fc.noShrink(fc.integer()), (seed) => {
        using run = new Run(seed, { isEnciphered, blockBytes, isMemoryOwn });
        run.play();
      }),
      { numRuns: rounds(12, 1500), includeErrorInReport: true },
    );
  },
  LIMIT_MS,
);

// --- internal ---

type DiskKind = Pick<WorldOptions, "isEnciphered" | "blockBytes" | "isMemoryOwn">;

class Run implements Disposable {
  readonly #random: SeededRandom;
  readonly #world: ExecutorWorld;
  readonly #requests: RandomRequests;
  readonly #model = new DiskModel(SECTORS);
  readonly #passing = new Map<number, number>();

  constructor(seed: number, disk: DiskKind) {
    const { isEnciphered, blockBytes, isMemoryOwn } = disk;
    const random = new SeededRandom(seed);
    this.#random = random;
    this.#requests = new RandomRequests(random, SECTORS);
    this.#world = new ExecutorWorld({
      slots: random.between(1, 16),
      segmentsPerSlot: isMemoryOwn ? 1 : random.between(1, 6),
      sectors: SECTORS,
      blockBytes,
      isEnciphered,
      isMemoryOwn,
      memoryAlignBytes: random.pick([4, 512]),
      canRegister: !random.oneIn(4),
      unsupportedModes: random.oneIn(3) ? ZERO_RANGE : 0,
    });
    this.#world.fill(this.#model.content.slice());
    // The sub-block writer has its own system calls: no bad sectors where it may be used.
    if (blockBytes === SECTOR && random.oneIn(2)) {
      this.#model.bad.add(random.below(SECTORS)).add(random.below(64));
    }
    this.#world.fault = (work) => this.#fault(work);
  }

  play(): void {
    for (let step = 0; step < STEPS; step++) {
      this.#step();
    }
    this.#model.check(this.#world.drain());
    expect(this.#world.inFlight.size).toBe(0);
    this.#model.checkContents(this.#world.contents());
    if (this.#world.options.isMemoryOwn !== true) {
      this.#checkBuffers();
    }
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
      this.#model.check(this.#world.turn());
    } else {
      this.#model.check(this.#world.finishWork(random.below(underWay.length)));
    }
  }

  #admit(): void {
    const request = this.#next();
    const isFree = [...this.#world.inFlight.values()].every((other) => !isConflict(request, other));
    if (isFree) {
      this.#world.admit(request);
    }
  }

  /** In place a request's memory is one segment. */
  #next(): WorldRequest {
    const request = this.#requests.next();
    if (this.#world.options.isMemoryOwn !== true || request.segments.length === 0) {
      return request;
    }
    const bytes = request.segments.reduce((sum, length) => sum + length, 0);
    const segments = request.ranges === undefined ? [bytes] : [];
    return { ...request, segments, gapBytes: 0, isDurable: this.#random.oneIn(4) };
  }

  #fault(work: FakeWork): number | undefined {
    const random = this.#random;
    const first = work.offset / SECTOR;
    const count = work.bytes / SECTOR;
    if ([...this.#model.bad].some((sector) => sector >= first && sector < first + count)) {
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
