import { expect, test } from "bun:test";
import { sizeArgument } from "./size-argument.ts";

test.each([
  ["0", 0],
  ["512", 512],
  ["4K", 4096],
  ["200m", 200 * 2 ** 20],
  ["1G", 2 ** 30],
  ["2T", 2 ** 41],
  ["9007199254740991", Number.MAX_SAFE_INTEGER],
])("%s is %d bytes", (text, bytes) => {
  expect(sizeArgument("--size", text)).toBe(bytes);
});

test.each(["", "K", "-1", "1.5G", "0x10", "1 G", "9007199254740992", "9000T", "1P"])(
  "%p is no size",
  (text) => {
    expect(() => sizeArgument("--size", text)).toThrow(
      `--size: ${JSON.stringify(text)} is no size`,
    );
  },
);
