/** Archives that are damaged, cut off, replaced and looked after, by the executable. */
import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { DiskToArchive, doneEvent, seededStripe } from "../support/archived-disk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { attachLoopDevice, missingLoopDevices, missingMounts } from "../support/loop-device.ts";
import { skipUnless } from "../support/requires.ts";

const SAFE = ["--encrypt", "--compression", "zstd"] as const;

function expectSuccess(result: CommandResult): CommandResult {
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  return result;
}

const diskOf = (
  stripes: number,
  more: { readonly archivePath?: string; readonly stripeShift?: number } = {},
) =>
  new DiskToArchive({
    stripeShift: 7,
    flags: Array.from({ length: stripes }, () => 0),
    hasKek: true,
    ...more,
  });

/** Changes one byte of a file, in the middle or where it is told. */
function tamper(path: string, offset?: number): () => void {
  const before = readFileSync(path);
  const bytes = Buffer.from(before);
  const at = offset ?? Math.floor(bytes.length / 2);
  bytes.writeUInt8((bytes[at] ?? 0) ^ 1, at);
  writeFileSync(path, bytes);
  return () => writeFileSync(path, before);
}

describe("tampering", () => {
  test("a changed byte in any object is found, and the object is named", async () => {
    using disk = diskOf(5);
    expectSuccess(await disk.archive(...SAFE));
    const names = disk.objects();
    expect(names).toHaveLength(5);
    for (const name of names) {
      const restore = tamper(join(disk.archivePath, "data", name));
      const result = await disk.tool("verify");
      expect(result.exitCode).toBe(1);
      expect(result.stderr).toContain(name);
      expect(result.stderr).toContain("1 stripe cannot be read");
      const exported = await disk.export();
      expect(exported).toMatchObject({ exitCode: 1 });
      expect(exported.stderr).toContain(name);
      expect(readdirSync(disk.folder).filter((file) => file.includes("out.raw"))).toEqual([]);
      restore();
    }
    expectSuccess(await disk.tool("verify"));
  });

  test("missing, short and long objects are all named in one check", async () => {
    using disk = diskOf(4);
    expectSuccess(await disk.archive());
    const [first = "", second = "", third = ""] = disk.objects();
    const data = (name: string) => join(disk.archivePath, "data", name);
    rmSync(data(first));
    truncateSync(data(second), 0);
    writeFileSync(data(third), Buffer.concat([readFileSync(data(third)), Buffer.alloc(512)]));
    const result = await disk.tool("verify", "--json");
    expect(result.exitCode).toBe(1);
    const bad = result.stdout.split("\n").filter((line) => line.includes('"bad"'));
    expect(bad).toHaveLength(3);
    for (const name of [first, second, third]) {
      expect(bad.filter((line) => line.includes(name))).toHaveLength(1);
    }
  });

  test.each(["metadata.json", "stripe-mapping"])(
    "any changed byte of %s is an error",
    async (name) => {
      using disk = diskOf(2);
      expectSuccess(await disk.archive(...SAFE));
      const path = join(disk.archivePath, name);
      const { size } = statSync(path);
      for (const share of [0.02, 0.3, 0.5, 0.8, 0.98]) {
        const restore = tamper(path, Math.floor(size * share));
        const result = await disk.tool("inspect");
        expect(result).toMatchObject({ exitCode: 1, stdout: "" });
        expect(result.stderr).toContain("error E_ARCHIVE");
        restore();
      }
    },
  );

  test("an archive that is not there is an error, and no folder is made of it", async () => {
    using disk = diskOf(1);
    expect((await disk.export()).stderr).toContain("E_STORE");
    expect(existsSync(disk.archivePath)).toBe(false);
  });
});

