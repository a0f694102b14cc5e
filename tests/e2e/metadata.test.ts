/** `ubiblk init-metadata` and `dump-metadata` as a user runs them, against vectors that other code made. */
import { describe, expect, test } from "bun:test";
import { chmodSync, linkSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { type CommandResult, outputOf, runCommand } from "../../scripts/command.ts";
import { EXECUTABLE, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { MetadataDisk, metadataFile, sha256 } from "../support/metadata-disk.ts";
import { isInstalled, skipUnless, skipUnlessInstalled } from "../support/requires.ts";
import { belowOnce } from "../support/until.ts";

const MIB = 2 ** 20;
/** 16 stripes of 1 MiB with 4 in the source, and 509 with all of them. */
const VECTORS = [
  {
    stripes: 16,
    image: 4,
    hash: "2727fde0b0a3096dce1ce911a18561b5046e482575cac82fc2ad49cfaee3f7ab",
  },
  {
    stripes: 509,
    image: 509,
    hash: "aae5bb40426cb31b487b7788b361ada6964786c83d2a21d41d89ca5a733f7f34",
  },
];

describe("vectors", () => {
  test.each(VECTORS)("a plain file of $stripes stripes", async ({ stripes, image, hash }) => {
    using disk = new MetadataDisk({ diskBytes: stripes * MIB, imageBytes: image * MIB });
    expectSuccess(await disk.run("init-metadata"));
    expect(sha256(disk.bytesOf("meta"))).toBe(hash);
  });

  test.each(VECTORS)("an encrypted file of $stripes stripes, deciphered by xts", async (vector) => {
    const { stripes, image, hash } = vector;
    const sizes = { diskBytes: stripes * MIB, imageBytes: image * MIB };
    using disk = new MetadataDisk({ ...sizes, isEncrypted: true });
    expectSuccess(await disk.run("init-metadata"));
    expect(disk.bytesOf("meta").includes("BDEV_UBI")).toBe(false);
    expectSuccess(await disk.run("xts", "--action", "decode", "meta", "plain"));
    expect(sha256(disk.bytesOf("plain"))).toBe(hash);
    expect((await disk.run("dump-metadata")).stdout).toContain("\nwritten stripes: \n");
  });

  test("padding up to the end of a longer file is enciphered zeros", async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB, imageBytes: 4 * MIB, isEncrypted: true });
    disk.write("meta", new Uint8Array(4096));
    expectSuccess(await disk.run("init-metadata"));
    expectSuccess(await disk.run("xts", "meta", "plain"));
    const plain = disk.bytesOf("plain");
    expect(plain.length).toBe(4096);
    expect(sha256(plain.subarray(0, 1024))).toBe(VECTORS[0]?.hash ?? "");
    expect(plain.subarray(1024).every((byte) => byte === 0)).toBe(true);
  });
});

describe("the file", () => {
  test.each([
    { what: "none", mode: undefined, size: 0, expected: 1024 },
    { what: "one that all may read, empty", mode: 0o644, size: 0, expected: 1024 },
    { what: "one with a set-user bit", mode: 0o4600, size: 0, expected: 1024 },
    { what: "one of a single byte", mode: 0o600, size: 1, expected: 1024 },
    { what: "a longer one", mode: 0o600, size: 4096, expected: 4096 },
  ])("$what is made fit", async ({ mode, size, expected }) => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB });
    if (mode !== undefined) {
      disk.write("meta", new Uint8Array(size));
      chmodSync(disk.file("meta"), mode);
    }
    expectSuccess(await disk.run("init-metadata"));
    const { mode: newMode, size: newSize } = statSync(disk.file("meta"));
    expect(newMode & 0o7777).toBe(0o600);
    expect(newSize).toBe(expected);
    expectSuccess(await disk.run("dump-metadata"));
  });

  test("a symbolic link, a device and the disk itself are refused", async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB });
    disk.write("target", "");
    symlinkSync(disk.file("target"), disk.file("meta"));
    expectFailure(await disk.run("init-metadata"), "E_METADATA_FILE", "symbolic link");
    disk.configure({ diskBytes: 0, metadataPath: "/dev/null" });
    expectFailure(await disk.run("init-metadata"), "E_METADATA_FILE", "not a regular file");
    linkSync(disk.file("disk.raw"), disk.file("alias"));
    disk.configure({ diskBytes: 0, metadataPath: "alias" });
    expectFailure(await disk.run("init-metadata", "--force"), "E_METADATA_FILE", "same file");
    disk.configure({ diskBytes: 0, metadataPath: "disk.raw" });
    expectFailure(await disk.run("init-metadata", "--force"), "E_CONFIG_VALUE", "metadata_path");
    expect(statSync(disk.file("disk.raw"))).toMatchObject({ size: 16 * MIB, blocks: 0 });
  });

  test("without metadata_path both commands name it", async () => {
    using disk = new MetadataDisk({ diskBytes: MIB, metadataPath: null });
    expectFailure(await disk.run("init-metadata"), "E_CONFIG", "metadata_path");
    expectFailure(await disk.run("dump-metadata"), "E_CONFIG", "metadata_path");
  });
});

