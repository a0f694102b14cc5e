import { expect, test } from "bun:test";
import {
  ExecutorWorld,
  type Finished,
  Operation,
  Outcome,
  SECTOR,
  type WorldOptions,
} from "../../tests/support/executor-world.ts";

const EIO = -5;
const EINTR = -4;
const EAGAIN = -11;
const ZERO_RANGE = 16;
const PUNCH_HOLE = 2;
const KEEP_SIZE = 1;

const PLAIN: WorldOptions = {
  slots: 8,
  segmentsPerSlot: 4,
  sectors: 16_384,
  blockBytes: 512,
  isEnciphered: false,
};
const ENCIPHERED: WorldOptions = { ...PLAIN, isEnciphered: true };

test("write then read: the bytes come back, and are not on the disk in the clear", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(8 * SECTOR, 1);
  world.admit({ operation: Operation.write, sector: 4, segments: [4096], data });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  expect(world.contents().subarray(4 * SECTOR, 12 * SECTOR)).toEqual(data);
  world.admit({ operation: Operation.read, sector: 4, segments: [4096] });
  expect(world.drain()[0]?.data).toEqual(data);
});

test("segments of half sectors: a write and a read of 256 + 256 bytes", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(SECTOR, 2);
  const segments = [256, 256];
  world.admit({ operation: Operation.write, sector: 9, segments, gapBytes: 3, data });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  world.admit({ operation: Operation.read, sector: 9, segments: [1, 510, 1], gapBytes: 5 });
  expect(world.drain()[0]?.data).toEqual(data);
});

test("neighbours of one batch become one I/O", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  for (let i = 0; i < 4; i++) {
    world.admit({ operation: Operation.read, sector: 8 * i, segments: [4096] });
  }
  world.turn();
  expect(world.engine.underWay).toMatchObject([{ kind: "read", offset: 0, bytes: 16_384 }]);
  expect(outcomes(world.drain())).toEqual([0, 0, 0, 0]);
});

test("requests that do not touch, or of two kinds, stay apart", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  world.admit({ operation: Operation.read, sector: 0, segments: [512] });
  world.admit({ operation: Operation.read, sector: 2, segments: [512] });
  world.admit({ operation: Operation.write, sector: 3, segments: [512] });
  world.turn();
  expect(world.engine.underWay.length).toBe(3);
  world.drain();
});

test("an error in a merged I/O is only that of the request it belongs to", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  world.fault = (work) => (covers(work, 8) ? EIO : undefined);
  for (let i = 0; i < 3; i++) {
    const data = pattern(4096, i);
    world.admit({ operation: Operation.write, sector: 8 * i, segments: [4096], data });
  }
  const finished = world.drain();
  const bySector = finished.toSorted((a, b) => a.request.sector - b.request.sector);
  expect(outcomes(bySector)).toEqual([Outcome.ok, Outcome.ioError, Outcome.ok]);
  expect(world.contents().subarray(16 * SECTOR, 24 * SECTOR)).toEqual(pattern(4096, 2));
});

test.each([
  { name: "EINTR", result: EINTR },
  { name: "EAGAIN", result: EAGAIN },
  { name: "a short transfer", result: 512 },
  { name: "a transfer of nothing", result: 0 },
])("$name is tried again", ({ result }) => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(4096, 3);
  let faults = 3;
  world.fault = () => {
    faults -= 1;
    return faults >= 0 ? result : undefined;
  };
  world.admit({ operation: Operation.write, sector: 0, segments: [4096], data });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  expect(world.contents().subarray(0, 4096)).toEqual(data);
});

test("a transfer that stays short is an error, and nothing of it reaches the guest", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  world.fault = () => 512;
  world.admit({ operation: Operation.read, sector: 0, segments: [4096] });
  const [finished] = world.drain();
  expect(finished?.outcome).toBe(Outcome.ioError);
  expect(finished?.data.every((byte) => byte === 0xdb)).toBe(true);
});

