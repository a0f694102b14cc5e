/** `ubiblk scrub`: what a disk fetched from an archive against that archive, by the compiled executable. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { openStore } from "../../src/archive/open-store.ts";
import { type ArchiveToBuild, buildArchive } from "../support/archive-builder.ts";
import { doneEvent } from "../support/archived-disk.ts";
import { LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";

const KEK = new Uint8Array(32).fill(0x4b);
/** Neither the disk nor its archive is whole stripes; stripe 8 is zeros. */
const BYTES = 12 * MIB + 4096;
const STRIPES = 13;
const ZSTD = { kind: "zstd", level: 3 } as const;
const NEWS = new Uint8Array(4096).fill(0x77);

describe.each([
  { name: "encrypted, zstd", isEncrypted: true, archive: { isEncrypted: true, compression: ZSTD } },
  { name: "plain, not compressed", isEncrypted: false, archive: {} },
])("$name", ({ isEncrypted, archive }) => {
  test("a disk that is as it came is found so without an object of the archive", async () => {
    await using disk = await filledDisk({ isEncrypted, archive });
    renameSync(disk.files.file("archive/data"), disk.files.file("archive/away"));
    const result = await disk.files.run("scrub", "--json");
    expect(result.exitCode).toBe(0);
    expect(doneEvent(result)).toMatchObject({
      checked_stripes: STRIPES - 1,
      different_stripes: 0,
      unknown_stripes: 0,
      written_stripes: 1,
      unfetched_stripes: 0,
      objects: 0,
    });
  });

  test("stripes that rotted are named, a guest's are not, and nothing is changed", async () => {
    await using disk = await filledDisk({ isEncrypted, archive });
    rot(disk, [5 * MIB + 77, 8 * MIB, 12 * MIB + 100]);
    rot(disk, [3 * MIB + 100]); // a guest wrote to that stripe: nobody knows what belongs there
    const found = await disk.files.run("scrub");
    expect(found.exitCode).toBe(1);
    expect(found.stderr.match(/bad E_SCRUB: stripe \d+/g)?.sort()).toEqual([
      "bad E_SCRUB: stripe 12",
      "bad E_SCRUB: stripe 5",
      "bad E_SCRUB: stripe 8",
    ]);
    const before = readFileSync(disk.files.file("meta"));
    const told = await disk.files.run("scrub", "--json");
    expect(doneEvent(told)).toMatchObject({ different_stripes: 3, written_stripes: 1 });
    expect(readFileSync(disk.files.file("meta"))).toEqual(before);
  });
});

test("an archive of another compressor: its objects are read, and equal", async () => {
  const archive = { compression: ZSTD, compressedBy: { kind: "zstd", level: 12 } } as const;
  await using disk = await filledDisk({ isEncrypted: false, archive });
  const result = await disk.files.run("scrub", "--json");
  expect(result.exitCode).toBe(0);
  const objects = Number(doneEvent(result).objects);
  expect(objects).toBeGreaterThan(0);
  rmSync(disk.files.file("archive/data"), { recursive: true });
  const blind = await disk.files.run("scrub", "--json");
  expect(blind.exitCode).toBe(1);
  expect(blind.stderr).toContain(`error E_SCRUB: ${objects} stripes could not be compared`);
  expect(doneEvent(blind)).toMatchObject({
    checked_stripes: STRIPES - 1 - objects,
    different_stripes: 0,
    unknown_stripes: objects,
  });
});

test("a disk of which most differs has no damage but another archive, and is told so", async () => {
  await using disk = await filledDisk({ isEncrypted: false, archive: {} });
  rot(
    disk,
    [0, 1, 2, 4, 5, 6, 7].map((stripe) => stripe * MIB + 100),
  );
  const result = await disk.files.run("scrub", "--json");
  expect(result.exitCode).toBe(1);
  expect(doneEvent(result)).toMatchObject({ different_stripes: 7 });
  expect(result.stderr).toContain("error E_SCRUB: 7 stripes differ");
  expect(result.stderr).toContain("more than half of the 12");
});

test("an archive of another, smaller disk: what it does not have was not compared, nor is it damage", async () => {
  await using disk = await filledDisk({ isEncrypted: false, archive: {} });
  const path = disk.files.file("other");
  await using store = await openStore({ kind: "filesystem", path, role: "write" });
  await buildArchive(store, { stripeSectors: 2048, image: new Uint8Array(3 * MIB).fill(0x29) });
  disk.files.write("other.toml", `[archive]\nstorage = "filesystem"\npath = "${path}"\n`);
  const told = await disk.files.run("scrub", "--source", "other.toml");
  expect(told.stderr).toContain("3 stripes compared with");
  expect(told.stderr).toContain("3 differ; 9 could not be compared, 1 written by guests");
  expect(told.stderr).toContain("3 stripes differ from the archive: more than half of the 3");
  const result = await disk.files.run("scrub", "--source", "other.toml", "--json");
  expect(doneEvent(result)).toMatchObject({
    checked_stripes: 3,
    different_stripes: 3,
    unknown_stripes: 9,
    written_stripes: 1,
  });
});

test("a disk that has grown since: what lies behind the archived one is not compared", async () => {
  await using disk = await filledDisk({ isEncrypted: true, archive: { isEncrypted: true } });
  const fd = openSync(disk.files.file("disk.raw"), "r+");
  writeSync(fd, new Uint8Array(4 * MIB).fill(0x5a), 0, 4 * MIB, BYTES);
  closeSync(fd);
  await disk.files.run("init-metadata", "--grow");
  const result = await disk.files.run("scrub", "--json");
  expect(doneEvent(result)).toMatchObject({ checked_stripes: 12, different_stripes: 0 });
});

