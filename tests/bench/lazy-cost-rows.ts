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
/** The difference looked for is small: pairs follow each other quickly, on servers that both stay there. */
const PAIRS_OF_SERVERS = 8;
const SETTLE_SECONDS = 0.2;

interface Pairs {
  readonly lazy: number[];
  readonly plain: number[];
}

async function runCost(
  row: Pick<RowResult, "id" | "title">,
  name: Workload["name"],
  files: DataFiles,
  options: RowOptions,
): Promise<RowResult> {
  const folder = lazyFolder(files);
  mkdirSync(folder, { recursive: true });
  const basePath = await writtenFile(join(folder, "base.raw"), 2 * files.sizeBytes);
  const pairs: Pairs = { lazy: [], plain: [] };
  for (let turn = 0; turn < options.repetitions; turn++) {
    const inOrder = [files.plainPath, basePath] as const;
    const [lazyPath, plainPath] = turn % 2 === 0 ? inOrder : [inOrder[1], inOrder[0]];
    const lazy = await layeredDisk(folder, lazyPath, name === "randwrite");
    const plain = writeDiskConfig({
      folder: join(folder, "no-layer"),
      dataPath: plainPath,
      isEncrypted: false,
    });
    await measurePairs({ lazy, plain }, name, files.sizeBytes, { ...options, turn }, pairs);
    const story = `lazy ${median(pairs.lazy).toFixed(3)}, plain ${median(pairs.plain).toFixed(3)}`;
    options.note(`${row.id} ${turn + 1}/${options.repetitions}: so far ${story} us CPU/op`);
  }
  const limit = { atMost: COST_RATIO_MAX };
  const line = compareMedians({ what: "CPU us/op", ours: pairs.lazy, peer: pairs.plain, limit });
  return { ...row, lines: [line, spreadLine(pairs)], details: pairs };
}

async function measurePairs(
  disks: { readonly lazy: DiskFiles; readonly plain: DiskFiles },
  name: Workload["name"],
  sizeBytes: number,
  options: RowOptions & { readonly turn: number },
  pairs: Pairs,
): Promise<void> {
  await using lazy = await startUbiblk(disks.lazy);
  await using plain = await startUbiblk(disks.plain);
  // The first stripe is the one that is not fetched.
  const range = { offsetBytes: MIB, sizeBytes: sizeBytes - MIB };
  const workload = { name, blockBytes: 4096, queueDepth: 32 };
  const load = { workload, ...range, seconds: options.seconds / 2, seed: options.turn + 1 };
  await clientFigures(lazy, load);
  await clientFigures(plain, load);
  for (let pair = 0; pair < PAIRS_OF_SERVERS; pair++) {
    const measure = async (backend: Backend) =>
      (await clientFigures(backend, { ...load, warmUpSeconds: SETTLE_SECONDS })).cpuUs;
    const isLazyFirst = pair % 2 === 0;
    const first = await measure(isLazyFirst ? lazy : plain);
    const second = await measure(isLazyFirst ? plain : lazy);
    pairs.lazy.push(isLazyFirst ? first : second);
    pairs.plain.push(isLazyFirst ? second : first);
  }
}

/** How far the pairs lie apart: what the ratio of the medians is worth. */
function spreadLine({ lazy, plain }: Pairs): ResultLine {
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

/** Its image is one stripe long, and nothing asks for that; all other stripes are there from the beginning. */
async function layeredDisk(
  folder: string,
  dataPath: string,
  isTracked: boolean,
): Promise<DiskFiles> {
  return makeLazyDisk({
    folder: join(folder, "layer"),
    dataPath,
    imagePath: await writtenFile(join(folder, "stripe.raw"), MIB),
    isEncrypted: false,
    device: isTracked ? "track_written = true" : "",
  });
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
