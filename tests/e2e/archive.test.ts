/** `ubiblk archive` and `export-archive` as a user runs them, in a folder. */
import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { lockFile } from "../../src/ffi/file.ts";
import { STRIPE_FLAG } from "../../src/formats/metadata.ts";
import { DiskToArchive, doneEvent, seededStripe } from "../support/archived-disk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { endWhileItWaits } from "../support/waiting-command.ts";

const { FETCHED, WRITTEN, HAS_SOURCE } = STRIPE_FLAG;
const ENCRYPTED = ["--encrypt"] as const;
const ZSTD = ["--compression", "zstd"] as const;

function expectSuccess(result: CommandResult): CommandResult {
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  return result;
}

const flagsOf = (count: number, flags = 0) => Array.from({ length: count }, () => flags);

describe("round trips", () => {
  test.each([
    { what: "whole stripes", shift: 7, count: 9, cut: 0, flags: [], hasKek: false },
    {
      what: "zstd, a short last stripe",
      shift: 11,
      count: 3,
      cut: 512 * 5,
      flags: ZSTD,
      hasKek: true,
    },
    {
      what: "encrypted, one sector",
      shift: 6,
      count: 1,
      cut: 512 * 63,
      flags: ENCRYPTED,
      hasKek: true,
    },
    {
      what: "encrypted and zstd, a last stripe of one sector",
      shift: 8,
      count: 40,
      cut: 512 * 255,
      flags: [...ENCRYPTED, ...ZSTD, "--zstd-level", "1"],
      hasKek: true,
    },
    { what: "64 MiB stripes", shift: 17, count: 1, cut: 63 * 2 ** 20, flags: ZSTD, hasKek: true },
  ])("$what", async ({ shift, count, cut, flags, hasKek }) => {
    const sizeBytes = count * 512 * 2 ** shift - cut;
    using disk = new DiskToArchive({
      stripeShift: shift,
      flags: flagsOf(count),
      sizeBytes,
      hasKek,
      // Large ones are made of few bytes: making them shall not take longer than archiving them.
      ...(shift === 17 ? { stripe: (_: number, n: number) => new Uint8Array(n).fill(7) } : {}),
    });
    expectSuccess(await disk.archive(...flags));
    expectSuccess(await disk.export());
    expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw"))).toBe(true);
    expect(statSync(disk.file("out.raw")).mode & 0o777).toBe(0o600);
    expectSuccess(await disk.tool("verify"));
    expect(readdirSync(disk.archivePath).sort()).not.toContain("archive-run.json");
  });
});

