import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  constants,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../../tests/support/until.ts";
import { UbiError } from "../errors.ts";
import { DataFile } from "./data-file.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-data-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

test("data file: its size in sectors, and units that are powers of two", () => {
  using file = open(makeFile(64 * 512));
  expect(file.sectors).toBe(64);
  expect(Math.log2(file.blockBytes)).toBeInteger();
  expect(Math.log2(file.geometry.memoryAlignBytes)).toBeInteger();
});

test("data file: its I/O may wait, whatever its opening did", () => {
  using file = open(makeFile(4096));
  const info = readFileSync(`/proc/self/fdinfo/${file.fd}`, "latin1");
  const flags = Number.parseInt(/^flags:\s+(\d+)$/m.exec(info)?.[1] ?? "", 8);
  expect(flags & constants.O_NONBLOCK).toBe(0);
});

test("data file: retired, it is free for others, and its descriptor's number leads to nothing", () => {
  const path = makeFile(4096);
  using file = DataFile.open({ path, what: "image", isReadOnly: true });
  file.retire();
  using next = open(path);
  expect(next.sectors).toBe(8);
  expect(readSync(file.fd, new Uint8Array(16))).toBe(0);
});

test.each([1, 511, 513, 4097])(
  "image: one of %d bytes is opened, through the page cache",
  (bytes) => {
    const path = makeFile(bytes);
    using file = DataFile.open({ path, what: "image", isReadOnly: true, isAnySize: true });
    expect(file.geometry.sizeBytes).toBe(bytes);
    expect([file.isDirect, file.blockBytes]).toEqual([false, 512]);
  },
);

test("image: one of any size that another one has locked is refused as such", () => {
  const image = { path: makeFile(513), what: "image", isAnySize: true };
  using _holder = DataFile.open({ ...image, isReadOnly: false });
  expect(() => DataFile.open({ ...image, isReadOnly: true })).toThrow("in use by process");
});

test("data file: a symbolic link leads to its file", () => {
  const link = join(folder, "link");
  symlinkSync(makeFile(4096), link);
  using file = open(link);
  expect(file.sectors).toBe(8);
});

test.each([
  { name: "empty", bytes: 0, message: "is empty" },
  { name: "no whole sectors", bytes: 513, message: "513 bytes, which is not a multiple of 512" },
])("data file: $name is refused", ({ bytes, message }) => {
  expect(refusal(makeFile(bytes))).toEqual({
    code: "E_DISK_SIZE",
    message: expect.stringContaining(message),
  });
});

test("metadata that is empty is told as that, with what makes or mends it", () => {
  const path = makeFile(0);
  expect(() => DataFile.open({ path, what: "metadata", isReadOnly: false })).toThrow(
    expect.objectContaining({
      code: "E_METADATA",
      message: `metadata ${path} is empty; run init-metadata for a new disk, or bring the file back from a copy`,
    }),
  );
});

test("a folder at the place of a file is named as one, whether it is to be written or not", () => {
  for (const isReadOnly of [false, true]) {
    expect(refusal(folder, isReadOnly)).toEqual({
      code: "E_DISK_OPEN",
      message: expect.stringMatching(/^data .* is (a folder, )?neither a file nor a block device$/),
    });
  }
});

test("data file: what is missing, a folder, a pipe or a terminal is refused, and none of them waited for", () => {
  const directory = join(folder, "directory");
  mkdirSync(directory);
  const pipe = join(folder, "pipe");
  Bun.spawnSync(["mkfifo", pipe]);
  for (const path of [join(folder, "missing"), directory, pipe, "/dev/null"]) {
    expect(refusal(path).code).toBe("E_DISK_OPEN");
  }
});

test("data file: one that is open for writing cannot be opened again, and the holder is named", () => {
  const path = makeFile(4096);
  using _first = open(path);
  expect(refusal(path)).toEqual({
    code: "E_DISK_LOCKED",
    message: expect.stringContaining(`process ${process.pid}`),
  });
  expect(refusal(path, true).code).toBe("E_DISK_LOCKED");
});

test("data file: readers share it and keep writers out", () => {
  const path = makeFile(4096);
  using _first = open(path, true);
  using _second = open(path, true);
  expect(refusal(path).code).toBe("E_DISK_LOCKED");
});

test("data file: a holder that is dead but not yet waited for is no holder", async () => {
  const path = makeFile(4096);
  // flock ends with the lock taken; sleep, in the shell's place, keeps the description and never waits.
  const shell = Bun.spawn(["sh", "-c", `exec 9<"${path}"; flock -x 9 & exec sleep 3`]);
  const inode = `:${statSync(path).ino} `;
  const locks = () => readFileSync("/proc/locks", "latin1").split("\n");
  const holder = () =>
    locks()
      .find((line) => line.includes(inode))
      ?.split(/\s+/)[4];
  await until("flock has ended with the lock", () => {
    const pid = holder();
    return pid !== undefined && readFileSync(`/proc/${pid}/stat`, "latin1").includes(") Z ");
  });
  using file = open(path);
  expect(file.sectors).toBe(8);
  await shell.exited;
});

test("data file: a refusal leaves no lock and no descriptor behind", () => {
  const path = makeFile(4096);
  {
    using _first = open(path);
    for (let i = 0; i < 20; i++) {
      refusal(path);
    }
  }
  using second = open(path);
  expect(second.fd).toBeLessThan(100);
});

test("data file: unlocked it lets the next one in while it is still open", () => {
  const path = makeFile(4096);
  using first = open(path);
  first.unlock();
  using second = open(path);
  expect(second.sectors).toBe(8);
});

test("metadata that is not there yet: what makes it is named; of a disk it is not", () => {
  const path = join(folder, "none");
  const message = `there is no metadata ${path} yet; run init-metadata first`;
  expect(() => DataFile.open({ path, what: "metadata", isReadOnly: false })).toThrow(message);
  expect(refusal(path).message).toStartWith(`cannot open data ${path}: ENOENT`);
});

// --- internal ---

function makeFile(bytes: number): string {
  const path = join(folder, crypto.randomUUID());
  writeFileSync(path, Buffer.alloc(bytes));
  return path;
}

function open(path: string, isReadOnly = false): DataFile {
  return DataFile.open({ path, what: "data", isReadOnly });
}

function refusal(path: string, isReadOnly = false): { code: string; message: string } {
  try {
    open(path, isReadOnly)[Symbol.dispose]();
  } catch (error) {
    if (error instanceof UbiError) {
      return { code: error.code, message: error.message };
    }
    throw error;
  }
  throw new Error(`${path} was opened`);
}