describe("runs that are cut off", () => {
  /** Kills an archive run when some objects are there. */
  async function killed(disk: DiskToArchive, signal: NodeJS.Signals, ...flags: readonly string[]) {
    const words = [
      "archive",
      "-f",
      "disk.toml",
      "--target-config",
      "target.toml",
      ...SAFE,
      ...flags,
    ];
    const data = join(disk.archivePath, "data");
    const before = existsSync(data) ? disk.objects().length : 0;
    const child = Bun.spawn([EXECUTABLE, ...words], {
      cwd: disk.folder,
      env: disk.env,
      stderr: "pipe",
      stdout: "ignore",
    });
    while (child.exitCode === null && (!existsSync(data) || disk.objects().length < before + 2)) {
      await Bun.sleep(1);
    }
    child.kill(signal);
    const stderr = await child.stderr.text();
    return { exitCode: await child.exited, stderr };
  }

  test("kill -9, then --resume: what was written is used, and the archive is whole", async () => {
    using disk = diskOf(400, { stripeShift: 9 });
    await killed(disk, "SIGKILL");
    expect(existsSync(join(disk.archivePath, "metadata.json"))).toBe(false);
    const kept = disk.objects();
    expect(kept.length).toBeGreaterThan(1);
    truncateSync(join(disk.archivePath, "data", kept[0] ?? ""), 0); // as a loss of power leaves it
    const facts = doneEvent(expectSuccess(await disk.archive(...SAFE, "--resume", "--json")));
    expect(facts).toMatchObject({
      reused_stripes: kept.length - 1,
      objects_written: 401 - kept.length,
    });
    expectSuccess(await disk.tool("verify"));
    expectSuccess(await disk.export());
    expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw"))).toBe(true);
    const pruned = doneEvent(expectSuccess(await disk.tool("prune", "--json")));
    expect(pruned).toMatchObject({ objects: 0 });
  }, 60_000);

  test("SIGINT ends a run with 130 and says how to go on", async () => {
    using disk = diskOf(400, { stripeShift: 9 });
    const { exitCode, stderr } = await killed(disk, "SIGINT");
    expect(exitCode).toBe(130);
    expect(stderr).toContain("E_INTERRUPTED");
    expect(stderr).toContain("--resume");
    expect(readdirSync(join(disk.archivePath, ".incomplete"))).toEqual([]);
  });

  test("a replacing run that is killed leaves the old archive as it was", async () => {
    using disk = diskOf(300, { stripeShift: 9 });
    expectSuccess(await disk.archive("--encrypt"));
    await killed(disk, "SIGKILL", "--replace");
    expectSuccess(await disk.tool("verify"));
    expect((await disk.tool("prune")).stderr).toContain("E_ARCHIVE_RUN");
    expectSuccess(await disk.tool("prune", "--discard-run"));
    expect(disk.objects()).toHaveLength(300);
    expectSuccess(await disk.tool("verify"));
  }, 60_000);

  skipUnless(missingMounts() ?? "", missingMounts() === undefined)(
    "a full disk is an error that says so; with room again the run goes on",
    async () => {
      using disk = diskOf(40, { stripeShift: 9, archivePath: "mount/archive" });
      const mount = disk.file("mount");
      mkdirSync(mount);
      expectSuccess(await runCommand(["mount", "-t", "tmpfs", "-o", "size=3m", "none", mount]));
      try {
        const failed = await disk.archive(...SAFE);
        expect(failed.exitCode).toBe(1);
        expect(failed.stderr).toContain("ENOSPC");
        expect(failed.stderr).toContain("--resume");
        expectSuccess(await runCommand(["mount", "-o", "remount,size=40m", mount]));
        const resumed = await disk.archive(...SAFE, "--resume", "--json");
        expect(doneEvent(expectSuccess(resumed))).toMatchObject({ zero_stripes: 0 });
        expectSuccess(await disk.tool("verify"));
      } finally {
        expectSuccess(await runCommand(["umount", mount]));
      }
    },
  );
});