describe("which stripes", () => {
  test("16 stripes, image of 10, some written: the disk's where written, the image's, zeros", async () => {
    const flags: number[] = Array.from({ length: 16 }, (_, n) => (n < 10 ? HAS_SOURCE : 0));
    for (const stripe of [2, 7]) {
      flags[stripe] = HAS_SOURCE | FETCHED | WRITTEN;
    }
    for (const stripe of [11, 14]) {
      flags[stripe] = WRITTEN;
    }
    const options = { stripeShift: 7, flags, imageBytes: 10 * 65_536, isWriteTracked: true };
    using disk = new DiskToArchive(options);
    const facts = doneEvent(expectSuccess(await disk.archive("--json")));
    expect(facts).toMatchObject({
      stripes_from_disk: 4,
      stripes_from_source: 8,
      stripes_skipped: 4,
    });
    expectSuccess(await disk.export());
    const image = disk.bytesOf("image.raw");
    const expected = Buffer.alloc(16 * 65_536);
    for (let stripe = 0; stripe < 16; stripe += 1) {
      const isWritten = [2, 7, 11, 14].includes(stripe);
      const from = isWritten ? disk.bytesOf("disk.raw") : image;
      expected.set(from.subarray(stripe * 65_536, (stripe + 1) * 65_536), stripe * 65_536);
    }
    expect(disk.bytesOf("out.raw").equals(expected)).toBe(true);
  });

  test("written, but not fetched yet: the source's data, not what lies on the disk", async () => {
    const flags = [HAS_SOURCE | WRITTEN];
    using disk = new DiskToArchive({ stripeShift: 7, flags, imageBytes: 65_536 });
    expectSuccess(await disk.archive());
    expectSuccess(await disk.export());
    expect(disk.bytesOf("out.raw").equals(disk.bytesOf("image.raw"))).toBe(true);
  });

  test("equal stripes have one object, zeros none; the statistics are those of the reference", async () => {
    const stripe = (n: number, size: number) =>
      n === 3 ? new Uint8Array(size) : seededStripe(n === 2 ? 5 : n, size);
    using disk = new DiskToArchive({ stripeShift: 7, flags: flagsOf(6), stripe });
    const facts = doneEvent(expectSuccess(await disk.archive("--stats", "stats", "--json")));
    expect(facts).toMatchObject({ objects_written: 4, duplicate_stripes: 1, zero_stripes: 1 });
    expect(disk.objects()).toHaveLength(4);
    const manifest = ["metadata.json", "stripe-mapping"].map(
      (name) => statSync(join(disk.archivePath, name)).size,
    );
    const physical = 4 * 65_536 + manifest.reduce((a, b) => a + b, 0);
    expect(disk.bytesOf("stats").toString()).toBe(
      `{\n  "physical_size_bytes": ${physical},\n  "logical_size_bytes": ${6 * 65_536}\n}`,
    );
  });

  test.each([[], ["--dry-run"]])(
    "statistics that cannot be written are refused at the start %p",
    async (...flags) => {
      using disk = new DiskToArchive({ stripeShift: 7, flags: flagsOf(1) });
      const refused = await disk.archive("--stats", "missing/stats", ...flags);
      expect(refused).toMatchObject({ exitCode: 1 });
      expect(refused.stderr).toContain("nothing was done");
      expect(existsSync(disk.archivePath)).toBe(false);
    },
  );

  test("a disk that is not archived to its end keeps its size", async () => {
    const flags = [WRITTEN, 0, 0];
    const sizeBytes = 2 * 65_536 + 1024;
    using disk = new DiskToArchive({ stripeShift: 7, flags, sizeBytes, isWriteTracked: true });
    expectSuccess(await disk.archive());
    expectSuccess(await disk.export());
    const out = disk.bytesOf("out.raw");
    expect(out.length).toBe(sizeBytes);
    expect(out.subarray(65_536).every((byte) => byte === 0)).toBe(true);
  });

  test("a disk larger than its metadata is refused", async () => {
    using disk = new DiskToArchive({ stripeShift: 7, flags: flagsOf(4) });
    disk.write("disk.raw", new Uint8Array(5 * 65_536));
    expect((await disk.archive()).stderr).toContain("E_METADATA_SIZE");
  });

  test("an image that ends before a stripe to fetch is refused: zeros are not its data", async () => {
    using disk = new DiskToArchive({
      stripeShift: 7,
      flags: [HAS_SOURCE, HAS_SOURCE],
      imageBytes: 65_536,
    });
    const result = await disk.archive();
    expect(result.stderr).toContain("ends before stripe 1, which is still to be fetched");
    expect(readdirSync(disk.archivePath)).toEqual([]);
  });

  test("stripes to fetch without a source are refused", async () => {
    using disk = new DiskToArchive({ stripeShift: 7, flags: [HAS_SOURCE] });
    expect((await disk.archive()).stderr).toContain("E_STRIPE_SOURCE");
  });
});

