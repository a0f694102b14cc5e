import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isRingSize, needEvent, ringLayout } from "./virtio-ring.ts";

describe("ring layout", () => {
  test("a ring of 256 entries has the sizes of the specification", () => {
    expect(ringLayout(256)).toEqual({
      entries: 256,
      descriptorsBytes: 4096,
      availableBytes: 518,
      usedBytes: 2054,
      usedEventOffset: 516,
      availableEventOffset: 2052,
    });
  });

  test("sizes are powers of two from 1 to 32768", () => {
    expect([1, 2, 256, 1024, 32768].every(isRingSize)).toBe(true);
    expect([0, -1, 3, 100, 65536, 2 ** 31, 2 ** 32].some(isRingSize)).toBe(false);
  });
});

describe("event window", () => {
  test("stepping over the event index asks for a notification", () => {
    expect(needEvent(4, 5, 4)).toBe(true);
    expect(needEvent(5, 5, 4)).toBe(false);
    expect(needEvent(3, 5, 4)).toBe(false);
  });

  test("the window wraps at 2^16", () => {
    expect(needEvent(0xffff, 1, 0xfffe)).toBe(true);
    expect(needEvent(0, 1, 0xfffe)).toBe(true);
    expect(needEvent(1, 1, 0xfffe)).toBe(false);
  });

  test("without movement there is never a notification", () => {
    fc.assert(
      fc.property(fc.nat(0xffff), fc.nat(0xffff), (event, index) => {
        expect(needEvent(event, index, index)).toBe(false);
      }),
    );
  });

  test("exactly the indexes passed are in the window", () => {
    fc.assert(
      fc.property(fc.nat(0xffff), fc.nat(0xffff), fc.nat(300), (event, oldIndex, step) => {
        const passed = Array.from({ length: step }, (_, i) => (oldIndex + i) & 0xffff);
        const newIndex = (oldIndex + step) & 0xffff;
        expect(needEvent(event, newIndex, oldIndex)).toBe(passed.includes(event));
      }),
    );
  });
});