test("a cipher that fails: nothing is written", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  world.fill(pattern(PLAIN.sectors * SECTOR, 4));
  const before = world.contents();
  world.cipher.broken.add(3);
  world.admit({ operation: Operation.write, sector: 0, segments: [4096], data: pattern(4096, 5) });
  expect(outcomes(world.drain())).toEqual([Outcome.ioError]);
  expect(world.contents()).toEqual(before);
});

test("a request larger than all buffers goes in pieces", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(1_500 * 1024, 6);
  world.admit({ operation: Operation.write, sector: 1, segments: [1_000_000, 536_000], data });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  expect(world.contents().subarray(SECTOR, SECTOR + data.length)).toEqual(data);
});

test("more requests than buffers wait, and all are served", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  for (let i = 0; i < 8; i++) {
    const data = pattern(256 * 1024, i);
    world.admit({ operation: Operation.write, sector: i * 1024, segments: [262_144], data });
  }
  world.turn();
  expect(world.engine.underWay.length).toBe(4);
  expect(outcomes(world.drain())).toEqual(Array(8).fill(Outcome.ok));
  for (let i = 0; i < 8; i++) {
    const start = i * 1024 * SECTOR;
    expect(world.contents().subarray(start, start + 262_144)).toEqual(pattern(256 * 1024, i));
  }
});

test("a large request lets others have buffers between its pieces", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  for (let i = 0; i < 4; i++) {
    world.admit({ operation: Operation.read, sector: i * 4000, segments: [1_024_000] });
  }
  world.admit({ operation: Operation.read, sector: 16_000, segments: [4096] });
  world.turn();
  expect(world.engine.underWay.length).toBe(4);
  world.finishWork(0);
  expect(world.engine.underWay).toContainEqual(expect.objectContaining({ bytes: 4096 }));
  world.drain();
});

test("a cipher that fails in write-zeroes keeps no buffer", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  world.cipher.broken.add(3);
  const ranges = [{ sector: 0, sectorCount: 512, flags: 0 }];
  for (let i = 0; i < 8; i++) {
    world.admit({ operation: Operation.writeZeroes, sector: 0, segments: [16], ranges });
    expect(outcomes(world.drain())).toEqual([Outcome.ioError]);
  }
});

test("neighbours are merged up to 256 KiB, and as one piece", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = [0, 1, 2].map((i) => pattern(100 * 1024, i));
  for (let i = 0; i < 3; i++) {
    const segments = [100 * 1024];
    world.admit({
      operation: Operation.write,
      sector: i * 200,
      segments,
      data: data[i] ?? pattern(0, 0),
    });
  }
  world.turn();
  expect(world.engine.underWay.map(({ bytes }) => bytes)).toEqual([200 * 1024, 100 * 1024]);
  expect(outcomes(world.drain())).toEqual([Outcome.ok, Outcome.ok, Outcome.ok]);
  const written = world.contents().subarray(0, 300 * 1024);
  expect(Buffer.compare(written, Buffer.concat(data))).toBe(0);
});

test("a merged I/O waits for a buffer that holds it whole", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  for (const [i, kib] of [256, 256, 256, 128].entries()) {
    world.admit({ operation: Operation.read, sector: 4096 + i * 1024, segments: [kib * 1024] });
  }
  const data = [pattern(100 * 1024, 1), pattern(100 * 1024, 2)];
  for (const [i, part] of data.entries()) {
    const segments = [part.length];
    world.admit({ operation: Operation.write, sector: i * 200, segments, data: part });
  }
  world.turn();
  expect(world.engine.underWay.map(({ kind }) => kind)).not.toContain("write");
  world.drain();
  const written = world.contents().subarray(0, 200 * 1024);
  expect(Buffer.compare(written, Buffer.concat(data))).toBe(0);
});

test("a long write-zeroes lets others have buffers in between", () => {
  using world = new ExecutorWorld({ ...ENCIPHERED, slots: 8 });
  const ranges = [{ sector: 0, sectorCount: 8192, flags: 0 }];
  for (let i = 0; i < 4; i++) {
    world.admit({ operation: Operation.writeZeroes, sector: 0, segments: [16], ranges });
  }
  world.admit({ operation: Operation.read, sector: 10_000, segments: [4096] });
  world.turn();
  const finished: Finished[] = [];
  for (let i = 0; i < 6; i++) {
    finished.push(...world.finishWork(0));
  }
  expect(finished.map(({ request }) => request.operation)).toEqual([Operation.read]);
  world.drain();
});