describe("later runs", () => {
  test("--incremental writes what changed, and metadata.json stays byte for byte", async () => {
    using disk = diskOf(6);
    expectSuccess(await disk.archive(...SAFE));
    const metadata = readFileSync(join(disk.archivePath, "metadata.json"));
    const data = disk.bytesOf("disk.raw");
    data.fill("changed", 65_536 * 3, 65_536 * 4);
    disk.write("disk.raw", data);
    const facts = doneEvent(expectSuccess(await disk.archive(...SAFE, "--incremental", "--json")));
    expect(facts).toMatchObject({ objects_written: 1, reused_stripes: 5 });
    expect(readFileSync(join(disk.archivePath, "metadata.json")).equals(metadata)).toBe(true);
    expectSuccess(await disk.export());
    expect(disk.bytesOf("out.raw").equals(data)).toBe(true);
    expect(doneEvent(await disk.tool("prune", "--json"))).toMatchObject({ objects: 1 });
    expect(disk.objects()).toHaveLength(6);
  });

  test("--incremental with other flags is refused; --replace makes it anew", async () => {
    using disk = diskOf(3);
    expectSuccess(await disk.archive(...SAFE));
    expect((await disk.archive("--incremental")).stderr).toContain("E_ARCHIVE_EXISTS");
    expectSuccess(await disk.archive("--replace"));
    expect(readdirSync(disk.archivePath).sort()).toEqual([
      ".incomplete",
      "data",
      "metadata.json",
      "stripe-mapping",
    ]);
    expectSuccess(await disk.tool("verify"));
    expect(doneEvent(await disk.tool("prune", "--json"))).toMatchObject({ objects: 3 });
    expectSuccess(await disk.tool("verify"));
  });

  test("--replace mends an archive with a damaged object", async () => {
    using disk = diskOf(3);
    expectSuccess(await disk.archive(...SAFE));
    tamper(join(disk.archivePath, "data", disk.objects()[1] ?? ""));
    expectSuccess(await disk.archive(...SAFE, "--replace"));
    expectSuccess(await disk.tool("verify"));
  });
});

describe("tools", () => {
  test("inspect tells parameters, counts and what is missing", async () => {
    using disk = diskOf(4);
    expectSuccess(await disk.archive(...SAFE));
    rmSync(join(disk.archivePath, "data", disk.objects()[0] ?? ""));
    writeFileSync(join(disk.archivePath, "data", "0".repeat(63).concat("1")), "orphan");
    const report = JSON.parse(expectSuccess(await disk.tool("inspect", "--json")).stdout);
    expect(report).toMatchObject({
      disk_bytes: 4 * 65_536,
      stripe_bytes: 65_536,
      compression: "zstd",
      encrypted: true,
      keys_wrapped: true,
      stripes: { total: 4, stored: 4, zero: 0, absent: 0 },
      objects: 4,
      objects_missing: 1,
      orphans: 1,
      orphan_bytes: 6,
    });
    expect((await disk.tool("inspect")).stdout).toContain("objects: 4, ");
  });

  test("prune removes orphans and nothing else; a dry run removes nothing", async () => {
    using disk = diskOf(2);
    expectSuccess(await disk.archive());
    const orphan = join(disk.archivePath, "data", "0".repeat(64).replace("0", "a"));
    const stranger = join(disk.archivePath, "data", "notes.txt");
    writeFileSync(orphan, "x");
    writeFileSync(stranger, "mine");
    writeFileSync(join(disk.archivePath, ".incomplete", "0123456789abcdef-7"), "x");
    expect(doneEvent(await disk.tool("prune", "--dry-run", "--json"))).toMatchObject({
      objects: 1,
    });
    expect(existsSync(orphan)).toBe(true);
    const facts = doneEvent(expectSuccess(await disk.tool("prune", "--json")));
    expect(facts).toMatchObject({ objects: 1, leftovers: 1 });
    expect([existsSync(orphan), existsSync(stranger)]).toEqual([false, true]);
    expectSuccess(await disk.tool("verify"));
  });

  test("prune of a damaged archive removes nothing", async () => {
    using disk = diskOf(2);
    expectSuccess(await disk.archive());
    tamper(join(disk.archivePath, "stripe-mapping"));
    expect((await disk.tool("prune")).exitCode).toBe(1);
    expect(disk.objects()).toHaveLength(2);
  });

  test("rekey: the new key opens the archive, the old one does not, objects stay", async () => {
    using disk = diskOf(2);
    expectSuccess(await disk.archive(...SAFE));
    const mapping = readFileSync(join(disk.archivePath, "stripe-mapping"));
    disk.writeDocuments("2", "kek2");
    expectSuccess(await disk.tool("rekey", "--target-config", "target2.toml"));
    expect((await disk.tool("verify")).stderr).toContain("E_ARCHIVE_KEY");
    expectSuccess(await disk.run("archive", "verify", "--source", "source2.toml"));
    expect(readFileSync(join(disk.archivePath, "stripe-mapping")).equals(mapping)).toBe(true);
  });

  test("rekey to no key, or in another place, is refused", async () => {
    using disk = diskOf(1);
    expectSuccess(await disk.archive(...SAFE));
    disk.writeDocuments("2", undefined);
    const clear = await disk.tool("rekey", "--target-config", "target2.toml");
    expect(clear.stderr).toContain("E_CONFIG_DANGER");
    disk.writeDocuments("3", "kek2");
    const other = disk.bytesOf("target3.toml").toString().replace("/archive", "/other");
    disk.write("target3.toml", other);
    const place = await disk.tool("rekey", "--target-config", "target3.toml");
    expect(place.stderr).toContain("name the same place");
    expectSuccess(await disk.tool("verify"));
  });
});