describe("the stripes", () => {
  test("their number is that of the disk; a part of a stripe counts as one on both sides", async () => {
    using disk = new MetadataDisk({ diskBytes: 10 * MIB + 512, imageBytes: 4 * MIB + 512 });
    const made = await disk.run("init-metadata");
    const told = "11 stripes of 1048576 bytes, 5 in the stripe source; 1024 bytes, not encrypted";
    expect(made.stdout).toBe(`metadata meta: ${told}\n`);
    const json = await jsonOf(disk);
    expect(json).toMatchObject({
      stripe_count: 11,
      fetch_percent: 0,
      unfetched: { count: 5, percent: 45.45 },
      has_source: { count: 5, percent: 45.45, ranges: [[0, 4]] },
      written: { count: 0, percent: 0, ranges: [] },
    });
  });

  test.each([
    { shift: "6", stripes: 320 },
    { shift: "17", stripes: 1 },
  ])("a shift of $shift makes $stripes of them", async ({ shift, stripes }) => {
    using disk = new MetadataDisk({ diskBytes: 10 * MIB });
    expectSuccess(await disk.run("init-metadata", "-s", shift));
    expect(await jsonOf(disk)).toMatchObject({ stripe_count: stripes, source: null });
  });

  test("a shift out of range fails before the key is read", async () => {
    using disk = new MetadataDisk({ diskBytes: 10 * MIB, isEncrypted: true });
    disk.write("key", "too short");
    for (const shift of ["0", "5", "18", "255"]) {
      const result = await disk.run("init-metadata", "--stripe-sector-count-shift", shift);
      expectFailure(result, "E_METADATA_SIZE", "6 (32 KiB) to 17 (64 MiB)");
    }
    expectFailure(await disk.run("init-metadata"), "E_SECRET_SIZE", "64");
    for (const shift of ["256", "-1", "eleven"]) {
      const result = await disk.run("init-metadata", `--stripe-sector-count-shift=${shift}`);
      expect(result.exitCode).toBe(2);
    }
  });

  test("an image that does not fit the disk is refused, and nothing is made", async () => {
    using disk = new MetadataDisk({ diskBytes: MIB, imageBytes: 4 * MIB });
    expectFailure(await disk.run("init-metadata"), "E_STRIPE_SOURCE", "make the disk as large");
    disk.makeSparse("image.raw", 0);
    expectFailure(await disk.run("init-metadata"), "E_STRIPE_SOURCE", "is empty");
    disk.configure({ diskBytes: 0, imageBytes: 0, imagePath: "disk.raw" });
    expectFailure(await disk.run("init-metadata"), "E_STRIPE_SOURCE", "itself");
    disk.configure({ diskBytes: 0, imageBytes: 0, imagePath: "nowhere" });
    expectFailure(await disk.run("init-metadata"), "E_DISK_OPEN", "image");
    disk.configure({ diskBytes: 0, dataPath: "nowhere" });
    expectFailure(await disk.run("init-metadata"), "E_DISK_OPEN", "data");
    expect(await Bun.file(disk.file("meta")).exists()).toBe(false);
  });

  test("archives and servers that are not there: init says so, dump tells them", async () => {
    const sources = [
      {
        toml: 'type = "remote"\naddress = "[::1]:99"',
        code: "E_REMOTE",
        text: "remote (address: [::1]:99, psk_identity: None)",
      },
      {
        toml: 'type = "archive"\nstorage = "filesystem"\npath = "/a"',
        code: "E_STORE",
        text: "archive filesystem (path: /a)",
      },
    ];
    for (const { toml, code, text } of sources) {
      using disk = new MetadataDisk({ diskBytes: MIB });
      expectSuccess(await disk.run("init-metadata"));
      disk.configure({ diskBytes: 0, stripeSource: toml });
      expectFailure(await disk.run("init-metadata"), code, "");
      expect((await disk.run("dump-metadata")).stdout).toContain(`\nsource: ${text}\n`);
    }
  });
});