test("flush: one sync, and a passing cause is tried again", () => {
  using world = new ExecutorWorld(PLAIN);
  let syncs = 0;
  world.fault = () => {
    syncs += 1;
    return syncs === 1 ? EINTR : undefined;
  };
  world.admit({ operation: Operation.flush, sector: 0, segments: [] });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  expect(syncs).toBe(2);
});

test("flush: a failed sync is told", () => {
  using world = new ExecutorWorld(PLAIN);
  world.fault = () => EIO;
  world.admit({ operation: Operation.flush, sector: 0, segments: [] });
  expect(outcomes(world.drain())).toEqual([Outcome.ioError]);
});

test("flush: on a read-only disk there is nothing to do", () => {
  using world = new ExecutorWorld({ ...PLAIN, isReadOnly: true });
  world.admit({ operation: Operation.flush, sector: 0, segments: [] });
  expect(outcomes(world.turn())).toEqual([Outcome.ok]);
});

test("disposed of with a write under way: what reaches the disk is what the guest wrote", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(8 * SECTOR, 3);
  const slot = world.admit({ operation: Operation.write, sector: 8, segments: [4096], data });
  world.turn();
  world.executor[Symbol.dispose]();
  world.engine.finish(0);
  expect(world.contents().subarray(8 * SECTOR, 16 * SECTOR)).toEqual(data);
  world.requests.give(slot);
});

test("an empty read is done at once", () => {
  using world = new ExecutorWorld(PLAIN);
  world.admit({ operation: Operation.read, sector: 0, segments: [] });
  expect(outcomes(world.turn())).toEqual([Outcome.ok]);
});

test("write-through by way of the page cache: a sync follows each write, as the kernel tells a loss only once", () => {
  using world = new ExecutorWorld({ ...PLAIN, isDirect: false });
  world.executor.setWriteThrough(true);
  world.admit({ operation: Operation.write, sector: 0, segments: [4096] });
  world.turn();
  expect(world.engine.underWay).toMatchObject([{ kind: "write", isWriteThrough: false }]);
  expect(world.finishWork(0)).toEqual([]);
  expect(world.engine.underWay).toMatchObject([{ kind: "sync" }]);
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
});

test("write-through: writes carry it, and a discard ends with a sync", () => {
  using world = new ExecutorWorld(PLAIN);
  world.executor.setWriteThrough(true);
  world.admit({ operation: Operation.write, sector: 0, segments: [4096] });
  world.turn();
  expect(world.engine.underWay).toMatchObject([{ kind: "write", isWriteThrough: true }]);
  world.drain();
  const ranges = [{ sector: 0, sectorCount: 8, flags: 0 }];
  world.admit({ operation: Operation.discard, sector: 0, segments: [16], ranges });
  world.turn();
  expect(world.finishWork(0)).toEqual([]);
  expect(world.engine.underWay).toMatchObject([{ kind: "sync" }]);
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
});

test.each([
  { name: "plain", options: PLAIN },
  {
    name: "plain, where the file cannot zero a range",
    options: { ...PLAIN, unsupportedModes: ZERO_RANGE },
  },
  { name: "enciphered", options: ENCIPHERED },
  { name: "plain, blocks of 4096 bytes", options: { ...PLAIN, blockBytes: 4096 } },
  { name: "enciphered, blocks of 4096 bytes", options: { ...ENCIPHERED, blockBytes: 4096 } },
])("write-zeroes, $name: zeros there and nothing else changes", ({ options }) => {
  using world = new ExecutorWorld(options);
  world.fill(pattern(PLAIN.sectors * SECTOR, 7));
  const expected = world.contents();
  const ranges = [
    { sector: 3, sectorCount: 2, flags: 0 }, // inside a block
    { sector: 13, sectorCount: 900, flags: 0 }, // more than one piece, begins and ends inside blocks
    { sector: 1024, sectorCount: 8, flags: 1 }, // a whole block, which may be freed
    { sector: 2000, sectorCount: 0, flags: 0 },
  ];
  for (const { sector, sectorCount } of ranges) {
    expected.fill(0, sector * SECTOR, (sector + sectorCount) * SECTOR);
  }
  world.admit({ operation: Operation.writeZeroes, sector: 0, segments: [5, 20], ranges });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  expect(world.contents()).toEqual(expected);
});

