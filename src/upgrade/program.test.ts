import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkProgram, type StartedProgram, startedProgram } from "./program.ts";

let folder: string;
let program: StartedProgram;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-program-"));
  const path = join(folder, "ubiblk");
  writeFileSync(path, "");
  chmodSync(path, 0o755);
  program = { ...startedProgram(), path, mode: 0o100755 };
});

afterEach(() => rmSync(folder, { recursive: true }));

test("a program of this user that others cannot write is started", () => {
  expect(() => checkProgram(program)).not.toThrow();
});

test.each([
  ["by its group", 0o775],
  ["by all", 0o757],
])("one that can be written %s is not", (_, mode) => {
  chmodSync(program.path, mode);
  expect(() => checkProgram(program)).toThrow("others may write to it");
});

test("nobody is stricter than with the program that runs", () => {
  chmodSync(program.path, 0o775);
  expect(() => checkProgram({ ...program, mode: 0o100775 })).not.toThrow();
});

test("a folder, what nobody may execute, and nothing are no programs", () => {
  const other = join(folder, "folder");
  mkdirSync(other);
  expect(() => checkProgram({ ...program, path: other })).toThrow("it is no program");
  chmodSync(program.path, 0o644);
  expect(() => checkProgram(program)).toThrow("it is no program");
  expect(() => checkProgram({ ...program, path: join(folder, "missing") })).toThrow("ENOENT");
});