test("a quiet archive tells nothing of its life cycle", async () => {
  using disk = diskOf(1);
  const env = { ...process.env, UBIBLK_LOG: undefined };
  const words = ["archive", "-f", "disk.toml", "--target-config", "target.toml", ...SAFE];
  const result = await runCommand([EXECUTABLE, ...words, "--quiet"], {
    cwd: disk.folder,
    timeoutMs: 60_000,
    env,
  });
  expect(expectSuccess(result).stderr).not.toContain("INFO");
});

describe("export", () => {
  test("zero and absent stripes are holes; the hash is that of the image", async () => {
    const stripe = (n: number, size: number) =>
      n % 8 === 0 ? seededStripe(n, size) : new Uint8Array(size);
    using disk = new DiskToArchive({
      stripeShift: 11,
      flags: Array.from({ length: 16 }, () => 0),
      stripe,
    });
    expectSuccess(await disk.archive());
    const facts = doneEvent(expectSuccess(await disk.export("--sha256", "--json")));
    const { blocks, size } = statSync(disk.file("out.raw"));
    expect(blocks * 512).toBeLessThan(size / 4);
    const hash = new Bun.CryptoHasher("sha256").update(disk.bytesOf("disk.raw")).digest("hex");
    expect(facts).toMatchObject({ sha256: hash, size_bytes: size, stored_stripes: 2 });
  });

  test("a target that is there: kept with --no-clobber, else replaced when all is well", async () => {
    using disk = diskOf(1);
    expectSuccess(await disk.archive());
    disk.write("out.raw", "precious");
    expect((await disk.export("--no-clobber")).stderr).toContain("E_EXPORT");
    expect(disk.bytesOf("out.raw").toString()).toBe("precious");
    expectSuccess(await disk.export());
    expect(disk.bytesOf("out.raw").length).toBe(65_536);
  });

  test("what the export is made from is no target: documents, includes, secrets, names for them", async () => {
    using disk = diskOf(1);
    expectSuccess(await disk.archive());
    disk.write("part.toml", "# nothing yet\n");
    disk.write("source.toml", `include = ["part.toml"]\n${disk.bytesOf("source.toml")}`);
    const inputs = ["source.toml", "part.toml", "kek"];
    symlinkSync("kek", disk.file("link"));
    const before = inputs.map((name) => disk.bytesOf(name));
    for (const target of [...inputs, "link"]) {
      const words = ["export-archive", "--source", "source.toml", "--target", target];
      const refused = await disk.run(...words);
      expect(refused.stderr).toContain("which would be destroyed");
      expect(refused.exitCode).toBe(1);
    }
    expect(inputs.map((name) => disk.bytesOf(name))).toEqual(before);
  });

  test("killed, it leaves a file that the next one removes; ended by a signal, nothing, and says so", async () => {
    using disk = diskOf(300, { stripeShift: 9 });
    expectSuccess(await disk.archive());
    const words = ["export-archive", "--source", "source.toml", "--target", "out.raw"];
    const unfinished = () =>
      readdirSync(disk.folder).filter((name) => name.startsWith(".out.raw."));
    const ended = async (signal: "SIGKILL" | "SIGINT") => {
      const before = unfinished();
      const child = Bun.spawn([EXECUTABLE, ...words], {
        cwd: disk.folder,
        env: disk.env,
        stderr: "pipe",
        stdout: "ignore",
      });
      while (child.exitCode === null && unfinished().every((name) => before.includes(name))) {
        await Bun.sleep(1);
      }
      child.kill(signal);
      return { stderr: await child.stderr.text(), exitCode: await child.exited };
    };
    await ended("SIGKILL");
    expect(unfinished()).toHaveLength(1);
    const { stderr, exitCode } = await ended("SIGINT");
    expect(exitCode).toBe(130);
    expect(stderr).toContain("the export was interrupted by SIGINT; out.raw is as it was");
    expect(unfinished()).toEqual([]);
    expect(existsSync(disk.file("out.raw"))).toBe(false);
  }, 30_000);

  test("another size: longer ends in zeros, shorter never loses a stripe of data", async () => {
    using disk = diskOf(2);
    expectSuccess(await disk.archive());
    expectSuccess(await disk.export("--size", "200K"));
    expect(
      disk
        .bytesOf("out.raw")
        .subarray(131_072)
        .every((byte) => byte === 0),
    ).toBe(true);
    expect(disk.bytesOf("out.raw").length).toBe(204_800);
    expect((await disk.export("--size", "65536")).stderr).toContain("E_EXPORT");
    const cut = await disk.export("--size", "131000");
    expect(cut.exitCode).toBe(1);
    expect(cut.stderr).toContain("the end of stripe 1");
    expect(disk.bytesOf("out.raw").length).toBe(204_800);
  });

  test("a size that leaves out zeros of the last stripe is that of the image", async () => {
    const stripe = (n: number, size: number) => seededStripe(n, size).fill(0, size - 1_000);
    using disk = new DiskToArchive({ stripeShift: 7, flags: [0, 0], stripe });
    expectSuccess(await disk.archive());
    expectSuccess(await disk.export("--size", "130560"));
    expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw").subarray(0, 130_560))).toBe(
      true,
    );
  });

  test("overlong objects are those that a run wrote: nothing changed, none are told", async () => {
    const stripe = (n: number, size: number) => seededStripe(n, 2 * size).subarray(size); // noise
    using disk = new DiskToArchive({ stripeShift: 7, flags: [0, 0], stripe, hasKek: true });
    const flags = ["--encrypt", "--compression", "zstd", "--json"];
    expect(doneEvent(expectSuccess(await disk.archive(...flags)))).toMatchObject({
      objects_written: 2,
      overlong_objects: 2,
    });
    const again = doneEvent(expectSuccess(await disk.archive(...flags, "--incremental")));
    expect(again).toMatchObject({ objects_written: 0, overlong_objects: 0 });
  });

  test("a target in the archive's folder is refused, by whatever name", async () => {
    using disk = diskOf(1);
    expectSuccess(await disk.archive());
    symlinkSync(disk.archivePath, disk.file("alias"));
    symlinkSync(join(disk.archivePath, "stripe-mapping"), disk.file("link"));
    const targets = ["archive/stripe-mapping", "archive/new.raw", "alias/data/new.raw", "link"];
    for (const target of targets) {
      const words = ["export-archive", "--source", "source.toml", "--target", target];
      const refused = await disk.run(...words);
      expect(refused.exitCode).toBe(1);
      expect(refused.stderr).toContain("in the archive");
    }
    expectSuccess(await disk.tool("verify"));
  });

  const missing = missingLoopDevices();
  skipUnless(missing ?? "", missing === undefined)(
    "a block device: zeroed where there is no data",
    async () => {
      const stripe = (n: number, size: number) =>
        n === 1 ? seededStripe(n, size) : new Uint8Array(size);
      using disk = new DiskToArchive({
        stripeShift: 7,
        flags: [0, 0, 0],
        sizeBytes: 3 * 65_536 - 512,
        stripe,
      });
      expectSuccess(await disk.archive());
      const backingPath = disk.file("backing");
      using device = attachLoopDevice({ backingPath, sizeBytes: 262_144, sectorBytes: 512 });
      writeFileSync(device.path, new Uint8Array(262_144).fill(0xee));
      const words = ["export-archive", "--source", "source.toml", "--target", device.path] as const;
      expectSuccess(await disk.run(...words));
      const content = readFileSync(device.path);
      const sizeBytes = 3 * 65_536 - 512;
      expect(content.subarray(0, sizeBytes).equals(disk.bytesOf("disk.raw"))).toBe(true);
      expect(content.subarray(sizeBytes).every((byte) => byte === 0xee)).toBe(true);
      expect((await disk.run(...words, "--size", "300000")).stderr).toContain("E_EXPORT");
    },
  );
});
