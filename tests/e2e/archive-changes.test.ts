/** Archives that read only what was written since the last one, by the compiled executable. */
import { expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, rmSync, truncateSync, writeSync } from "node:fs";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { doneEvent } from "../support/archived-disk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { until } from "../support/until.ts";

const BYTES = 12 * MIB + 4096;
/** In the image: 6 stripes. */
const IMAGE_BYTES = 5 * MIB + 1536;

test("the first run reads all, later ones what was written since, and each is the disk as it is", async () => {
  await using disk = await trackedDisk(true);
  expect(await changes(disk)).toEqual({ from_disk: 0, from_source: 6, unchanged: 0 });
  expect(await changes(disk)).toEqual({ from_disk: 0, from_source: 0, unchanged: 6 });
  await write(disk, [1 * MIB, 7 * MIB + 512]);
  expect(await changes(disk)).toEqual({ from_disk: 2, from_source: 0, unchanged: 5 });
  await expectArchived(disk);
  await write(disk, [1 * MIB + 8192]); // once more, in a stripe that was written before
  expect(await changes(disk)).toEqual({ from_disk: 1, from_source: 0, unchanged: 6 });
  await expectArchived(disk);
  await write(disk, []);
  expect(await changes(disk)).toEqual({ from_disk: 0, from_source: 0, unchanged: 7 });
  await expectArchived(disk);
});

test("a backend that was killed: the next run reads all, and notes it again", async () => {
  await using disk = await trackedDisk(true);
  await changes(disk);
  await write(disk, []);
  expect(await changes(disk)).toMatchObject({ unchanged: 6 });
  await write(disk, [3 * MIB], "SIGKILL");
  expect(await changes(disk)).toMatchObject({ unchanged: 0 });
  await expectArchived(disk);
  await write(disk, [3 * MIB + 4096]);
  expect(await changes(disk)).toMatchObject({ from_disk: 1 });
  await expectArchived(disk);
});

test("another program that writes to the disk, before or after a backend: seen, and all is read", async () => {
  await using disk = await trackedDisk(false);
  await changes(disk);
  expect(await changes(disk)).toMatchObject({ unchanged: 6 });
  scribble(disk, 9 * MIB);
  await write(disk, [9 * MIB + 512]); // a backend in between takes nothing for known
  expect(await changes(disk)).toMatchObject({ unchanged: 0 });
  await expectArchived(disk);
  await write(disk, [4 * MIB]);
  scribble(disk, 4 * MIB + 100);
  expect(await changes(disk)).toMatchObject({ unchanged: 0 });
  await expectArchived(disk);
});

test("a backend that does not track writes: all is read", async () => {
  await using disk = await trackedDisk(false);
  await write(disk, [1 * MIB]);
  await changes(disk);
  expect(await changes(disk)).toMatchObject({ unchanged: 6 });
  disk.configure({ device: "" });
  await write(disk, [1 * MIB + 4096]);
  disk.configure({ device: "track_written = true" });
  expect(await changes(disk)).toMatchObject({ unchanged: 0 });
  await expectArchived(disk);
});

test("another archive at the target, or a run that did not track: all is read", async () => {
  await using disk = await trackedDisk(false);
  await changes(disk);
  await write(disk, [2 * MIB]);
  expect((await archive(disk, "--incremental")).exitCode).toBe(0); // another map, which is not noted
  await write(disk, [3 * MIB]);
  expect(await changes(disk)).toMatchObject({ unchanged: 0 });
  rmSync(disk.files.file("archive"), { recursive: true });
  expect(await changes(disk)).toMatchObject({ unchanged: 0 });
  await expectArchived(disk);
});

test("a disk that grows, and stripes that are fetched, between two runs: only what was written is read", async () => {
  await using disk = await trackedDisk(true);
  await changes(disk);
  disk.configure({ source: "autofetch = true" });
  await disk.start();
  await disk.until(({ status }) => status.fetch?.source_state === "closed");
  {
    using guest = new LazyGuest(disk);
    guest.write(2 * MIB, new Uint8Array(4096).fill(0x3c));
    truncateSync(disk.files.file("disk.raw"), 600 * MIB);
    expect(await disk.command({ command: "resize" })).toHaveProperty("resize");
    guest.write(599 * MIB, new Uint8Array(4096).fill(0x3d));
  }
  await disk.stop();
  expect(await changes(disk)).toEqual({ from_disk: 2, from_source: 0, unchanged: 5 });
  await expectArchived(disk);
});

test("a run that is killed with -9: whatever it left, the next archive is the disk", async () => {
  await using disk = await trackedDisk(true);
  const start = performance.now();
  await changes(disk);
  const runMs = performance.now() - start;
  for (let round = 0; round < 4; round++) {
    await write(disk, [(round % 5) * MIB + round * 4096, 8 * MIB + round * 4096]);
    const child = Bun.spawn([EXECUTABLE, ...words("--incremental", "--track-changes")], {
      cwd: disk.files.folder,
      stdout: "ignore",
      stderr: "ignore",
    });
    await Bun.sleep((runMs * (round + 3)) / 6);
    child.kill("SIGKILL");
    await child.exited;
    rmSync(disk.files.file("archive/archive-run.json"), { force: true });
    const result = await archive(disk, "--incremental", "--track-changes", "--json");
    expect(result.stderr).toBe("");
    await expectArchived(disk);
  }
}, 120_000);

