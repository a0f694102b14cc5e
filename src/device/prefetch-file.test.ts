import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RANGE_LIST_HEAD } from "../formats/range-list.ts";
import { TouchOrder } from "../stripes/touch-order.ts";
import { checkRecord, readPrefetch, TouchRecorder } from "./prefetch-file.ts";

const STRIPE_SECTORS = 64;
const DISK = { stripeSectors: STRIPE_SECTORS, stripeCount: 4 };

let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-lists-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Of a guest that asked for stripe 2. */
function recorder(path: string): TouchRecorder {
  const touches = new TouchOrder(DISK.stripeCount);
  touches.note(2);
  return new TouchRecorder(path, touches, STRIPE_SECTORS);
}

test("a record leaves every other file beside it as it is", () => {
  const [path, other] = [join(folder, "disk"), join(folder, "disk.new")];
  writeFileSync(other, "a disk");
  recorder(path).write();
  expect(readFileSync(path, "latin1")).toBe(`${RANGE_LIST_HEAD}128 64\n`);
  expect(readFileSync(other, "latin1")).toBe("a disk");
  expect(readdirSync(folder).toSorted()).toEqual(["disk", "disk.new"]);
});

test("a record is not written over another file that came to its place", () => {
  const path = join(folder, "record");
  checkRecord(path);
  writeFileSync(path, "a disk");
  recorder(path).write();
  expect(readFileSync(path, "latin1")).toBe("a disk");
  expect(readdirSync(folder)).toEqual(["record"]);
});

test("a list that is no regular file is refused at once: a pipe, a device, a folder", () => {
  const pipe = join(folder, "pipe");
  expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
  symlinkSync("/dev/zero", join(folder, "zeros"));
  for (const path of [pipe, join(folder, "zeros"), folder]) {
    expect(() => checkRecord(path)).toThrow("is not a regular file");
    expect(() => readPrefetch(path, DISK)).toThrow("is not a regular file");
  }
});