describe("earlier metadata", () => {
  test("of a disk that nothing was done to is replaced", async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB, imageBytes: 4 * MIB });
    expectSuccess(await disk.run("init-metadata", "-s", "6"));
    expectSuccess(await disk.run("init-metadata"));
    const meta = disk.bytesOf("meta");
    expect(sha256(meta.subarray(0, 1024))).toBe(VECTORS[0]?.hash ?? "");
  });

  test("with fetched and written stripes is kept, unless it is given up by --force", async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB, imageBytes: 4 * MIB });
    const flags = Uint8Array.of(5, 5, 5, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    const earlier = metadataFile({ stripeShift: 11, stripeCount: 16 }, flags, 1024);
    disk.write("meta", earlier);
    const refused = await disk.run("init-metadata");
    expectFailure(refused, "E_METADATA_KEPT", "3 fetched (0-2), 1 written (5)");
    expect(refused.stderr).toContain("--force");
    expect(disk.bytesOf("meta").equals(earlier)).toBe(true);
    const forced = await disk.run("init-metadata", "--force");
    expect(forced.stdout).toContain("given up: the state of its stripes: 3 fetched (0-2)");
    expect(sha256(disk.bytesOf("meta"))).toBe(VECTORS[0]?.hash ?? "");
  });

  test("that cannot be read is kept, with the reason: damage, another key, no key", async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB, isEncrypted: true });
    disk.configure({ diskBytes: 0 });
    expectSuccess(await disk.run("init-metadata"));
    disk.configure({ diskBytes: 0, isEncrypted: true });
    expectFailure(await disk.run("init-metadata"), "E_METADATA_KEPT", "without encryption");
    expectSuccess(await disk.run("init-metadata", "--force"));
    expectSuccess(await disk.run("init-metadata"));
    disk.write("key", new Uint8Array(64).fill(0x42));
    expectFailure(await disk.run("init-metadata"), "E_METADATA_KEPT", "under another key");
    disk.configure({ diskBytes: 0 });
    expectFailure(await disk.run("init-metadata"), "E_METADATA_KEPT", "under another key");
    disk.write("meta", "a note of somebody\n");
    expectFailure(await disk.run("init-metadata"), "E_METADATA_KEPT", "19 bytes");
    expect(disk.bytesOf("meta").toString()).toBe("a note of somebody\n");
  });

  test("that an interrupted init-metadata left is replaced", async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB, imageBytes: 4 * MIB });
    const cut = new Uint8Array(1024).fill(0x55);
    cut.fill(0, 0, 512);
    cut.set(new TextEncoder().encode("BDEV_UBI"));
    disk.write("meta", cut);
    expectFailure(await disk.run("dump-metadata"), "E_METADATA", "cut short");
    expectSuccess(await disk.run("init-metadata"));
    expect(sha256(disk.bytesOf("meta"))).toBe(VECTORS[0]?.hash ?? "");
  });
});

describe("a disk in use", () => {
  test("is not initialised, and is dumped all the same", async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB, imageBytes: 4 * MIB });
    expectSuccess(await disk.run("init-metadata"));
    const dataPath = disk.file("disk.raw");
    const serving = writeDiskConfig({ folder: disk.file("served"), isEncrypted: false, dataPath });
    await using backend = await startUbiblk(serving);
    const refused = await disk.run("init-metadata", "--force");
    expectFailure(refused, "E_DISK_LOCKED", `process ${backend.pid}`);
    expect((await disk.run("dump-metadata")).stdout).toBe(
      `data file: disk.raw (16777216 bytes)\n` +
        `source: raw (path: image.raw, size: 4194304 bytes)\n` +
        "metadata version: 2.0\nstripe size: 1048576 bytes\n" +
        "fetched stripes: \nwritten stripes: \nhas-source stripes: 0-3\n",
    );
    expect(sha256(disk.bytesOf("meta"))).toBe(VECTORS[0]?.hash ?? "");
  });

  skipUnlessInstalled("flock")("its metadata file alone is respected as well", async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB });
    expectSuccess(await disk.run("init-metadata"));
    const init = [EXECUTABLE, "init-metadata", "-f", "disk.toml"];
    const options = { cwd: disk.folder, env: { ...process.env, UBIBLK_LOG: "error" } };
    const locked = await runCommand(["flock", "meta", ...init], options);
    expectFailure(locked, "E_DISK_LOCKED", "metadata");
    const dump = [EXECUTABLE, "dump-metadata", "-f", "disk.toml"];
    expectSuccess(await runCommand(["flock", "meta", ...dump], options));
  });
});

