/** What lazy stripes cost when nothing is fetched: CPU time of each operation, and metadata of a very large disk. */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Backend, type DiskFiles, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { lazyFolder, MIB, makeLazyDisk, sparseFile, writtenFile } from "./lazy-disk.ts";
import { compareMedians, skipped } from "./lazy-result.ts";
import {
  median,
  type ResultLine,
  type Row,
  type RowOptions,
  type RowResult,
  shortNumber,
} from "./result.ts";
import { clientFigures, type Workload } from "./sample.ts";
import type { DataFiles } from "./servers.ts";

const READS = {
  id: "lazy-cost-read",
  title: "4 KiB randread, depth 32: disk with one stripe unfetched beside one without metadata",
};
const WRITES = {
  id: "lazy-cost-write",
  title:
    "4 KiB randwrite, depth 32: disk with track_written, all written, beside one without metadata",
};
const LARGE = {
  id: "lazy-metadata",
  title: "start of a disk of 16 M stripes (16 TiB) beside one of 16",
};

export function lazyCostRows(files: DataFiles): readonly Row[] {
  return [
    { ...READS, run: (options) => runCost(READS, "randread", files, options) },
    { ...WRITES, run: (options) => runCost(WRITES, "randwrite", files, options) },
    { ...LARGE, run: (options) => runLarge(files, options) },
  ];
}

// --- internal: CPU time of an operation ---

const COST_RATIO_MAX = 1.03;
/** The difference looked for is smaller than what one pair of samples shows. */
const PAIRS_FACTOR = 2;

async function runCost(
  row: Pick<RowResult, "id" | "title">,
  name: Workload["name"],
  files: DataFiles,
  options: RowOptions,
): Promise<RowResult> {
  const disks = await costDisks(files, name === "randwrite");
  const workload = { name, blockBytes: 4096, queueDepth: 32 };
  const measure = async (disk: DiskFiles, seed: number) => {
    await using backend = await startUbiblk(disk);
    // The first stripe is the one that is not fetched.
    const load = { workload, seconds: options.seconds, seed, offsetBytes: MIB };
    return (await clientFigures(backend, load)).cpuUs;
  };
  const lazy: number[] = [];
  const plain: number[] = [];
  const pairs = PAIRS_FACTOR * options.repetitions;
  for (let pair = 0; pair < pairs; pair++) {
    const isLazyFirst = pair % 2 === 0;
    for (const isLazy of [isLazyFirst, !isLazyFirst]) {
      (isLazy ? lazy : plain).push(await measure(isLazy ? disks.lazy : disks.plain, pair + 1));
    }
    const story = `lazy ${lazy[pair]?.toFixed(3)}, plain ${plain[pair]?.toFixed(3)}`;
    options.note(`${row.id} ${pair + 1}/${pairs}: ${story} us CPU/op`);
  }
  const limit = { atMost: COST_RATIO_MAX };
  const line = compareMedians({ what: "CPU us/op", ours: lazy, peer: plain, limit });
  return { ...row, lines: [line, spreadLine(lazy, plain)], details: { lazy, plain } };
}

/** How far the pairs lie apart: what the ratio of the medians is worth. */
function spreadLine(lazy: readonly number[], plain: readonly number[]): ResultLine {
  const ratios = lazy.map((us, i) => us / (plain[i] ?? Number.NaN)).sort((a, b) => a - b);
  const quarter = Math.floor(ratios.length / 4);
  const [low, high] = [ratios[quarter], ratios[ratios.length - 1 - quarter]];
  return {
    what: `median of the pairs' ratios, half of them from ${low?.toFixed(3)} to ${high?.toFixed(3)}`,
    ours: "",
    peer: "",
    ratio: median(ratios).toFixed(3),
    goal: "",
    isMet: undefined,
  };
}

