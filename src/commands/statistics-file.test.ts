import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StatisticsFile } from "./statistics-file.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-statistics-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("a file that cannot be written is refused before anything is done", () => {
  const open = () => StatisticsFile.open(join(folder, "missing", "x"));
  expect(open).toThrow(/^cannot write statistics to .*: ENOENT.*; nothing was done, mend --stats$/);
  expect(() => StatisticsFile.open(folder)).toThrow("nothing was done");
});

test("what was there stays until the new statistics are written over it", () => {
  const path = join(folder, "stats");
  writeFileSync(path, "x".repeat(100));
  {
    using _unused = StatisticsFile.open(path);
  }
  expect(readFileSync(path, "utf8")).toHaveLength(100);
  {
    using file = StatisticsFile.open(path);
    file.write({ bytes: 5 });
  }
  expect(JSON.parse(readFileSync(path, "utf8"))).toEqual({ bytes: 5 });
});

test("without statistics there is no file", () => {
  const path = join(folder, "stats");
  {
    using _unused = StatisticsFile.open(path);
    expect(existsSync(path)).toBe(true);
  }
  expect(existsSync(path)).toBe(false);
});