test("write-zeroes: one that is not aligned to blocks does not cost the others their fast way", () => {
  using world = new ExecutorWorld({ ...PLAIN, blockBytes: 4096 });
  const zero = (sector: number) =>
    world.admit({
      operation: Operation.writeZeroes,
      sector: 0,
      segments: [16],
      ranges: [{ sector, sectorCount: 16, flags: 0 }],
    });
  zero(3);
  world.drain();
  zero(16);
  world.turn();
  expect(world.engine.underWay).toMatchObject([{ kind: "allocate", offset: 16 * SECTOR }]);
  world.drain();
});

test.each([
  { name: "EINTR", result: EINTR },
  { name: "EAGAIN", result: EAGAIN },
  { name: "a short transfer", result: 512 },
])("write-zeroes, enciphered: $name is tried again", ({ result }) => {
  using world = new ExecutorWorld(ENCIPHERED);
  world.fill(pattern(PLAIN.sectors * SECTOR, 8));
  let faults = 2;
  world.fault = () => {
    faults -= 1;
    return faults >= 0 ? result : undefined;
  };
  const ranges = [{ sector: 8, sectorCount: 16, flags: 0 }];
  world.admit({ operation: Operation.writeZeroes, sector: 0, segments: [16], ranges });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  expect(world.contents().subarray(8 * SECTOR, 24 * SECTOR)).toEqual(new Uint8Array(16 * SECTOR));
});

test("write-zeroes and discard: an interrupted allocation is tried again", () => {
  using world = new ExecutorWorld(PLAIN);
  let faults = 2;
  world.fault = () => {
    faults -= 1;
    return faults >= 0 ? EINTR : undefined;
  };
  const ranges = [{ sector: 8, sectorCount: 16, flags: 0 }];
  world.admit({ operation: Operation.discard, sector: 0, segments: [16], ranges });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
});

test.each([
  { name: "with discards offered, frees", isDiscardOffered: true, mode: PUNCH_HOLE | KEEP_SIZE },
  {
    name: "with discards off, keeps its blocks",
    isDiscardOffered: false,
    mode: ZERO_RANGE | KEEP_SIZE,
  },
])("write-zeroes that may free blocks: $name", ({ isDiscardOffered, mode }) => {
  using world = new ExecutorWorld({ ...PLAIN, isDiscardOffered });
  const ranges = [{ sector: 8, sectorCount: 16, flags: 1 }];
  world.admit({ operation: Operation.writeZeroes, sector: 0, segments: [16], ranges });
  world.turn();
  expect(world.engine.underWay).toMatchObject([{ kind: "allocate", mode }]);
  world.drain();
});

test("discard: only whole blocks of the disk are freed", () => {
  using world = new ExecutorWorld({ ...PLAIN, blockBytes: 4096 });
  world.fill(pattern(PLAIN.sectors * SECTOR, 9));
  const expected = world.contents();
  expected.fill(0, 8 * SECTOR, 16 * SECTOR);
  const ranges = [
    { sector: 7, sectorCount: 12, flags: 0 },
    { sector: 33, sectorCount: 6, flags: 0 },
  ];
  world.admit({ operation: Operation.discard, sector: 0, segments: [16], ranges });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  expect(world.contents()).toEqual(expected);
});