test("an archive that goes on behind the end of the disk, in its last stripe: that is not compared", async () => {
  const imageBytes = BYTES + 8192;
  await using disk = await filledDisk({ isEncrypted: false, archive: {}, imageBytes });
  const result = await disk.files.run("scrub", "--json");
  expect(doneEvent(result)).toMatchObject({ checked_stripes: 12, different_stripes: 0 });
});

test("the limit of the rate is kept", async () => {
  await using disk = await filledDisk({ isEncrypted: false, archive: {} });
  const result = await disk.files.run("scrub", "--json", "--bytes-per-second", "8M");
  expect(Number(doneEvent(result).seconds)).toBeGreaterThan(1);
});

test("what cannot be scrubbed is refused", async () => {
  await using disk = await filledDisk({ isEncrypted: false, archive: {} });
  const refusal = async (...flags: readonly string[]) =>
    (await disk.files.run("scrub", ...flags)).stderr;
  expect(await refusal("--bytes-per-second", "0")).toContain("E_USAGE");
  disk.configure({ device: "" });
  expect(await refusal()).toContain("E_CONFIG: device.track_written");
  disk.configure({ device: "track_written = true", origin: "", source: "none" });
  expect(await refusal()).toContain("E_USAGE: --source: missing");
  disk.files.write("source.toml", `[archive]\nstorage = "filesystem"\npath = "nothing"\n`);
  expect(await refusal("--source", "source.toml")).toMatch(/E_STORE|E_ARCHIVE/);
});

describe("a disk that is served", () => {
  test("is scrubbed meanwhile, and what a guest writes before its stripe comes is left out", async () => {
    await using disk = await filledDisk({ isEncrypted: true, archive: { isEncrypted: true } });
    rot(disk, [5 * MIB + 77]);
    await disk.start();
    using guest = new LazyGuest(disk);
    const scrub = disk.files.run("scrub", "--json", "--bytes-per-second", "2M");
    await Bun.sleep(500);
    for (const stripe of [10, 11]) {
      guest.write(stripe * MIB + 8192, NEWS);
    }
    const result = await scrub;
    expect(result.exitCode).toBe(1);
    expect(result.stdout.match(/"event":"bad".*?"stripe":\d+/g)).toHaveLength(1);
    expect(doneEvent(result)).toMatchObject({
      checked_stripes: STRIPES - 3,
      different_stripes: 1,
      written_stripes: 3,
      served: true,
    });
    await disk.stop();
  });

  test("and written without a rest: no guest's write looks like damage", async () => {
    await using disk = await filledDisk({ isEncrypted: false, archive: {} });
    await disk.start();
    using guest = new LazyGuest(disk);
    const scrub = disk.files.run("scrub", "--json", "--bytes-per-second", "6M");
    let isEnded = false;
    const result = scrub.finally(() => {
      isEnded = true;
    });
    for (let round = 0; !isEnded; round++) {
      guest.write((round % 12) * MIB + ((round * 4096) % (4096 * 200)), NEWS);
      await Bun.sleep(round < 12 ? 100 : 1);
    }
    expect((await result).exitCode).toBe(0);
    const { written_stripes, checked_stripes } = doneEvent(await result);
    expect(Number(written_stripes) + Number(checked_stripes)).toBe(STRIPES);
    await disk.stop();
  });
});

// --- internal ---

/** All fetched from the archive; a guest has written to stripe 3. */
async function filledDisk(options: {
  readonly isEncrypted: boolean;
  readonly archive: Partial<ArchiveToBuild>;
  /** Of what was archived. */
  readonly imageBytes?: number;
}): Promise<LazyDisk> {
  const { isEncrypted, archive, imageBytes = BYTES } = options;
  const disk = new LazyDisk({
    diskBytes: BYTES,
    imageBytes,
    isEncrypted,
    origin: 'type = "archive"\nstorage = "filesystem"\npath = "archive"',
    source: `autofetch = true${isEncrypted ? '\narchive_kek.ref = "kek"' : ""}`,
    sections: isEncrypted ? '[secrets.kek]\nsource.file = "kek"' : "",
    device: "track_written = true",
    zeroStripes: [8],
  });
  disk.files.write("kek", KEK);
  const path = disk.files.file("archive");
  await using store = await openStore({ kind: "filesystem", path, role: "write" });
  const keys = isEncrypted ? { kek: KEK } : {};
  await buildArchive(store, { stripeSectors: 2048, image: disk.image, ...archive, ...keys });
  await disk.init();
  await disk.start();
  await disk.until(({ status }) => status.fetch?.source_state === "closed");
  {
    using guest = new LazyGuest(disk);
    guest.write(3 * MIB + 8192, NEWS);
    guest.flush();
  }
  await disk.stop();
  return disk;
}

/** Changes bytes of the disk's file where nobody sees it. */
function rot(disk: LazyDisk, offsets: readonly number[]): void {
  const fd = openSync(disk.files.file("disk.raw"), "r+");
  for (const offset of offsets) {
    writeSync(fd, Uint8Array.of(0xa5, 0x5a, 0xff), 0, 3, offset);
  }
  closeSync(fd);
}