test("a dry run tells what the run reads, and notes nothing", async () => {
  await using disk = await trackedDisk(true);
  expect(await changes(disk, "--dry-run")).toEqual({ from_disk: 0, from_source: 6, unchanged: 0 });
  expect(await changes(disk)).toEqual({ from_disk: 0, from_source: 6, unchanged: 0 });
  await write(disk, [1 * MIB, 7 * MIB + 512]);
  const told = { from_disk: 2, from_source: 0, unchanged: 5 };
  expect(await changes(disk, "--dry-run")).toEqual(told);
  const line = await archive(disk, "--incremental", "--track-changes", "--dry-run");
  expect(line.stderr).toContain("would archive 12.0 MiB: 13 stripes, 2 from the disk, 0 from its");
  expect(line.stderr).toContain("5 not changed");
  expect(await changes(disk)).toEqual(told);
  expect(await changes(disk, "--dry-run")).toMatchObject({ from_disk: 0, unchanged: 7 });
});

test.each([[[]], [["--dry-run"]]])("what cannot be tracked is refused: %j", async (flags) => {
  await using disk = await trackedDisk(false);
  disk.configure({ device: "" });
  const result = await archive(disk, "--track-changes", ...flags);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("E_CONFIG: --track-changes: device.track_written is off");
});

// --- internal ---

async function trackedDisk(isEncrypted: boolean): Promise<LazyDisk> {
  const disk = new LazyDisk({
    diskBytes: BYTES,
    imageBytes: IMAGE_BYTES,
    isEncrypted,
    device: "track_written = true",
  });
  await disk.init();
  const flags = "allow_secret_over_regular_file = true\nallow_plain_archive = true";
  for (const section of ["target", "archive"]) {
    const path = disk.files.file("archive");
    disk.files.write(
      `${section}.toml`,
      `[${section}]\nstorage = "filesystem"\npath = "${path}"\n[danger_zone]\nenabled = true\n${flags}\n`,
    );
  }
  return disk;
}

function words(...flags: readonly string[]): readonly string[] {
  return ["archive", "-f", "disk.toml", "--target-config", "target.toml", ...flags];
}

function archive(disk: LazyDisk, ...flags: readonly string[]): Promise<CommandResult> {
  return disk.files.run("archive", "--target-config", "target.toml", ...flags);
}

/** Where a run took the stripes from. */
async function changes(disk: LazyDisk, ...flags: readonly string[]) {
  const result = await archive(disk, "--incremental", "--track-changes", "--json", ...flags);
  expect(result.stderr).toBe("");
  const done = doneEvent(result);
  return {
    from_disk: done.stripes_from_disk,
    from_source: done.stripes_from_source,
    unchanged: done.stripes_unchanged,
  };
}

/** A guest writes there; then the backend ends. */
async function write(
  disk: LazyDisk,
  offsets: readonly number[],
  end: "SIGTERM" | "SIGKILL" = "SIGTERM",
): Promise<void> {
  const backend = await disk.start();
  await until("the disk is served", () => backend.log().includes("ready"));
  {
    using guest = new LazyGuest(disk);
    for (const offset of offsets) {
      guest.write(offset, crypto.getRandomValues(new Uint8Array(4096)));
    }
    guest.flush();
  }
  process.kill(backend.pid, end);
  expect(await backend.stop()).toBe(end === "SIGTERM" ? 0 : 137);
}

/** A program that knows nothing of any metadata. */
function scribble(disk: LazyDisk, offset: number): void {
  const fd = openSync(disk.files.file("disk.raw"), "r+");
  writeSync(fd, crypto.getRandomValues(new Uint8Array(100)), 0, 100, offset);
  closeSync(fd);
}

/** The image of the archive is what an archive is that reads all of the disk. */
async function expectArchived(disk: LazyDisk): Promise<void> {
  const image = await exportOf(disk, "archive.toml", "out.raw");
  const whole = disk.files.file("whole");
  rmSync(whole, { recursive: true, force: true });
  for (const section of ["target", "archive"]) {
    const text = readFileSync(disk.files.file(`${section}.toml`), "utf8");
    disk.files.write(`whole-${section}.toml`, text.replace(/^path = .*$/m, `path = "${whole}"`));
  }
  const all = await disk.files.run("archive", "--target-config", "whole-target.toml");
  expect(all.stderr).not.toContain("error");
  expectSame(image, await exportOf(disk, "whole-archive.toml", "whole.raw"));
}

async function exportOf(disk: LazyDisk, source: string, target: string): Promise<Uint8Array> {
  const command = [EXECUTABLE, "export-archive", "--source", source, "--target", target];
  const result = await runCommand(command, { cwd: disk.files.folder, timeoutMs: 60_000 });
  expect(result.exitCode).toBe(0);
  return readFileSync(disk.files.file(target));
}
