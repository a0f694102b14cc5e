/**
 * What a guest waits for on a lazy disk: the first read of a stripe, and stripes that are there while others are
 * being fetched slowly.
 */
import { closeSync, constants, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { Random } from "../../src/bench/random.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { clockNs } from "../../src/ffi/event.ts";
import { readFileAt } from "../../src/ffi/file.ts";
import {
  attach,
  lazyFolder,
  MIB,
  STRIPE_BYTES,
  sparseFile,
  startLazyDisk,
  writtenFile,
} from "./lazy-disk.ts";
import { Guest, ReadsBesideFetches } from "./lazy-guest.ts";
import { compareMedians, skipped } from "./lazy-result.ts";
import { median, type ResultLine, type Row, type RowOptions, type RowResult } from "./result.ts";
import type { DataFiles } from "./servers.ts";
import { missingSlowDisk, SlowDisk } from "./slow-disk.ts";

const FIRST_TOUCH = {
  id: "lazy-first-touch",
  title: "first read of a stripe, 4 KiB of 1 MiB, p50 us: ubiblk beside plain reads of the image",
};
const BESIDE = {
  id: "lazy-beside-fetches",
  title: "4 KiB reads of ready stripes: ubiblk, 64 others being fetched slowly, beside none",
};

export function lazyLatencyRows(files: DataFiles): readonly Row[] {
  return [
    { ...FIRST_TOUCH, run: (options) => runFirstTouch(files, options) },
    { ...BESIDE, run: (options) => runBeside(files, options) },
  ];
}

// --- internal: the first read of a stripe ---

const KIB = 1024;
/** Between two first reads where each is to be alone: so long the stripe may be fetched behind the first one. */
const ALONE_MS = 20;
/** Until what was read is also fetched. */
const FETCHES_END_MS = 3000;

interface Mode {
  readonly name: string;
  readonly source: string;
  /** So long the guest reads stripes that are there, before each first read. */
  readonly busyMs: number;
  readonly isAsked: boolean;
}

const MODES: readonly Mode[] = [
  {
    name: "fetched behind, one in 20 ms",
    source: "copy_on_read = true",
    busyMs: ALONE_MS,
    isAsked: true,
  },
  { name: "not kept, one by one", source: "copy_on_read = false", busyMs: 0, isAsked: true },
  { name: "fetched behind, one by one", source: "copy_on_read = true", busyMs: 0, isAsked: false },
];

interface FirstTouchFiles {
  readonly folder: string;
  readonly dataPath: string;
  readonly imagePath: string;
  readonly stripes: number;
}

/** p50, us: of first reads, of reads of stripes that are there, of direct reads. */
interface Touch {
  readonly first: number;
  readonly ready: number;
  readonly small: number;
  readonly large: number;
}

async function runFirstTouch(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const folder = lazyFolder(files);
  mkdirSync(folder, { recursive: true });
  const paths: FirstTouchFiles = {
    folder,
    dataPath: await writtenFile(join(folder, "base.raw"), 2 * files.sizeBytes),
    imagePath: files.plainPath,
    stripes: files.sizeBytes / STRIPE_BYTES,
  };
  const times = MODES.map((): Touch[] => []);
  for (let turn = 0; turn < options.repetitions; turn++) {
    for (const [i, mode] of MODES.entries()) {
      const measured = await touchStripes(paths, mode, turn + 1);
      times[i]?.push(measured);
      const story = JSON.stringify(measured);
      options.note(`${FIRST_TOUCH.id} ${turn + 1}/${options.repetitions} ${mode.name}: ${story}`);
    }
  }
  const lines = MODES.flatMap((mode, i) => touchLines(mode, times[i] ?? []));
  const details = Object.fromEntries(MODES.map(({ name }, i) => [name, times[i]]));
  return { ...FIRST_TOUCH, lines, details };
}

function touchLines({ name, isAsked }: Mode, times: readonly Touch[]): readonly ResultLine[] {
  const beside = (what: string, pick: (touch: Touch) => number, atMost: number | undefined) =>
    compareMedians({
      what: `${name}, beside ${what}`,
      ours: times.map(({ first }) => first),
      peer: times.map(pick),
      ...(isAsked && atMost !== undefined ? { limit: { atMost } } : {}),
    });
  return [
    beside("4 KiB read directly", ({ small }) => small, 2),
    beside("1 MiB read directly", ({ large }) => large, 1.2),
    beside("4 KiB of a ready stripe", ({ ready }) => ready, undefined),
  ];
}

/**
 * Stripes in random order, each read once: by the guest, directly 4 KiB of it, or directly as a whole. The direct
 * reads come behind the guest's, and wait: they would meet the fetches.
 */
async function touchStripes(paths: FirstTouchFiles, mode: Mode, seed: number): Promise<Touch> {
  await using backend = await startLazyDisk({ ...paths, isEncrypted: true, source: mode.source });
  using frontEnd = attach(backend, 1, 4 * KIB);
  using guest = new Guest(frontEnd);
  using image = new DirectFile(paths.imagePath);
  const order = shuffled(paths.stripes, seed);
  const quarter = Math.floor(paths.stripes / 4);
  const part = (from: number, to: number) => order.slice(from * quarter, to * quarter);
  const readReady = (stripe: number) => guest.read(paths.stripes + stripe);
  const keepBusy = (stripe: number) => {
    for (const endNs = clockNs() + mode.busyMs * 1e6; clockNs() < endNs; ) {
      readReady(stripe);
    }
  };
  // What is hot is compiled meanwhile.
  for (const stripe of part(0, 2)) {
    readReady(stripe);
    guest.read(stripe);
  }
  await Bun.sleep(FETCHES_END_MS);
  const first = part(2, 3).map((stripe) => {
    keepBusy(stripe);
    return guest.read(stripe);
  });
  await Bun.sleep(FETCHES_END_MS);
  const ready = part(3, 4).map(readReady);
  const small = part(3, 4).map((stripe) => image.read(stripe, 4 * KIB));
  const large = part(3, 4).map((stripe) => image.read(stripe, MIB));
  frontEnd.stop();
  const medianUs = (times: readonly number[]) => Math.round(median(times) / 10) / 100;
  return {
    first: medianUs(first),
    ready: medianUs(ready),
    small: medianUs(small),
    large: medianUs(large),
  };
}

function shuffled(count: number, seed: number): readonly number[] {
  const random = new Random(seed);
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const other = random.below(i + 1);
    [order[i], order[other]] = [order[other] ?? 0, order[i] ?? 0];
  }
  return order;
}

