/** Histograms of queues as one of Prometheus. */
import { expect, test } from "bun:test";
import { bucketLimitNs, bucketOf } from "../device/queue-statistics.ts";
import { LATENCY_FAMILIES } from "./latency-metrics.ts";

test("limits: each is one of a queue's, so that no request counts on the wrong side", () => {
  const limits = new Set(Array.from({ length: 304 }, (_, bucket) => bucketLimitNs(bucket)));
  const told = bucketsOf([]).map(([le]) => le);
  expect(told).toHaveLength(25);
  expect(told.at(-1)).toBe("+Inf");
  const limitsNs = told.slice(0, -1).map((le) => Math.round(Number(le) * 1e9));
  expect(limitsNs.filter((limitNs) => !limits.has(limitNs))).toEqual([]);
});

test("counts: those below each limit, of all queues, up to all of them", () => {
  const buckets = bucketsOf([
    [pair(1_000, 2), pair(5_000, 1)],
    [pair(5_000, 4), pair(60e9, 3)],
  ]);
  expect(buckets.slice(0, 3)).toEqual([
    ["0.000004096", 2],
    ["0.000008192", 7],
    ["0.000016384", 7],
  ]);
  expect(buckets.slice(-2)).toEqual([
    ["34.359738368", 7],
    ["+Inf", 10],
  ]);
});

test("a latency as long as a limit counts above it, one that is shorter below", () => {
  const at = bucketsOf([[pair(4096, 1)]]);
  const below = bucketsOf([[pair(4095, 1)]]);
  expect([at[0], at[1]]).toEqual([
    ["0.000004096", 0],
    ["0.000008192", 1],
  ]);
  expect(below[0]).toEqual(["0.000004096", 1]);
});

test("sum and count: of all queues, in seconds", () => {
  const samples = samplesOf([[pair(1_000, 2)], [pair(2_000, 1)]], [2_000, 2_000]);
  const read = samples.filter(({ labels }) => labels.operation === "read");
  expect(read.slice(-2)).toEqual([
    { suffix: "_sum", labels: { operation: "read" }, value: 0.000004 },
    { suffix: "_count", labels: { operation: "read" }, value: 3 },
  ]);
});

test("backend that tells no latencies: no samples", () => {
  expect(LATENCY_FAMILIES[0]?.samples(new Map())).toEqual([]);
});

// --- internal ---

/** As the RPC tells requests of a latency. */
function pair(latencyNs: number, count: number): readonly [number, number] {
  return [bucketLimitNs(bucketOf(latencyNs)), count];
}

function samplesOf(
  reads: readonly (readonly (readonly [number, number])[])[],
  sumsNs: readonly number[],
) {
  const queues = reads.map((read) => ({ flush: [], read, write: [] }));
  const statistics = sumsNs.map((sum_ns) => ({ latency: { read: { sum_ns } } }));
  const answers = new Map([
    ["histograms", { histograms: { queues } }],
    ["statistics", { statistics: { queues: statistics } }],
  ]);
  return LATENCY_FAMILIES.flatMap((family) => family.samples(answers));
}

function bucketsOf(
  reads: readonly (readonly (readonly [number, number])[])[],
): readonly (readonly [string, number])[] {
  return samplesOf(reads, [])
    .filter(({ suffix, labels }) => suffix === "_bucket" && labels.operation === "read")
    .map(({ labels, value }) => [labels.le ?? "", value]);
}
