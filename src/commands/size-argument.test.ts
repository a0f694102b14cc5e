import { expect, test } from "bun:test";
import { sizeArgument } from "./size-argument.ts";

test.each([
  ["0", 0],
  ["512", 512],
  ["4K", 4096],
  ["200m", 200 * 2 ** 20],
  ["1G", 2 ** 30],
  ["2T", 2 ** 41],
  ["1.5G", 1.5 * 2 ** 30],
  ["0.5k", 512],
  ["1KiB", 1024],
  ["1GB", 10 ** 9],
  ["2.5TB", 2.5 * 10 ** 12],
  ["512B", 512],
  ["9007199254740991", Number.MAX_SAFE_INTEGER],
])("%s is %d bytes", (text, bytes) => {
  expect(sizeArgument("--size", text)).toBe(bytes);
});

test.each([
  ...["", "K", "-1", "0x10", "1 G", "9007199254740992", "9000T", "1P"],
  ...["1.G", ".5G", "1.5.5G", "1iB", "1KiBB", "1e3", "1,5G"],
])("%p is no size", (text) => {
  expect(() => sizeArgument("--size", text)).toThrow(`--size: ${JSON.stringify(text)} is no size`);
});

test("a fraction that comes to no whole bytes is refused", () => {
  expect(() => sizeArgument("--size", "0.1G")).toThrow("0.1G is no whole number of bytes");
  expect(() => sizeArgument("--size", "1.5")).toThrow("1.5 is no whole number of bytes");
});
