/** Numbers and keys as text. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { keysOf } from "./keys.ts";
import { bytesText, countText, durationText, latencyText } from "./quantity.ts";

test.each([
  [0, "0"],
  [0.04, "0"],
  [0.5, "0.5"],
  [9.97, "10"],
  [9999, "9999"],
  [9999.5, "10.0k"],
  [12_345, "12.3k"],
  [999_960, "1.00M"],
  [1_234_567, "1.23M"],
])("count %d: %s", (value, text) => {
  expect(countText(value)).toBe(text);
});

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.00 KiB"],
  [1536, "1.50 KiB"],
  [1023.7 * 1024 ** 2, "1.00 GiB"],
  [12.34 * 1024 ** 3, "12.3 GiB"],
])("bytes %d: %s", (value, text) => {
  expect(bytesText(value)).toBe(text);
});

test.each([
  [983, "983ns"],
  [12_345, "12.3us"],
  [1_234_567, "1.23ms"],
  [45_600_000_000, "45.6s"],
  [2 ** 40, "18m20s"],
])("latency %d ns: %s", (value, text) => {
  expect(latencyText(value)).toBe(text);
});

test.each([
  [7, "7s"],
  [59.6, "1m00s"],
  [252, "4m12s"],
  [3900, "1h05m"],
  [273_600, "3d04h"],
])("duration %d s: %s", (value, text) => {
  expect(durationText(value)).toBe(text);
});

test("any amount: fits its column", () => {
  const amount = fc.double({ min: 0, max: 1e15, noNaN: true });
  fc.assert(
    fc.property(amount, (value) => {
      expect(countText(value).length).toBeLessThanOrEqual(6);
      expect(bytesText(value).length).toBeLessThanOrEqual(8);
      expect(latencyText(value).length).toBeLessThanOrEqual(6);
    }),
  );
});

test("keys: characters, named ones, and unknown sequences as a whole", () => {
  expect(keysOf("qs\x1b[A\x1b[6~\x1b[1;5C\x1bOBx\x03")).toEqual([
    "q",
    "s",
    "up",
    "page down",
    "other",
    "down",
    "x",
    "ctrl-c",
  ]);
});