/** A file that is read past the page cache. */
class DirectFile implements Disposable {
  readonly #fd: number;
  readonly #arena = new Arena(MIB);

  constructor(path: string) {
    this.#fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  }

  /** Reads the beginning of a stripe; how long that took, ns. */
  read(stripe: number, lengthBytes: number): number {
    const beginNs = clockNs();
    const moved = readFileAt(this.#fd, stripe * STRIPE_BYTES, this.#arena.address, lengthBytes);
    const elapsedNs = clockNs() - beginNs;
    if (moved !== 0 && moved !== lengthBytes) {
      throw new Error(`a direct read ended with ${moved}`);
    }
    return elapsedNs;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
    this.#arena[Symbol.dispose]();
  }
}

// --- internal: ready stripes beside slow fetches ---

const SLOW_READ_MS = 2000;
const FETCHES_AT_ONCE = 64;
const READS_AT_ONCE = 4;
const SLOTS = FETCHES_AT_ONCE + READS_AT_ONCE;
const WARM_UP_SECONDS = 1;

interface Latency {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly fetches: number;
}

/** The first half of the disk is in the image, which is slow; the rest is ready from the beginning. */
async function runBeside(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const folder = lazyFolder(files);
  const missing = await missingSlowDisk(folder);
  if (missing !== undefined) {
    return skipped(BESIDE, missing);
  }
  await using slow = await SlowDisk.start({ folder, flushMs: 0, readMs: SLOW_READ_MS });
  sparseFile(join(slow.fastPath, "image.raw"), files.sizeBytes);
  await using backend = await startLazyDisk({
    folder,
    dataPath: await writtenFile(join(folder, "base.raw"), 2 * files.sizeBytes),
    imagePath: join(slow.path, "image.raw"),
    isEncrypted: true,
    sections: "[tuning]\nqueue_size = 128",
  });
  const stripes = files.sizeBytes / STRIPE_BYTES;
  using frontEnd = attach(backend, SLOTS, 4 * KIB);
  using guest = new Guest(frontEnd);
  const missingStripes = Array.from({ length: stripes }, (_, i) => i).values();
  const measure = (fetchesAtOnce: number, seed: number): Latency => {
    const work = new ReadsBesideFetches(
      {
        ready: { first: stripes, count: stripes },
        readsAtOnce: READS_AT_ONCE,
        missing: missingStripes,
        fetchesAtOnce,
        startNs: clockNs(),
        warmupNs: WARM_UP_SECONDS * 1e9,
        durationNs: options.seconds * 1e9,
        seed,
      },
      SLOTS,
    );
    guest.run(work);
    const { latency, fetches } = work;
    return {
      p50Us: latency.percentileNs(0.5) / 1000,
      p99Us: latency.percentileNs(0.99) / 1000,
      fetches,
    };
  };
  measure(0, 0);
  const alone: Latency[] = [];
  const beside: Latency[] = [];
  for (let turn = 1; turn <= options.repetitions; turn++) {
    alone.push(measure(0, turn));
    beside.push(measure(FETCHES_AT_ONCE, turn));
    const story = `${JSON.stringify(alone.at(-1))}, with fetches ${JSON.stringify(beside.at(-1))}`;
    options.note(`${BESIDE.id} ${turn}/${options.repetitions}: alone ${story}`);
  }
  frontEnd.stop();
  const p50 = (samples: readonly Latency[]) => samples.map(({ p50Us }) => p50Us);
  const p99 = (samples: readonly Latency[]) => samples.map(({ p99Us }) => p99Us);
  return {
    ...BESIDE,
    lines: [
      compareMedians({
        what: "p99 us",
        ours: p99(beside),
        peer: p99(alone),
        limit: { atMost: 1.5 },
      }),
      compareMedians({ what: "p50 us", ours: p50(beside), peer: p50(alone) }),
    ],
    details: { alone, beside },
  };
}
