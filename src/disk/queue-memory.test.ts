import { expect, test } from "bun:test";
import { CHUNK_BYTES } from "./buffer-pool.ts";
import { queueMemory } from "./queue-memory.ts";
import { RequestTable, SEGMENTS_MAX } from "./request-table.ts";

const need = (slots: number) =>
  queueMemory({ slots, segmentsPerSlot: 16, bufferLimitBytes: 2.5 * CHUNK_BYTES });

test("bounce buffers are whole chunks, and at least one", () => {
  expect(need(64).bufferBytes).toBe(2 * CHUNK_BYTES);
  const least = { slots: 1, segmentsPerSlot: 16, bufferLimitBytes: 1 };
  expect(queueMemory(least).bufferBytes).toBe(CHUNK_BYTES);
});

test("a request table counts all of its columns, the overflow area too", () => {
  // Of a place: address 8, length 4. Of a slot: 2 doubles, 3 numbers of 4 bytes, 4 of one byte.
  const placeBytes = 12 * (64 * 16 + SEGMENTS_MAX);
  expect(new RequestTable(64, 16).sizeBytes).toBe(placeBytes + 64 * (16 + 12 + 4));
});

test("each slot more takes its columns, vectors and ranges", () => {
  const perSlot = (need(128).requestBytes - need(64).requestBytes) / 64;
  // Columns 32 + 16 places of 12, vectors 16 * 16, 32 ranges of 16 bytes.
  expect(perSlot).toBe(32 + 192 + 256 + 512);
});

test("a ring has a power of two of entries, and spare ones", () => {
  // 128 entries of 64 bytes with 4 of the list, and 256 completions of 16 bytes.
  expect(need(64).ringBytes).toBe(128 * 68 + 256 * 16);
});

test("the largest ring is that of the kernel", () => {
  expect(need(32_768).ringBytes).toBe(32_768 * 68 + 65_536 * 16);
});
