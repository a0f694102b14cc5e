import { expect, test } from "bun:test";
import {
  ExecutorWorld,
  Operation,
  Outcome,
  SECTOR,
  type WorldOptions,
} from "../../tests/support/executor-world.ts";

const EIO = -5;
const EINTR = -4;

const ENCIPHERED: WorldOptions = {
  slots: 8,
  segmentsPerSlot: 1,
  sectors: 16_384,
  blockBytes: 512,
  isEnciphered: true,
  isMemoryOwn: true,
};

test("a write is enciphered where it lies: the disk and the request's memory hold the same", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(8 * SECTOR, 1);
  world.admit({ operation: Operation.write, sector: 4, segments: [4096], data });
  const [finished] = world.drain();
  expect(finished?.outcome).toBe(Outcome.ok);
  expect(finished?.data).not.toEqual(data);
  expect(world.contents().subarray(4 * SECTOR, 12 * SECTOR)).toEqual(data);
});

test("a read is deciphered where it lies, as one I/O of any length", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(2 ** 20, 2);
  world.fill(pattern(16_384 * SECTOR, 2));
  world.admit({ operation: Operation.read, sector: 0, segments: [2 ** 20] });
  world.turn();
  expect(world.engine.underWay).toMatchObject([{ kind: "read", offset: 0, bytes: 2 ** 20 }]);
  expect(world.drain()[0]?.data).toEqual(data);
});

test("a write that was short is written again as it is, not enciphered twice", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(4096, 3);
  const results: (number | undefined)[] = [512, EINTR, undefined];
  world.fault = () => results.shift();
  world.admit({ operation: Operation.write, sector: 7, segments: [4096], data });
  expect(world.drain()[0]?.outcome).toBe(Outcome.ok);
  expect(world.contents().subarray(7 * SECTOR, 15 * SECTOR)).toEqual(data);
});

test("a failure that stays is an error, and so is a passing one that does not pass", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  world.fault = () => EIO;
  world.admit({ operation: Operation.read, sector: 0, segments: [512] });
  expect(world.drain()[0]?.outcome).toBe(Outcome.ioError);
  world.fault = () => EINTR;
  world.admit({ operation: Operation.read, sector: 0, segments: [512] });
  expect(world.drain()[0]?.outcome).toBe(Outcome.ioError);
});

test("a cipher that fails: nothing is written, and nothing read is handed on", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  world.cipher.broken.add(3);
  world.admit({ operation: Operation.write, sector: 0, segments: [4096], data: pattern(4096, 4) });
  expect(world.engine.underWay).toEqual([]);
  expect(world.drain()[0]?.outcome).toBe(Outcome.ioError);
  world.admit({ operation: Operation.read, sector: 0, segments: [4096] });
  expect(world.drain()[0]?.outcome).toBe(Outcome.ioError);
});

test("a write that is to be durable is finished after a sync that began behind it", () => {
  using world = new ExecutorWorld(ENCIPHERED);
  const data = pattern(512, 5);
  world.admit({ operation: Operation.write, sector: 1, segments: [512], data, isDurable: true });
  world.admit({ operation: Operation.write, sector: 9, segments: [512], data });
  world.turn();
  expect(world.finishWork(0)).toEqual([]);
  expect(world.engine.underWay.map(({ kind }) => kind)).toEqual(["write", "sync"]);
  expect(world.finishWork(0).map(({ request }) => request.sector)).toEqual([9]);
  expect(world.finishWork(0).map(({ request }) => request.sector)).toEqual([1]);
});

// --- internal ---

function pattern(bytes: number, seed: number): Uint8Array {
  return new Uint8Array(bytes).map((_, i) => (i * 31 + (i >> 9) + seed * 7) & 0xff);
}
