import { expect, test } from "bun:test";
import { formatRange, parseRangeList, RANGE_LIST_HEAD } from "./range-list.ts";

test("ranges are read in their order; comments and empty lines are skipped", () => {
  const text = "# boot\n2048 8\n\n  0\t2048 # the first MiB\r\n4096 1";
  expect(parseRangeList(text, "list")).toEqual([
    { first: 2048, count: 8 },
    { first: 0, count: 2048 },
    { first: 4096, count: 1 },
  ]);
});

test("what is written is read again", () => {
  const range = { first: 123_456, count: 2048 };
  expect(parseRangeList(RANGE_LIST_HEAD + formatRange(range), "list")).toEqual([range]);
});

test.each(["8", "8 0", "-1 8", "1 2 3", "a b", "0x10 1", "9007199254740991 1"])(
  "%s: the line is named",
  (line) => {
    expect(() => parseRangeList(`0 8\n${line}\n`, "list")).toThrow(/^list:2: not a range/);
  },
);