/** Both have one data file. The lazy one's image is one stripe long, and nothing asks for that. */
async function costDisks(
  files: DataFiles,
  isTracked: boolean,
): Promise<{ readonly lazy: DiskFiles; readonly plain: DiskFiles }> {
  const folder = lazyFolder(files);
  mkdirSync(folder, { recursive: true });
  const common = { dataPath: files.plainPath, isEncrypted: false };
  const lazy = await makeLazyDisk({
    ...common,
    folder: join(folder, "layer"),
    imagePath: await writtenFile(join(folder, "stripe.raw"), MIB),
    device: isTracked ? "track_written = true" : "",
  });
  return { lazy, plain: writeDiskConfig({ ...common, folder: join(folder, "no-layer") }) };
}

// --- internal: very large disks ---

const STRIPES_LARGE = 2 ** 24 - 1;
const STRIPES_SMALL = 16;
const START_MS_MAX = 1000;
const MEMORY_MIB_MAX = 64;
const SETTLE_MS = 2000;

interface StartFigures {
  readonly startMs: number;
  readonly memoryMib: number;
}

async function runLarge(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const folder = lazyFolder(files);
  const sparse = join(folder, "sparse");
  mkdirSync(sparse, { recursive: true });
  try {
    const large = await sparseDisk(join(sparse, "large"), STRIPES_LARGE);
    if (typeof large === "string") {
      return skipped(LARGE, large);
    }
    const small = await sparseDisk(join(sparse, "small"), STRIPES_SMALL);
    if (typeof small === "string") {
      return skipped(LARGE, small);
    }
    return await compareStarts(large, small, options);
  } finally {
    rmSync(sparse, { recursive: true, force: true });
  }
}

/** All stripes in the image, none fetched; or a reason why the file system has no such file. */
async function sparseDisk(folder: string, stripes: number): Promise<DiskFiles | string> {
  mkdirSync(folder, { recursive: true });
  const paths = { dataPath: join(folder, "base.raw"), imagePath: join(folder, "image.raw") };
  try {
    for (const path of Object.values(paths)) {
      sparseFile(path, stripes * MIB);
    }
  } catch (error) {
    return `no file of ${stripes} MiB here: ${error instanceof Error ? error.message : error}`;
  }
  return makeLazyDisk({ ...paths, folder, isEncrypted: true });
}

async function compareStarts(
  large: DiskFiles,
  small: DiskFiles,
  options: RowOptions,
): Promise<RowResult> {
  const ours: StartFigures[] = [];
  const peer: StartFigures[] = [];
  await startFigures(small); // the first start reads the executable from the disk
  for (let turn = 0; turn < options.repetitions; turn++) {
    ours.push(await startFigures(large));
    peer.push(await startFigures(small));
    const story = `${JSON.stringify(ours[turn])}, small ${JSON.stringify(peer[turn])}`;
    options.note(`${LARGE.id} ${turn + 1}/${options.repetitions}: large ${story}`);
  }
  const startMs = median(ours.map((each) => each.startMs));
  const smallMs = median(peer.map((each) => each.startMs));
  const memoryMib = median(ours.map((each) => each.memoryMib));
  const smallMib = median(peer.map((each) => each.memoryMib));
  return {
    ...LARGE,
    lines: [
      {
        what: "ms to the listening socket",
        ours: shortNumber(startMs),
        peer: shortNumber(smallMs),
        ratio: "",
        goal: `<= ${START_MS_MAX}`,
        isMet: startMs <= START_MS_MAX,
      },
      {
        what: "resident memory, MiB",
        ours: shortNumber(memoryMib),
        peer: shortNumber(smallMib),
        ratio: `+${(memoryMib - smallMib).toFixed(1)}`,
        goal: `<= +${MEMORY_MIB_MAX}`,
        isMet: memoryMib - smallMib <= MEMORY_MIB_MAX,
      },
    ],
    details: { ours, peer },
  };
}

async function startFigures(disk: DiskFiles): Promise<StartFigures> {
  await using backend = await startUbiblk(disk);
  await Bun.sleep(SETTLE_MS);
  return { startMs: backend.startMs, memoryMib: residentMib(backend) };
}

function residentMib({ pid }: Backend): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN) / 1024;
}
