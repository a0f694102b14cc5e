/** The synchronous engine: asked for by the config, or because the kernel refuses io_uring. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { outputOf, runCommand } from "../../scripts/command.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startBackend,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";

const DISK_BYTES = 32 * 2 ** 20;
const LIMIT_MS = 60_000;
/** On x86-64, as on all newer architectures. */
const SYS_IO_URING_SETUP = "425";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-engines-"));
});

afterAll(() => rmSync(folder, { recursive: true }));

describe.each([{ isEncrypted: false }, { isEncrypted: true }])("sync %j", ({ isEncrypted }) => {
  test.each([
    { flags: "--block-size=4K --queues=2" },
    { flags: "--block-size=512 --size=1M" },
    { flags: "--block-size=1M --segments=64 --queue-depth=32 --indirect" },
  ])(
    "verify $flags: every byte comes back",
    async ({ flags }) => {
      const disk = makeDisk(isEncrypted, 'io_engine = "sync"');
      await using backend = await startUbiblk(disk);
      expect(await verify(backend, flags)).toBe("");
      expect(await backend.stop()).toBe(0);
    },
    LIMIT_MS,
  );
});

test(
  "io_uring refused by the kernel: a line in the log, and the disk is served all the same",
  async () => {
    const disk = makeDisk(true, "");
    const command = [await refuser(), SYS_IO_URING_SETUP, EXECUTABLE, "vhost"];
    await using backend = await startBackend({
      command: [...command, "--config", disk.configPath],
      socketPath: disk.socketPath,
      logPath: join(folder, "log"),
    });
    expect(await verify(backend, "--block-size=64K --size=8M")).toBe("");
    expect(backend.log()).toMatch(/falling back to the synchronous engine.*EPERM/);
    expect(await backend.stop()).toBe(0);
  },
  LIMIT_MS,
);

test(
  "a small pool and many large requests: all wait their turn, with either engine",
  async () => {
    for (const engine of ["sync", "io_uring"]) {
      const disk = makeDisk(true, `io_engine = "${engine}"\nqueue_size = 16`);
      await using backend = await startUbiblk(disk);
      expect(await verify(backend, "--block-size=2M --segments=4 --queue-depth=64")).toBe("");
    }
  },
  LIMIT_MS,
);

test(
  "the largest settings of the config: served, with either engine",
  async () => {
    for (const engine of ["sync", "io_uring"]) {
      const largest = "queue_size = 32768\nseg_count_max = 256";
      const disk = makeDisk(true, `io_engine = "${engine}"\n${largest}`);
      await using backend = await startUbiblk(disk);
      const flags = "--block-size=64K --segments=128 --indirect --queue-depth=256 --queues=2";
      expect(await verify(backend, flags)).toBe("");
      expect(await backend.stop()).toBe(0);
    }
  },
  LIMIT_MS,
);

test(
  "the smallest settings of the config: served, with either engine",
  async () => {
    for (const engine of ["sync", "io_uring"]) {
      const smallest = "queue_size = 1\nseg_count_max = 1\nseg_size_max = 512";
      const disk = makeDisk(true, `io_engine = "${engine}"\n${smallest}`);
      await using backend = await startUbiblk(disk);
      expect(await verify(backend, "--block-size=64K --segments=40 --size=4M")).toBe("");
      expect(await backend.stop()).toBe(0);
    }
  },
  LIMIT_MS,
);

// --- internal ---

/** A disk with two queues. */
function makeDisk(isEncrypted: boolean, tuning: string): DiskFiles {
  const place = mkdtempSync(join(folder, "disk-"));
  const moreConfig = `[tuning]\nnum_queues = 2\n${tuning}\n`;
  const disk = writeDiskConfig({ folder: place, isEncrypted, moreConfig });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, DISK_BYTES);
  return disk;
}

async function verify(backend: Backend, flags: string): Promise<string> {
  const words = ["bench", `--socket=${backend.socketPath}`, "--workload=verify"];
  const command = [EXECUTABLE, ...words, ...flags.split(" ")];
  const result = await runCommand(command, { timeoutMs: LIMIT_MS });
  return result.exitCode === 0 ? "" : `${result.stdout}${result.stderr}${backend.log()}`;
}

/** Builds the program that takes a system call away. Returns its path. */
async function refuser(): Promise<string> {
  const path = join(folder, "refuse-syscall");
  const source = resolve(import.meta.dir, "..", "support", "refuse-syscall.c");
  await outputOf(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", path, source]);
  return path;
}
