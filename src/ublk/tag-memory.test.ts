import { expect, test } from "bun:test";
import { TagMemory } from "./tag-memory.ts";

const MIB = 2 ** 20;

/** Registers all, and notes what. */
function registry() {
  const pieces: { readonly buffer: number; readonly address: number; readonly bytes: number }[] =
    [];
  const register = (buffer: number, address: number, bytes: number) => {
    pieces.push({ buffer, address, bytes });
    return true;
  };
  return { pieces, register };
}

test("each tag has its own data, inside the piece that it is registered with", () => {
  const { pieces, register } = registry();
  const options = { depth: 100, ioBytes: MIB, isZeroCopy: false, firstBuffer: 64, register };
  using memory = new TagMemory(options);
  expect(pieces.map(({ buffer, bytes }) => [buffer, bytes])).toEqual([
    [64, 64 * MIB],
    [65, 36 * MIB],
  ]);
  for (let tag = 0; tag < 100; tag++) {
    const piece = pieces.find(({ buffer }) => buffer === memory.registeredBuffer[tag]);
    const start = (memory.address[tag] ?? 0) - (piece?.address ?? 0);
    expect(start).toBe((tag % 64) * MIB);
  }
});

test("a queue of much data has only its first part registered", () => {
  const { pieces, register } = registry();
  const options = { depth: 512, ioBytes: MIB, isZeroCopy: false, firstBuffer: 64, register };
  using memory = new TagMemory(options);
  expect(pieces.length).toBe(TagMemory.buffersOf(512, false));
  expect([memory.registeredBuffer[255], memory.registeredBuffer[256]]).toEqual([67, -1]);
});

test("a kernel that refuses to register leaves the memory as it is", () => {
  const options = { depth: 4, ioBytes: 4096, isZeroCopy: false, firstBuffer: 64 };
  using memory = new TagMemory({ ...options, register: () => false });
  expect([...memory.registeredBuffer]).toEqual([-1, -1, -1, -1]);
  expect((memory.address[3] ?? 0) - (memory.address[0] ?? 0)).toBe(3 * 4096);
});

test("without a copy a tag is a place in the ring's table, and begins at 0", () => {
  const { pieces, register } = registry();
  const options = { depth: 3, ioBytes: MIB, isZeroCopy: true, firstBuffer: 64, register };
  using memory = new TagMemory(options);
  expect(pieces).toEqual([]);
  expect([...memory.registeredBuffer]).toEqual([64, 65, 66]);
  expect([...memory.address]).toEqual([0, 0, 0]);
});
