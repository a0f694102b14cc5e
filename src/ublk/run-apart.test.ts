import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runApart } from "./run-apart.ts";

const folder = mkdtempSync(join(tmpdir(), "ubiblk-apart-"));
const path = join(folder, "a file");

afterAll(() => rmSync(folder, { recursive: true }));

test("a line runs to its end, with a path as it is", async () => {
  writeFileSync(path, "");
  expect(await runApart('echo 1000 >"$0"; sync "$0"', path)).toBe(true);
  expect(readFileSync(path, "utf8")).toBe("1000\n");
});

test("what it complains of is told", async () => {
  await expect(runApart('echo 1 >"$0"', "/sys/no such file")).rejects.toThrow("/sys/no such file");
});

test("a program that is not there is no failure", async () => {
  expect(await runApart('no-such-program "$0"', path)).toBe(false);
});
