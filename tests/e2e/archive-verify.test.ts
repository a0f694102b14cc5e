/** `archive verify` by the executable: whatever was changed is named, and one object that cannot be read ends nothing. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DiskToArchive, doneEvent } from "../support/archived-disk.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { skipUnless } from "../support/requires.ts";

const KINDS = [
  { name: "plain", flags: [], hasKek: false },
  { name: "plain, zstd, KEK", flags: ["--compression", "zstd"], hasKek: true },
  { name: "enciphered", flags: ["--encrypt"], hasKek: true },
  { name: "enciphered, zstd", flags: ["--encrypt", "--compression", "zstd"], hasKek: true },
] as const;

const CHANGES = [
  { name: "a byte behind its end", change: (bytes: Buffer) => Buffer.concat([bytes, SPACE]) },
  { name: "512 zeros behind its end", change: (b: Buffer) => Buffer.concat([b, SECTOR]) },
  { name: "no last byte", change: (bytes: Buffer) => bytes.subarray(0, -1) },
  { name: "no last sector", change: (bytes: Buffer) => bytes.subarray(0, -512) },
  { name: "nothing", change: () => Buffer.alloc(0) },
  { name: "another last byte", change: (bytes: Buffer) => flipped(bytes, bytes.length - 1) },
  { name: "another byte inside", change: (b: Buffer) => flipped(b, Math.floor(b.length / 2)) },
] as const;

const SPACE = Buffer.from(" ");
const SECTOR = Buffer.alloc(512);

function flipped(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes);
  changed.writeUInt8((bytes[at] ?? 0) ^ 1, at);
  return changed;
}

/** Its last stripe is not whole: the size of the disk is recorded behind the map. */
const diskOf = (stripes: number, hasKek: boolean) =>
  new DiskToArchive({
    stripeShift: 7,
    flags: Array.from({ length: stripes }, () => 0),
    sizeBytes: stripes * 65_536 - 512,
    hasKek,
  });

const badLines = (stdout: string) => stdout.split("\n").filter((line) => line.includes('"bad"'));

describe.each(KINDS)("$name", ({ flags, hasKek }) => {
  test("each change of each kind of object is named, and the untouched archive is well", async () => {
    using disk = diskOf(3, hasKek);
    expect(await disk.archive(...flags)).toMatchObject({ exitCode: 0 });
    expect(await disk.tool("verify")).toMatchObject({ exitCode: 0 });
    const [object = ""] = disk.objects();
    for (const key of ["metadata.json", "stripe-mapping", `data/${object}`]) {
      const path = join(disk.archivePath, key);
      const whole = readFileSync(path);
      for (const { name, change } of CHANGES) {
        writeFileSync(path, change(whole));
        const result = await disk.tool("verify");
        expect({ key, name, exitCode: result.exitCode }).toEqual({ key, name, exitCode: 1 });
        expect(result.stderr).toContain(key);
        expect(result.stderr).toContain("error E_ARCHIVE");
      }
      writeFileSync(path, whole);
    }
    expect(await disk.tool("verify")).toMatchObject({ exitCode: 0 });
  }, 60_000);
});

test("bytes behind the manifest are counted, the stripes are still checked, and an export works", async () => {
  using disk = diskOf(3, true);
  await disk.archive("--encrypt");
  for (const key of ["metadata.json", "stripe-mapping"]) {
    const path = join(disk.archivePath, key);
    writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from("\n\n\n")]));
  }
  const result = await disk.tool("verify", "--json");
  expect(result).toMatchObject({ exitCode: 1 });
  const [first = "", second = "", ...more] = badLines(result.stdout);
  expect(more).toEqual([]);
  expect(JSON.parse(first)).toMatchObject({ stripe: null, code: "E_ARCHIVE_TAMPERED" });
  expect(first).toMatch(/object metadata.json in .* has 3 bytes behind its end/);
  expect(second).toMatch(/object stripe-mapping in .* has 3 bytes behind its end/);
  expect(doneEvent(result)).toMatchObject({ objects: 3, bad_stripes: 0, bad_manifest: 2 });
  expect(await disk.export()).toMatchObject({ exitCode: 0 });
  expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw"))).toBe(true);
});

test("objects that cannot be opened are named, and all the others are checked", async () => {
  using disk = diskOf(40, false);
  await disk.archive();
  const lost = disk.objects().slice(3, 37);
  for (const name of lost) {
    const path = join(disk.archivePath, "data", name);
    rmSync(path);
    symlinkSync(disk.file("disk.raw"), path);
  }
  const result = await disk.tool("verify", "--json");
  expect(result).toMatchObject({ exitCode: 1 });
  expect(badLines(result.stdout)).toHaveLength(34);
  expect(badLines(result.stdout).every((line) => line.includes("ELOOP"))).toBe(true);
  expect(doneEvent(result)).toMatchObject({ objects: 6, bad_stripes: 34 });
  expect(result.stderr).toContain("34 stripes cannot be read");
});

test("a folder in the place of an object, and one too long: verify and the next run say what to do", async () => {
  using disk = diskOf(3, false);
  await disk.archive();
  const [first = "", second = ""] = disk.objects();
  const path = join(disk.archivePath, "data", first);
  rmSync(path);
  mkdirSync(path);
  writeFileSync(join(disk.archivePath, "data", second), Buffer.alloc(70_000));
  const { stderr } = await disk.tool("verify");
  const advice = "remove it, or bring the object back from a copy";
  expect(stderr).toContain(`data/${first} in ${disk.archivePath} is no regular file; ${advice}`);
  expect(stderr).toMatch(new RegExp(`${second} in .* at most \\d+ are expected there; ${advice}`));
  expect(stderr).toContain("2 stripes cannot be read");
  const run = await disk.archive("--incremental");
  expect(run.stderr).toContain("a folder is in its place; remove that folder; objects that were");
  rmSync(path, { recursive: true });
  expect(await disk.archive("--resume")).toMatchObject({ exitCode: 0 });
  expect(await disk.tool("verify")).toMatchObject({ exitCode: 0 });
});

const missing = missingFuse();
skipUnless(missing ?? "", missing === undefined)(
  "an object that the disk does not give back (EIO) is named, and all the others are checked",
  async () => {
    using disk = diskOf(9, true);
    await disk.archive("--encrypt");
    const [name = ""] = disk.objects();
    const path = join(disk.archivePath, "data", name);
    copyFileSync(path, disk.file("copy"));
    await using _image = new FuseImage(disk.file("copy"), path, { failsReads: true });
    const result = await disk.tool("verify", "--json");
    expect(result).toMatchObject({ exitCode: 1 });
    const [bad = "", ...more] = badLines(result.stdout);
    expect(more).toEqual([]);
    expect(JSON.parse(bad)).toMatchObject({ code: "E_STORE" });
    expect(bad).toContain(`data/${name}`);
    expect(bad).toContain("EIO");
    expect(doneEvent(result)).toMatchObject({ objects: 8, stored_stripes: 9, bad_stripes: 1 });
  },
);