describe("dump", () => {
  test("lists runs; neither the disk nor its image need be there", async () => {
    using disk = new MetadataDisk({ diskBytes: 8 * MIB, imageBytes: 8 * MIB });
    const flags = Uint8Array.of(5, 7, 7, 4, 5, 5, 4, 0x85);
    disk.write("meta", metadataFile({ stripeShift: 11, stripeCount: 8 }, flags, 1024));
    disk.configure({ diskBytes: 0, dataPath: "gone", imageBytes: 0, imagePath: "gone-too" });
    expect((await disk.run("dump-metadata")).stdout).toBe(
      `data file: gone (not available)\n` +
        `source: raw (path: gone-too, size: not available)\n` +
        "metadata version: 2.0\nstripe size: 1048576 bytes\n" +
        "fetched stripes: 0-2, 4, 5, 7\nwritten stripes: 1, 2\nhas-source stripes: 0-7\n",
    );
    expect(await jsonOf(disk)).toEqual({
      data_file: { path: "gone", bytes: null },
      source: { type: "raw", path: "gone-too", bytes: null },
      metadata_version: "2.0",
      stripe_bytes: MIB,
      stripe_count: 8,
      unfetched: { count: 2, percent: 25 },
      fetch_percent: 75,
      fetched: {
        count: 6,
        percent: 75,
        ranges: [
          [0, 2],
          [4, 5],
          [7, 7],
        ],
      },
      written: { count: 2, percent: 25, ranges: [[1, 2]] },
      has_source: { count: 8, percent: 100, ranges: [[0, 7]] },
    });
  });

  test("a disk of another size than its metadata is told on standard error", async () => {
    using disk = new MetadataDisk({ diskBytes: 8 * MIB });
    expectSuccess(await disk.run("init-metadata"));
    disk.makeSparse("disk.raw", 9 * MIB);
    const dump = [EXECUTABLE, "dump-metadata", "-f", "disk.toml"];
    const result = await runCommand(dump, {
      cwd: disk.folder,
      env: { ...process.env, UBIBLK_LOG: "warn" },
    });
    expect(result.stderr).toContain("another number of stripes");
    expect(result.stdout.split("\n")).toHaveLength(8);
  });

  test.each([
    { what: "none", bytes: undefined, code: "E_DISK_OPEN", named: "run init-metadata first" },
    { what: "an empty one", bytes: 0, code: "E_METADATA", named: "run init-metadata first" },
    { what: "a cut one", bytes: 513, code: "E_METADATA", named: "not a multiple of 512" },
  ])("a metadata file: $what", async ({ bytes, code, named }) => {
    using disk = new MetadataDisk({ diskBytes: 8 * MIB });
    if (bytes !== undefined) {
      disk.write("meta", new Uint8Array(bytes));
    }
    expectFailure(await disk.run("dump-metadata"), code, named);
  });

  test.each([
    { at: 1, named: "header: " },
    { at: 13, named: "header: " },
    { at: 600, named: "group 0 (stripes 0 to 507, sector 1)" },
    { at: 1030, named: "group 1 (stripes 508 to 508, sector 2)" },
  ])("a bit that flipped in byte $at is found", async ({ at, named }) => {
    using disk = new MetadataDisk({ diskBytes: 509 * MIB });
    expectSuccess(await disk.run("init-metadata"));
    const bytes = disk.bytesOf("meta");
    bytes[at] = (bytes[at] ?? 0) ^ 2;
    disk.write("meta", bytes);
    expectFailure(await disk.run("dump-metadata"), "E_METADATA", named);
    expectFailure(await disk.run("init-metadata"), "E_METADATA_KEPT", named);
  });

  test("a reader that goes away early is no failure", async () => {
    using disk = new MetadataDisk({ diskBytes: 8 * MIB });
    const stripeCount = 200_000;
    const flags = Uint8Array.from({ length: stripeCount }, (_, i) => i % 2);
    const sizeBytes = 512 * (1 + Math.ceil(stripeCount / 508));
    disk.write("meta", metadataFile({ stripeShift: 6, stripeCount }, flags, sizeBytes));
    const script =
      '{ "$1" dump-metadata -f disk.toml; echo "exit $?" >&2; } | head -c 100 >/dev/null';
    const env = { ...process.env, UBIBLK_LOG: "error" };
    const shell = ["sh", "-c", script, "sh", EXECUTABLE];
    const { stderr } = await runCommand(shell, { cwd: disk.folder, env });
    expect(stderr).toBe("exit 0\n");
  });
});

