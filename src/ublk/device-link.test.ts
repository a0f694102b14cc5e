import { afterAll, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DeviceLink } from "./device-link.ts";

const FOLDER = mkdtempSync(join(tmpdir(), "device-link-"));

afterAll(() => rmSync(FOLDER, { recursive: true }));

test("the link appears when it is made, with its folders, and goes at the end", () => {
  const path = join(FOLDER, "a", "b", "disk");
  const link = new DeviceLink(path);
  expect(existsSync(join(FOLDER, "a"))).toBe(false);
  link.make("/dev/null");
  expect(readlinkSync(path)).toBe("/dev/null");
  link[Symbol.dispose]();
  expect(existsSync(path)).toBe(false);
});

test("a symlink that is there is replaced, wherever it leads", () => {
  const path = join(FOLDER, "old");
  symlinkSync("/nowhere", path);
  using link = new DeviceLink(path);
  expect(readlinkSync(path)).toBe("/nowhere");
  link.make("/dev/null");
  expect(readlinkSync(path)).toBe("/dev/null");
});

test("a file in the place is refused before anything is made", () => {
  const path = join(FOLDER, "file");
  writeFileSync(path, "mine");
  expect(() => new DeviceLink(path)).toThrow("is no symlink");
  expect(readFileSync(path, "utf8")).toBe("mine");
});

test("a file that came meanwhile is left alone, and the device goes on without its link", () => {
  const path = join(FOLDER, "late");
  const link = new DeviceLink(path);
  writeFileSync(path, "mine");
  link.make("/dev/null");
  link[Symbol.dispose]();
  expect(readFileSync(path, "utf8")).toBe("mine");
});

test("a link that somebody has turned elsewhere stays at the end", () => {
  const path = join(FOLDER, "turned");
  const link = new DeviceLink(path);
  link.make("/dev/null");
  rmSync(path);
  symlinkSync("/dev/zero", path);
  link[Symbol.dispose]();
  expect(lstatSync(path).isSymbolicLink()).toBe(true);
  expect(readlinkSync(path)).toBe("/dev/zero");
});
