import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync } from "node:fs";
import { FakeEngine } from "../disk/fake-engine.ts";
import { SyncEngine } from "../disk/sync-engine.ts";
import { Arena } from "../ffi/arena.ts";
import { writeFileAt } from "../ffi/file.ts";
import { createSharedMemory } from "../ffi/memory.ts";
import { RawSource } from "./raw-source.ts";

const STRIPE = 8192;
/** One stripe and a half, and one sector more. */
const IMAGE_BYTES = STRIPE + STRIPE / 2 + 512;
/** A file of whole blocks of 4096 bytes: what lies behind the image must not be seen. */
const FILE_BYTES = 2 * STRIPE;
const STALE = 0xdb;

let fd = -1;
let arena: Arena;
let memory: Uint8Array;

beforeEach(() => {
  fd = createSharedMemory(FILE_BYTES);
  arena = new Arena(4 * STRIPE);
  memory = arena.bytes(2 * STRIPE).view;
  for (let i = 0; i < FILE_BYTES; i++) {
    memory[i] = byteAt(i);
  }
  expect(writeFileAt(fd, 0, arena.address, FILE_BYTES, false)).toBe(0);
  memory.fill(STALE);
});

afterEach(() => {
  arena[Symbol.dispose]();
  closeSync(fd);
});

test("a whole stripe is read as it is", () => {
  using source = syncSource(512);
  expect(read(source, 0, 0, STRIPE)).toBe(0);
  expect(memory.subarray(0, STRIPE)).toEqual(expected(0, STRIPE));
});

test("the stripe in which the image ends is filled with zeros", () => {
  using source = syncSource(512);
  expect(read(source, 1, 0, STRIPE)).toBe(0);
  expect(memory.subarray(0, STRIPE)).toEqual(expected(STRIPE, STRIPE));
});

test("a part of a stripe that begins behind the image is zeros, without a read", () => {
  using source = syncSource(512);
  expect(read(source, 1, STRIPE / 2 + 512, 1024)).toBe(0);
  expect(memory.subarray(0, 1024)).toEqual(new Uint8Array(1024));
});

test("a part of a stripe leaves the memory behind it alone", () => {
  using source = syncSource(512);
  expect(read(source, 0, 512, 1024)).toBe(0);
  expect(memory.subarray(0, 1024)).toEqual(expected(512, 1024));
  expect(memory[1024]).toBe(STALE);
});

test("a last block that the image fills in part is read whole, and its rest zeroed", () => {
  const { source, engine } = fakeSource(4096);
  request(source, 1, 0, STRIPE);
  expect(engine.underWay).toMatchObject([{ kind: "read", offset: STRIPE, bytes: STRIPE }]);
  engine.finish(0);
  expect(end(source)).toBe(0);
  expect(memory.subarray(0, STRIPE)).toEqual(expected(STRIPE, STRIPE));
});

test("a short read is continued where it ended", () => {
  const { source, engine } = fakeSource(512, [1024]);
  request(source, 0, 0, STRIPE);
  engine.finish(0);
  expect(source.completions()).toBe(0);
  expect(engine.underWay).toMatchObject([{ offset: 1024, bytes: STRIPE - 1024 }]);
  engine.finish(0);
  expect(end(source)).toBe(0);
  expect(memory.subarray(0, STRIPE)).toEqual(expected(0, STRIPE));
});

test("an image that was cut fails after some tries, and never gives old memory for data", () => {
  const { source, engine } = fakeSource(512, [0, 0, 0, 0]);
  request(source, 0, 0, STRIPE);
  for (let i = 0; i < 4; i++) {
    engine.finish(0);
    source.submit();
  }
  expect(end(source)).toBe(-5);
});

test("a failing medium fails the request at once", () => {
  const { source, engine } = fakeSource(512, [-5]);
  request(source, 0, 0, STRIPE);
  engine.finish(0);
  expect(end(source)).toBe(-5);
});

test("has: every stripe that begins inside the image", () => {
  using source = syncSource(512);
  expect([0, 1, 2].map((stripe) => source.has(stripe))).toEqual([true, true, false]);
  expect(source.sectors).toBe(IMAGE_BYTES / 512);
});

// --- internal ---

function syncSource(blockBytes: number): RawSource {
  const engine = new SyncEngine(4, { fd, isWriteThrough: false });
  return sourceOf(engine, blockBytes);
}

function fakeSource(
  blockBytes: number,
  faults: readonly number[] = [],
): { readonly source: RawSource; readonly engine: FakeEngine } {
  const left = [...faults];
  const engine = new FakeEngine({
    fd,
    requestsMax: 4,
    blockBytes,
    memoryAlignBytes: 512,
    fault: () => left.shift(),
  });
  return { source: sourceOf(engine, blockBytes), engine };
}

function sourceOf(engine: FakeEngine | SyncEngine, blockBytes: number): RawSource {
  const options = { stripeBytes: STRIPE, sizeBytes: IMAGE_BYTES, requestsMax: 4 };
  return new RawSource({ ...options, engine, blockBytes });
}

function request(source: RawSource, stripe: number, offsetBytes: number, lengthBytes: number) {
  source.request(3, { stripe, offsetBytes, lengthBytes }, arena.address);
  source.submit();
}

function read(source: RawSource, stripe: number, offsetBytes: number, lengthBytes: number): number {
  request(source, stripe, offsetBytes, lengthBytes);
  return end(source);
}

function end(source: RawSource): number {
  expect(source.completions()).toBe(1);
  expect(source.completedId(0)).toBe(3);
  const result = source.completedResult(0);
  source.release(1);
  return result;
}

function expected(offset: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (offset + i < IMAGE_BYTES ? byteAt(offset + i) : 0));
}

function byteAt(offset: number): number {
  return ((offset * 7 + (offset >> 9)) & 0xff) | 1;
}
