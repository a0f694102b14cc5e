import { expect, test } from "bun:test";
import fc from "fast-check";
import { SeededRandom } from "../../tests/support/random.ts";
import { AssertionError } from "../errors.ts";
import { RequestTable, SEGMENTS_MAX } from "./request-table.ts";

test("request table: it has as many slots as it was made for", () => {
  const table = new RequestTable(3, 4);
  const slots = [table.take(1), table.take(1), table.take(1)];
  expect(new Set(slots).size).toBe(3);
  expect(table.take(1)).toBe(-1);
  expect(table.inFlight).toBe(3);
});

test("request table: a slot that comes back is taken again", () => {
  const table = new RequestTable(1, 4);
  const slot = table.take(1);
  table.give(slot);
  expect(table.inFlight).toBe(0);
  expect(table.take(2)).toBe(slot);
  expect(table.segmentCount[slot]).toBe(2);
});

test("request table: one long request at a time has the overflow places", () => {
  const table = new RequestTable(4, 2);
  const long = table.take(SEGMENTS_MAX);
  expect(table.take(3)).toBe(-1);
  expect(table.take(2)).toBeGreaterThanOrEqual(0);
  table.give(long);
  expect(table.take(3)).toBeGreaterThanOrEqual(0);
});

test("request table: more segments than a chain can have are a programmer's error", () => {
  const table = new RequestTable(1, 2);
  expect(() => table.take(SEGMENTS_MAX + 1)).toThrow(AssertionError);
});

test("request table: a slot that is given back twice is a programmer's error", () => {
  const table = new RequestTable(2, 2);
  const slot = table.take(1);
  table.take(1);
  table.give(slot);
  expect(() => table.give(slot)).toThrow(AssertionError);
});

test("request table: alignment is that of every segment's address and length", () => {
  const table = new RequestTable(1, 2);
  const slot = table.take(2);
  const place = table.segmentStart[slot] ?? -1;
  table.segmentAddress.set([0x1000, 0x3000], place);
  table.segmentLength.set([512, 1024], place);
  expect(table.isAligned(slot, 4096, 512)).toBe(true);
  table.segmentAddress[place + 1] = 0x3200;
  expect(table.isAligned(slot, 4096, 512)).toBe(false);
  expect(table.isAligned(slot, 512, 512)).toBe(true);
  table.segmentLength[place] = 513;
  expect(table.isAligned(slot, 512, 512)).toBe(false);
});

test("request table: places of requests under way never overlap", () => {
  fc.assert(
    fc.property(fc.noShrink(fc.integer()), (seed) => {
      const random = new SeededRandom(seed);
      const table = new RequestTable(8, 3);
      const taken: number[] = [];
      for (let step = 0; step < 200; step++) {
        if (random.oneIn(2)) {
          const slot = table.take(random.pick([0, 1, 3, 4, 100]));
          if (slot >= 0) {
            taken.push(slot);
          }
        } else if (taken.length > 0) {
          const [slot] = taken.splice(random.below(taken.length), 1);
          table.give(slot ?? -1);
        }
        expect(table.inFlight).toBe(taken.length);
        expect(new Set(taken).size).toBe(taken.length);
        const ranges = taken.map((slot) => rangeOf(table, slot)).sort((a, b) => a.start - b.start);
        expect(ranges.every((range, i) => range.end <= (ranges[i + 1]?.start ?? Infinity))).toBe(
          true,
        );
      }
    }),
    { numRuns: 50, includeErrorInReport: true },
  );
});

// --- internal ---

function rangeOf(table: RequestTable, slot: number) {
  const start = table.segmentStart[slot] ?? -1;
  return { start, end: start + (table.segmentCount[slot] ?? -1) };
}
