/** Files that appear whole or not at all. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lockFile } from "../ffi/file.ts";
import { OutputFile } from "./output-file.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-output-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const create = (path: string, mayReplace: boolean, inputs: readonly string[] = []) =>
  OutputFile.create(path, { inputs, mayReplace, code: "E_EXPORT" });

const ALREADY = "is there already, and --no-clobber was given";

test("of two that may replace nothing, the second to be whole fails and leaves nothing", () => {
  const path = join(folder, "out");
  {
    using first = create(path, false);
    using second = create(path, false);
    writeSync(first.fd, "first");
    writeSync(second.fd, "second");
    first.commit();
    expect(() => second.commit()).toThrow(ALREADY);
  }
  expect(readFileSync(path, "utf8")).toBe("first");
  expect(readdirSync(folder)).toEqual(["out"]);
});

test("what came meanwhile is not replaced, whatever it is", () => {
  const path = join(folder, "out");
  {
    using output = create(path, false);
    symlinkSync("nowhere", path);
    expect(() => output.commit()).toThrow(ALREADY);
  }
  expect(readlinkSync(path)).toBe("nowhere");
  expect(readdirSync(folder)).toEqual(["out"]);
});

test("a link that leads nowhere is there already", () => {
  const path = join(folder, "out");
  symlinkSync("nowhere", path);
  expect(() => create(path, false)).toThrow(ALREADY);
  expect(readdirSync(folder)).toEqual(["out"]);
});

test("one that may replace does so at the end", () => {
  const path = join(folder, "out");
  writeFileSync(path, "old");
  using output = create(path, true, [join(folder, "absent")]);
  writeSync(output.fd, "new");
  expect(readFileSync(path, "utf8")).toBe("old");
  output.commit();
  expect(readFileSync(path, "utf8")).toBe("new");
});

test("what a killed process left is removed by the next output of that name, and nothing else", () => {
  const path = join(folder, "out");
  const names = [".out.0123456789ab.tmp", ".other.0123456789ab.tmp", ".out.backup.tmp", ".out.tmp"];
  for (const name of names) {
    writeFileSync(join(folder, name), "half");
  }
  symlinkSync(".out.tmp", join(folder, ".out.ba9876543210.tmp"));
  {
    using output = create(path, true);
    using another = create(path, true); // the first one is still at work
    writeSync(output.fd, "new");
    output.commit();
    another.commit();
  }
  expect(readdirSync(folder).sort()).toEqual([
    ".other.0123456789ab.tmp",
    ".out.ba9876543210.tmp",
    ".out.backup.tmp",
    ".out.tmp",
    "out",
  ]);
});

test("a file that is in use is refused, with the process that has it", () => {
  const path = join(folder, "out");
  writeFileSync(path, "disk");
  const fd = openSync(path, "r");
  try {
    expect(lockFile(fd, "exclusive")).toBe(0);
    expect(() => create(path, true)).toThrow(
      `${path} is in use by process ${process.pid}; stop it first`,
    );
  } finally {
    closeSync(fd);
  }
});

test("a name of no file fails at once", () => {
  for (const path of ["", `${folder}/new/`, `${folder}/`]) {
    expect(() => create(path, true)).toThrow("is no name of a file");
  }
  expect(existsSync(join(folder, "new"))).toBe(false);
});