test("16 million stripes are made and read in seconds, in little memory", async () => {
  const stripeCount = 2 ** 24;
  using small = new MetadataDisk({ diskBytes: MIB });
  using large = new MetadataDisk({ diskBytes: stripeCount * 2 ** 15, imageBytes: 2 ** 30 });
  expectSuccess(await small.run("init-metadata"));
  expectSuccess(await large.run("init-metadata", "-s", "6"));
  const base = await measureDump(small);
  const moreMs = async () => {
    const measured = await measureDump(large);
    expect(measured.rssBytes - base.rssBytes).toBeLessThan(64 * MIB);
    return measured.durationMs - base.durationMs;
  };
  expect(await belowOnce(2000, moreMs)).toBeLessThan(2000);
}, 60_000);

const canAttach =
  process.getuid?.() === 0 &&
  isInstalled("losetup") &&
  (await runCommand(["losetup", "--find"])).exitCode === 0;

skipUnless("needs root and a loop device", canAttach)(
  "block devices have their real size, as disk and as image",
  async () => {
    using disk = new MetadataDisk({ diskBytes: 16 * MIB, imageBytes: 4 * MIB });
    const attach = (name: string) => outputOf(["losetup", "--find", "--show", disk.file(name)]);
    const dataPath = (await attach("disk.raw")).trim();
    const imagePath = (await attach("image.raw")).trim();
    try {
      disk.configure({ diskBytes: 0, dataPath, imageBytes: 0, imagePath });
      expectSuccess(await disk.run("init-metadata"));
      expect(sha256(disk.bytesOf("meta"))).toBe(VECTORS[0]?.hash ?? "");
      expect((await disk.run("dump-metadata")).stdout).toStartWith(
        `data file: ${dataPath} (16777216 bytes)\nsource: raw (path: ${imagePath}, size: 4194304`,
      );
      disk.configure({ diskBytes: 0, metadataPath: dataPath });
      expectFailure(await disk.run("init-metadata"), "E_METADATA_FILE", "not a regular file");
    } finally {
      await outputOf(["losetup", "--detach", dataPath]);
      await outputOf(["losetup", "--detach", imagePath]);
    }
  },
  60_000,
);

// --- internal ---

function expectSuccess(result: CommandResult): void {
  expect(result.stderr).toBe("");
  expect(result.exitCode).toBe(0);
}

function expectFailure(result: CommandResult, code: string, named: string): void {
  expect(result.stderr).toContain(`error ${code}: `);
  expect(result.stderr).toContain(named);
  expect(result.stdout).toBe("");
  expect(result.exitCode).toBe(1);
}

async function jsonOf(disk: MetadataDisk): Promise<unknown> {
  const { stdout } = await disk.run("dump-metadata", "--json");
  expect(stdout).toEndWith("}\n");
  return JSON.parse(stdout);
}

async function measureDump(
  disk: MetadataDisk,
): Promise<{ readonly durationMs: number; readonly rssBytes: number }> {
  const startMs = performance.now();
  const child = Bun.spawn([EXECUTABLE, "dump-metadata", "-f", disk.file("disk.toml")], {
    stdout: Bun.file(disk.file("out")),
    stderr: "ignore",
  });
  expect(await child.exited).toBe(0);
  expect(readFileSync(disk.file("out"), "utf8")).toContain("\nhas-source stripes: ");
  const rssBytes = child.resourceUsage()?.maxRSS ?? Number.NaN;
  return { durationMs: performance.now() - startMs, rssBytes };
}