describe("refusals", () => {
  test.each([
    { what: "encryption without a KEK", flags: ENCRYPTED, dangers: [], code: "E_CONFIG_DANGER" },
    {
      what: "the same, allowed",
      flags: ENCRYPTED,
      dangers: ["allow_archive_keys_in_clear"],
      code: undefined,
    },
    { what: "two modes", flags: ["--resume", "--replace"], dangers: [], code: "E_USAGE" },
    { what: "a level out of range", flags: ["--zstd-level", "23"], dangers: [], code: "E_USAGE" },
  ])("$what", async ({ flags, dangers, code }) => {
    using disk = new DiskToArchive({ stripeShift: 7, flags: [0], dangers });
    const result = await disk.archive(...flags);
    expect(result.exitCode).toBe(code === undefined ? 0 : code === "E_USAGE" ? 2 : 1);
    expect(result.stderr).toContain(code ?? "archive: archived");
    expect(existsSync(disk.archivePath)).toBe(code === undefined);
  });

  test("an encrypted disk in the clear, unless that is allowed", async () => {
    using disk = new DiskToArchive({ stripeShift: 7, flags: flagsOf(3), hasKek: true });
    disk.write(
      "key",
      Uint8Array.from({ length: 64 }, (_, i) => i),
    );
    const config = disk.bytesOf("disk.toml").toString();
    const key = '[encryption]\nxts_key.ref = "k"\n[secrets.k]\nsource.file = "key"\n';
    disk.write("disk.toml", `${config}allow_secret_over_regular_file = true\n${key}`);
    expectSuccess(await disk.run("init-metadata", "-f", "disk.toml", "-s", "7", "--force"));
    expect((await disk.archive()).stderr).toContain("allow_plain_archive");
    disk.writeDocuments("", "kek", ["allow_plain_archive"]);
    expectSuccess(await disk.archive());
    expectSuccess(await disk.export());
    expectSuccess(await disk.run("xts", "-f", "disk.toml", "disk.raw", "plain"));
    expect(disk.bytesOf("out.raw").equals(disk.bytesOf("plain"))).toBe(true);
  });

  test("a disk that another program has", async () => {
    using disk = new DiskToArchive({ stripeShift: 7, flags: [0] });
    expect(lockFile(openSync(disk.file("disk.raw"), "r"), "exclusive")).toBe(0);
    const result = await disk.archive();
    expect(result.stderr).toContain(`in use by process ${process.pid}`);
  });

  test("an archive that is there already stays as it is", async () => {
    using disk = new DiskToArchive({ stripeShift: 7, flags: [0] });
    expectSuccess(await disk.archive());
    const before = readFileSync(join(disk.archivePath, "stripe-mapping"));
    expect((await disk.archive()).stderr).toContain("E_ARCHIVE_EXISTS");
    expect(readFileSync(join(disk.archivePath, "stripe-mapping")).equals(before)).toBe(true);
  });

  test("a dry run tells the plan and makes nothing", async () => {
    using disk = new DiskToArchive({ stripeShift: 7, flags: flagsOf(3) });
    const facts = doneEvent(expectSuccess(await disk.archive("--dry-run", "--json")));
    expect(facts).toMatchObject({
      event: "done",
      dry_run: true,
      stripes_from_disk: 3,
      leaves_objects: false,
    });
    expect(existsSync(disk.archivePath)).toBe(false);
  });

  test("a relative path starts from the working directory, and says so", async () => {
    using disk = new DiskToArchive({ stripeShift: 7, flags: [0], archivePath: "here" });
    mkdirSync(disk.file("elsewhere"));
    const result = await runCommand(
      [EXECUTABLE, "archive", "-f", "../disk.toml", "--target-config", "../target.toml"],
      { cwd: disk.file("elsewhere"), env: { ...disk.env, UBIBLK_LOG: "warn" } },
    );
    expectSuccess(result);
    expect(result.stderr.match(/relative/g)).toHaveLength(1);
    expect(existsSync(disk.file("elsewhere/here/metadata.json"))).toBe(true);
  });
});

test.each([
  { words: ["archive", "-f", "disk.toml", "--target-config", "target.toml", "--encrypt"] },
  { words: ["scrub", "-f", "disk.toml", "--source", "source.toml"] },
  { words: ["export-archive", "--source", "source.toml", "--target", "out.raw"] },
  { words: ["archive", "rekey", "--source", "source.toml", "--target-config", "target.toml"] },
])("a signal while a secret's pipe has no writer ends it at once: $words", async ({ words }) => {
  const flags = [STRIPE_FLAG.HAS_SOURCE | STRIPE_FLAG.FETCHED];
  using disk = new DiskToArchive({ stripeShift: 7, flags, isWriteTracked: true, hasKek: true });
  expectSuccess(await disk.archive("--encrypt"));
  if (words[1] === "-f") {
    const key = '[encryption]\nxts_key.ref = "key"\n[secrets.key]\nsource.file = "pipe"\n';
    disk.write("disk.toml", `${readFileSync(disk.file("disk.toml"), "utf8")}${key}`);
  } else {
    disk.writeDocuments("", "pipe");
  }
  expect(Bun.spawnSync(["mkfifo", "-m", "600", disk.file("pipe")]).exitCode).toBe(0);
  const { exitCode, told } = await endWhileItWaits(words, "SIGINT", disk.folder);
  expect(told).toContain("was interrupted by SIGINT");
  expect(exitCode).toBe(130);
});

test("links with the reference's names are the commands", async () => {
  using disk = new DiskToArchive({ stripeShift: 7, flags: flagsOf(2) });
  for (const name of ["archive", "export-archive"]) {
    mkdirSync(disk.file(`bin-${name}`));
    symlinkSync(EXECUTABLE, join(disk.file(`bin-${name}`), name));
  }
  const link = (name: string, ...words: readonly string[]) =>
    runCommand([join(disk.file(`bin-${name}`), name), ...words], {
      cwd: disk.folder,
      env: disk.env,
    });
  expectSuccess(await link("archive", "-f", "disk.toml", "--target-config=target.toml"));
  expectSuccess(await link("archive", "verify", "--source", "source.toml"));
  const out = disk.file("out.raw");
  expectSuccess(await link("export-archive", "--source", "source.toml", "--target", out));
  expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw"))).toBe(true);
});
