/**
 * Hours in minutes: front ends that come and go, a disk that is being fetched, clients that ask. Nothing may grow, and
 * nothing may become slower.
 *
 *     UBIBLK_SOAK_SECONDS=3600 bun test tests/e2e/soak.test.ts       as long as one likes
 */
import { expect, test } from "bun:test";
import { addFigures } from "../support/figures.ts";
import {
  firstAndLastThird,
  lowestQuarterOf,
  medianOf,
  type ProcessSample,
  sampleOf,
} from "../support/process-sample.ts";
import { rounds } from "../support/requires.ts";
import { type LoadFigures, SoakLife } from "../support/soak-life.ts";

const SECONDS = Number(process.env.UBIBLK_SOAK_SECONDS ?? rounds(6, 600));
/** Below that there is no warm first third to compare with: then only data and descriptors count. */
const LONG_SECONDS = 120;
/** A third of fewer turns tells nothing: a busy machine takes longer. */
const TURNS_MIN = 40;
const SEED = Date.now() % 2 ** 31;

/** What the last third may have more than the first one. */
const MORE = { descriptors: 1, mappings: 8, anonymousMiB: 8 };
/** How many times slower it may be, on a machine that others use as well. */
const SLOWER = { p50Us: 1.5, p99Us: 2.5, backendCpuNs: 1.25 };

test(
  `${SECONDS} s of front ends, fetches and questions: memory, descriptors, mappings and latency stay as they are`,
  async () => {
    const isLong = SECONDS >= LONG_SECONDS;
    const loadSeconds = isLong ? 1 : 0.3;
    await using life = new SoakLife({ seed: SEED, stripes: SECONDS + 60, loadSeconds });
    await life.begin();
    const samples: (readonly ProcessSample[])[] = [];
    const endMs = performance.now() + SECONDS * 1000;
    const turnsMin = isLong ? TURNS_MIN : 1;
    while (performance.now() < endMs || samples.length < turnsMin) {
      await life.turn();
      samples.push(life.pids.map(calmSampleOf));
    }
    const growth = [0, 1].map((which) => growthOf(samples.map((each) => each[which])));
    const slowdown = { read: slowdownOf(life.reads), write: slowdownOf(life.writes) };
    const [backend, server] = growth;
    console.log(JSON.stringify({ seed: SEED, turns: samples.length, backend, server, slowdown }));
    console.log(
      `MiB of the backend: ${courseOf(samples.map(([each]) => each?.anonymousMiB ?? 0))}`,
    );
    console.log(`p99 of writes, us: ${courseOf(life.writes.map(({ p99Us }) => p99Us))}`);
    expect(life.log()).not.toMatch(/ERROR|panic/);
    await life.end();
    for (const each of growth) {
      expect(each?.descriptors.more).toBeLessThanOrEqual(MORE.descriptors);
    }
    if (!isLong) {
      return;
    }
    for (const each of growth) {
      expect(each?.mappings.more).toBeLessThanOrEqual(MORE.mappings);
      expect(each?.anonymousMiB.more).toBeLessThanOrEqual(MORE.anonymousMiB);
    }
    for (const { p50Us, p99Us, backendCpuNs } of Object.values(slowdown)) {
      expect(p50Us).toBeLessThanOrEqual(SLOWER.p50Us);
      expect(p99Us).toBeLessThanOrEqual(SLOWER.p99Us);
      expect(backendCpuNs).toBeLessThanOrEqual(SLOWER.backendCpuNs);
    }
    addFigures("soak", {
      seconds: SECONDS,
      turns: samples.length,
      frontEnds: life.frontEnds,
      answers: life.answers,
      mibFirst: backend?.anonymousMiB.first ?? 0,
      mibLast: backend?.anonymousMiB.last ?? 0,
      descriptorsFirst: backend?.descriptors.first ?? 0,
      descriptorsLast: backend?.descriptors.last ?? 0,
      readP50Ratio: slowdown.read.p50Us,
      readP99Ratio: slowdown.read.p99Us,
    });
  },
  SECONDS * 5000 + 120_000,
);

// --- internal ---

/** Twenty values of a series. */
function courseOf(series: readonly number[]): string {
  const step = Math.max(1, Math.floor(series.length / 20));
  const shown = series.filter((_, i) => i % step === 0);
  return shown.map((value) => value.toFixed(1)).join(" ");
}

/** Between two front ends; the lowest of some looks, since other clients come and go. */
function calmSampleOf(pid: number): ProcessSample {
  const looks = Array.from({ length: 5 }, () => {
    Bun.sleepSync(10);
    return sampleOf(pid);
  });
  const lowest = (of: (sample: ProcessSample) => number) => Math.min(...looks.map(of));
  return {
    anonymousMiB: lowest((sample) => sample.anonymousMiB),
    descriptors: lowest((sample) => sample.descriptors),
    mappings: lowest((sample) => sample.mappings),
  };
}

function growthOf(samples: readonly (ProcessSample | undefined)[]) {
  const [first, last] = firstAndLastThird(samples.filter((sample) => sample !== undefined));
  const compare = (
    of: (sample: ProcessSample) => number,
    levelOf: (numbers: readonly number[]) => number,
  ) => {
    const levels = { first: levelOf(first.map(of)), last: levelOf(last.map(of)) };
    return { ...levels, more: levels.last - levels.first };
  };
  return {
    // Garbage comes and goes in steps of some MiB: the lowest points are what is kept.
    anonymousMiB: compare(
      (sample) => sample.anonymousMiB,
      (numbers) => Math.min(...numbers),
    ),
    descriptors: compare((sample) => sample.descriptors, medianOf),
    mappings: compare((sample) => sample.mappings, medianOf),
  };
}

function slowdownOf(loads: readonly LoadFigures[]) {
  const [first, last] = firstAndLastThird(loads);
  const ratio = (of: (load: LoadFigures) => number) =>
    lowestQuarterOf(last.map(of)) / lowestQuarterOf(first.map(of));
  return {
    p50Us: ratio((load) => load.p50Us),
    p99Us: ratio((load) => load.p99Us),
    backendCpuNs: ratio((load) => load.backendCpuNs),
  };
}