test("discard: a file that cannot says so, and goes on being a disk", () => {
  using world = new ExecutorWorld({ ...PLAIN, unsupportedModes: PUNCH_HOLE });
  const ranges = [{ sector: 8, sectorCount: 16, flags: 0 }];
  world.admit({ operation: Operation.discard, sector: 0, segments: [16], ranges });
  expect(outcomes(world.drain())).toEqual([Outcome.unsupported]);
});

test.each([
  {
    name: "beyond the disk",
    ranges: [{ sector: 16_383, sectorCount: 2, flags: 0 }],
    outcome: Outcome.ioError,
  },
  {
    name: "at a sector that wraps around",
    ranges: [{ sector: 2 ** 53 - 1, sectorCount: 2, flags: 0 }],
    outcome: Outcome.ioError,
  },
  {
    name: "longer than announced",
    ranges: [{ sector: 0, sectorCount: 2 ** 32 - 1, flags: 0 }],
    outcome: Outcome.ioError,
  },
  {
    name: "with an unknown flag",
    ranges: [{ sector: 0, sectorCount: 1, flags: 2 }],
    outcome: Outcome.unsupported,
  },
])("ranges $name are refused", ({ ranges, outcome }) => {
  using world = new ExecutorWorld(PLAIN);
  const before = world.contents();
  for (const operation of [Operation.discard, Operation.writeZeroes]) {
    world.admit({ operation, sector: 0, segments: [16], ranges });
    expect(outcomes(world.drain())).toEqual([outcome]);
  }
  expect(world.contents()).toEqual(before);
});

test.each([
  { what: "a write that finds no room", operation: Operation.write, segments: [4096], told: -28 },
  { what: "a read of a bad sector", operation: Operation.read, segments: [4096], told: EIO },
  {
    what: "a read behind a file that was cut off",
    operation: Operation.read,
    segments: [4096],
    told: 0,
  },
  { what: "a flush", operation: Operation.flush, segments: [], told: EIO },
  { what: "zeroes that find no room", operation: Operation.writeZeroes, segments: [16], told: -28 },
])("$what: the front end hears once what the disk answered", ({ operation, segments, told }) => {
  using world = new ExecutorWorld(PLAIN);
  world.fault = () => told;
  const ranges = [{ sector: 0, sectorCount: 8, flags: 0 }];
  world.admit({
    operation,
    sector: 0,
    segments,
    ...(operation === Operation.writeZeroes ? { ranges } : {}),
  });
  expect(outcomes(world.drain())).toEqual([Outcome.ioError]);
  expect(world.failures).toEqual([{ operation, result: told }]);
});

test("parts of a block that the disk fails: told as well", () => {
  // Its file ends where the block begins.
  using world = new ExecutorWorld({ ...PLAIN, sectors: 8, blockBytes: 4096 });
  world.admit({ operation: Operation.write, sector: 9, segments: [512] });
  expect(outcomes(world.drain())).toEqual([Outcome.ioError]);
  expect(world.failures).toMatchObject([{ operation: Operation.write }]);
});

test("a passing failure is told to nobody", () => {
  using world = new ExecutorWorld(PLAIN);
  const results: (number | undefined)[] = [EINTR, 512, EAGAIN, undefined];
  world.fault = () => results.shift();
  world.admit({ operation: Operation.read, sector: 0, segments: [4096] });
  expect(outcomes(world.drain())).toEqual([Outcome.ok]);
  expect(world.failures).toEqual([]);
});

test("ranges: lists that are empty, too long or not whole are refused", () => {
  using world = new ExecutorWorld({ ...PLAIN, segmentsPerSlot: 64 });
  for (const segments of [[], [15], [17], [33 * 16]]) {
    world.admit({ operation: Operation.discard, sector: 0, segments });
    expect(outcomes(world.drain())).toEqual([Outcome.ioError]);
  }
});

// --- internal ---

function outcomes(finished: readonly Finished[]): readonly number[] {
  return finished.map(({ outcome }) => outcome);
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 9) * 13 + seed * 101 + 1) & 0xff);
}

function covers(
  work: { readonly offset: number; readonly bytes: number },
  sector: number,
): boolean {
  return work.offset <= sector * SECTOR && work.offset + work.bytes > sector * SECTOR;
}
