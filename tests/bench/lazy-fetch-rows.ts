/**
 * How fast stripes arrive: all of an image in the background, beside programs that copy files; and stripes that a
 * guest waits for on a disk with slow flushes, beside one after another.
 */
import { closeSync, fdatasyncSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { backendCpuNs } from "../../src/bench/backend-cpu.ts";
import {
  attach,
  command,
  type FetchStatus,
  fetchStatus,
  lazyFolder,
  MIB,
  STRIPE_BYTES,
  sparseFile,
  startLazyDisk,
  writtenFile,
} from "./lazy-disk.ts";
import { Guest } from "./lazy-guest.ts";
import { compareMedians, skipped } from "./lazy-result.ts";
import { median, type Row, type RowOptions, type RowResult } from "./result.ts";
import type { DataFiles } from "./servers.ts";
import { missingSlowDisk, SlowDisk } from "./slow-disk.ts";

const AUTOFETCH = {
  id: "lazy-autofetch",
  title: "autofetch of an image to an encrypted disk, MiB/s: ubiblk beside dd and qemu-img convert",
};
const BURST = {
  id: "lazy-slow-flush",
  title: "64 stripes wanted at once, flushes of 5 ms, stripes/s: ubiblk beside one after another",
};

export function lazyFetchRows(files: DataFiles): readonly Row[] {
  return [
    { ...AUTOFETCH, run: (options) => runAutofetch(files, options) },
    { ...BURST, run: (options) => runBursts(files, options) },
  ];
}

// --- internal: autofetch ---

const COPY_TIMEOUT_MS = 600_000;
/** How often the fetch is looked at: the error of a time. */
const LOOK_MS = 5;
const COPIERS = ["ubiblk", "dd", "qemu-img"] as const;
type Copier = (typeof COPIERS)[number];

interface CopyFiles {
  readonly folder: string;
  readonly imagePath: string;
  readonly dataPath: string;
  readonly sizeBytes: number;
}

async function runAutofetch(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const folder = lazyFolder(files);
  mkdirSync(folder, { recursive: true });
  const sizeBytes = 2 * files.sizeBytes;
  const paths: CopyFiles = {
    folder,
    imagePath: await writtenFile(join(folder, "image.raw"), sizeBytes),
    dataPath: await writtenFile(join(folder, "base.raw"), sizeBytes),
    sizeBytes,
  };
  await outputOf(["dd", `if=${paths.imagePath}`, "of=/dev/null", "bs=1M", "iflag=direct"]);
  const speeds = new Map<Copier, number[]>(COPIERS.map((name) => [name, []]));
  const cpuSeconds: number[] = [];
  for (let turn = 0; turn < options.repetitions; turn++) {
    for (let i = 0; i < COPIERS.length; i++) {
      const copier = COPIERS[(turn + i) % COPIERS.length] ?? "ubiblk";
      const speed = await copySpeed(copier, paths, cpuSeconds);
      speeds.get(copier)?.push(speed);
      options.note(`${AUTOFETCH.id} ${turn + 1}/${options.repetitions} ${copier}: ${speed} MiB/s`);
    }
  }
  const ours = speeds.get("ubiblk") ?? [];
  const beside = (name: Copier, atLeast: number) =>
    compareMedians({
      what: `MiB/s beside ${name}`,
      ours,
      peer: speeds.get(name) ?? [],
      limit: { atLeast },
    });
  return {
    ...AUTOFETCH,
    lines: [beside("dd", 1.2), beside("qemu-img", 0.9)],
    details: { sizeBytes, speeds: Object.fromEntries(speeds), cpuSecondsPerGib: cpuSeconds },
  };
}

/** MiB/s to the end of the last sync. Programs are timed with their start, some milliseconds of some seconds. */
async function copySpeed(copier: Copier, paths: CopyFiles, cpuSeconds: number[]): Promise<number> {
  if (copier === "ubiblk") {
    const fetched = await fetchAll(paths);
    cpuSeconds.push(fetched.cpuSecondsPerGib);
    return Math.round(fetched.mibPerSecond);
  }
  const { imagePath, dataPath, sizeBytes } = paths;
  const beginMs = performance.now();
  if (copier === "dd") {
    const flags = ["bs=1M", "iflag=direct", "oflag=direct", "conv=fdatasync,notrunc"];
    const files = [`if=${imagePath}`, `of=${dataPath}`];
    await outputOf(["dd", ...files, ...flags], { timeoutMs: COPY_TIMEOUT_MS });
  } else {
    const flags = ["-n", "-W", "-m", "8", "-t", "none", "-T", "none", "-f", "raw", "-O", "raw"];
    const convert = ["qemu-img", "convert", ...flags, imagePath, dataPath];
    await outputOf(convert, { timeoutMs: COPY_TIMEOUT_MS });
    await outputOf(["sync", "--data", dataPath], { timeoutMs: COPY_TIMEOUT_MS });
  }
  return Math.round(sizeBytes / MIB / ((performance.now() - beginMs) / 1000));
}

/** The fetch is held as soon as the server listens; what is timed goes from its release to the last commit. */
async function fetchAll(
  paths: CopyFiles,
): Promise<{ readonly mibPerSecond: number; readonly cpuSecondsPerGib: number }> {
  await using backend = await startLazyDisk({
    ...paths,
    isEncrypted: true,
    source: "autofetch = true",
  });
  await command(paths.folder, "pause_fetch");
  const before = await statusWhen(paths.folder, ({ inFlight }) => inFlight === 0);
  const cpuBeforeNs = backendCpuNs(backend.pid);
  const beginMs = performance.now();
  await command(paths.folder, "resume_fetch");
  await statusWhen(paths.folder, ({ unfetched }) => unfetched === 0);
  const seconds = (performance.now() - beginMs) / 1000;
  const mib = (before.unfetched * STRIPE_BYTES) / MIB;
  const cpuSeconds = (backendCpuNs(backend.pid) - cpuBeforeNs) / 1e9;
  return { mibPerSecond: mib / seconds, cpuSecondsPerGib: (cpuSeconds * 1024) / mib };
}

async function statusWhen(
  folder: string,
  condition: (status: FetchStatus) => boolean,
): Promise<FetchStatus> {
  const deadlineMs = performance.now() + COPY_TIMEOUT_MS;
  for (;;) {
    const status = await fetchStatus(folder);
    if (status.retries > 0) {
      throw new Error(`stripes had to be fetched again: ${JSON.stringify(status)}`);
    }
    if (condition(status)) {
      return status;
    }
    if (performance.now() > deadlineMs) {
      throw new Error(`the fetch does not end: ${JSON.stringify(status)}`);
    }
    await Bun.sleep(LOOK_MS);
  }
}

// --- internal: bursts on a disk with slow flushes ---

const FLUSH_MS = 5;
const STRIPES_AT_ONCE = 64;
/** Bursts that are not counted: what is hot is compiled meanwhile. */
const WARM_UP_BURSTS = 3;
const BASELINE_PAIRS = 64;

async function runBursts(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const folder = lazyFolder(files);
  const missing = await missingSlowDisk(folder);
  if (missing !== undefined) {
    return skipped(BURST, missing);
  }
  await using slow = await SlowDisk.start({ folder, flushMs: FLUSH_MS, readMs: 0 });
  const bursts = WARM_UP_BURSTS + options.repetitions;
  const sizeBytes = bursts * STRIPES_AT_ONCE * STRIPE_BYTES;
  // Memory that was never used may be far slower than the flushes: all of the base has its pages.
  const target = [`of=${join(slow.fastPath, "base.raw")}`, "bs=1M", `count=${sizeBytes / MIB}`];
  await outputOf(["dd", "if=/dev/zero", ...target]);
  await using backend = await startLazyDisk({
    folder,
    dataPath: join(slow.path, "base.raw"),
    metadataPath: join(slow.path, "metadata"),
    imagePath: sparseFile(join(slow.fastPath, "image.raw"), sizeBytes),
    isEncrypted: true,
  });
  using frontEnd = attach(backend, STRIPES_AT_ONCE, 4096);
  using guest = new Guest(frontEnd);
  const ours: number[] = [];
  const baseline: number[] = [];
  for (let burst = 0; burst < bursts; burst++) {
    const first = burst * STRIPES_AT_ONCE;
    const stripes = Array.from({ length: STRIPES_AT_ONCE }, (_, i) => first + i);
    const seconds = guest.write(stripes) / 1e9;
    if (burst >= WARM_UP_BURSTS) {
      ours.push(STRIPES_AT_ONCE / seconds);
      baseline.push(BASELINE_PAIRS / flushPairsSeconds(slow.path));
    }
    options.note(`${BURST.id} ${burst + 1}/${bursts}: ${Math.round(seconds * 1000)} ms`);
  }
  frontEnd.stop();
  const line = compareMedians({
    what: "stripes/s",
    ours,
    peer: baseline,
    limit: { atLeast: 10 },
  });
  const burstMs = median(ours.map((perSecond) => (STRIPES_AT_ONCE / perSecond) * 1000));
  return { ...BURST, lines: [line], details: { ours, baseline, burstMs } };
}

/** As if each stripe were made durable alone: a base flush and a metadata flush, nothing else of its cost. */
function flushPairsSeconds(folder: string): number {
  const data = new Uint8Array(4096);
  const files = ["other.raw", "other.metadata"].map((name) => openSync(join(folder, name), "w+"));
  const beginMs = performance.now();
  for (let pair = 0; pair < BASELINE_PAIRS; pair++) {
    for (const fd of files) {
      writeSync(fd, data, 0, data.length, pair * data.length);
      fdatasyncSync(fd);
    }
  }
  const seconds = (performance.now() - beginMs) / 1000;
  files.forEach((fd) => {
    closeSync(fd);
  });
  return seconds;
}
