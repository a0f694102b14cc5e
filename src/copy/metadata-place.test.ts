import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UbiError } from "../errors.ts";
import { InputFile } from "./input-file.ts";
import { MetadataPlace } from "./metadata-place.ts";

const root = mkdtempSync(join(tmpdir(), "ubiblk-place-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folder = root;
beforeEach(() => {
  folder = mkdtempSync(join(root, "case-"));
});

describe("what is there is made fit", () => {
  test.each([
    { what: "nothing", mode: undefined, size: 0, needed: 512, expected: 512 },
    { what: "an empty file that all may read", mode: 0o644, size: 0, needed: 2048, expected: 2048 },
    { what: "a file with a set-user bit", mode: 0o4600, size: 0, needed: 3072, expected: 3072 },
    { what: "a file of one byte", mode: 0o600, size: 1, needed: 1536, expected: 1536 },
    { what: "a longer file", mode: 0o600, size: 4096, needed: 512, expected: 4096 },
    {
      what: "a longer file of broken length",
      mode: 0o600,
      size: 4097,
      needed: 512,
      expected: 4608,
    },
  ])("$what", ({ mode, size, needed, expected }) => {
    if (mode !== undefined) {
      writeFileSync(file("meta"), Buffer.alloc(size));
      chmodSync(file("meta"), mode);
    }
    using place = MetadataPlace.find(file("meta"), []);
    expect(place.existing?.sizeBytes).toBe(mode === undefined ? undefined : size);
    expect(place.prepare(needed).sizeBytes).toBe(expected);
    expect(statSync(file("meta")).mode & 0o7777).toBe(0o600);
    expect(statSync(file("meta")).size).toBe(expected);
  });

  test("the mode does not depend on the umask", () => {
    const umask = process.umask(0o277);
    try {
      using place = MetadataPlace.find(file("meta"), []);
      place.prepare(512);
    } finally {
      process.umask(umask);
    }
    expect(statSync(file("meta")).mode & 0o7777).toBe(0o600);
  });
});

describe("what must not be a metadata file is refused and left alone", () => {
  test("a symbolic link, with or without a target", () => {
    writeFileSync(file("target"), "x");
    symlinkSync(file("target"), file("link"));
    symlinkSync(file("nowhere"), file("dangling"));
    expect(refusalOf(file("link"))).toContain("symbolic link");
    expect(refusalOf(file("dangling"))).toContain("symbolic link");
    expect(readFileSync(file("target"), "utf8")).toBe("x");
  });

  test("a device, a folder, and a place in a folder that is missing", () => {
    mkdirSync(file("folder"));
    expect(refusalOf("/dev/null")).toContain("not a regular file");
    expect(refusalOf(file("folder"))).toContain("not a regular file");
    expect(refusalOf(file("missing/meta"))).toContain("ENOENT");
  });

  test("a pipe, without waiting for somebody at its other end", () => {
    Bun.spawnSync(["mkfifo", file("pipe")]);
    expect(refusalOf(file("pipe"))).toContain("not a regular file");
  });

  test("the disk under another name", () => {
    writeFileSync(file("data"), Buffer.alloc(1024));
    linkSync(file("data"), file("meta"));
    using data = new InputFile(file("data"));
    expect(refusalOf(file("meta"), [data])).toContain(`the same file as ${file("data")}`);
  });

  test("a file that is larger than any metadata", () => {
    writeFileSync(file("meta"), "");
    truncateSync(file("meta"), 5 * 2 ** 30);
    expect(refusalOf(file("meta"))).toContain("something else");
  });

  test("a file that another program has locked", () => {
    writeFileSync(file("meta"), "");
    using held = MetadataPlace.find(file("meta"), []);
    expect(held.existing).toBeDefined();
    expect(refusalOf(file("meta"))).toContain(`in use by process ${process.pid}`);
  });
});

/** The message that the place is refused with. */
function refusalOf(path: string, others: readonly InputFile[] = []): string {
  try {
    using place = MetadataPlace.find(path, others);
    return `accepted ${place.path}`;
  } catch (error) {
    if (error instanceof UbiError) {
      return error.message;
    }
    throw error;
  }
}

function file(name: string): string {
  return join(folder, name);
}
