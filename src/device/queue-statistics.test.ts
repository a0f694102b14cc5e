/** Counters, histograms and in-flight slots of a queue, as its worker writes and others read them. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { Operation } from "../disk/request-table.ts";
import {
  BUCKETS,
  bucketLimitNs,
  bucketOf,
  Counter,
  percentileNs,
  QueueStatistics,
} from "./queue-statistics.ts";

const LIMIT_NS = 2 ** 40;

test.each([
  { latencyNs: -1, bucket: 0 },
  { latencyNs: 0, bucket: 0 },
  { latencyNs: 0.5, bucket: 0 },
  { latencyNs: 7, bucket: 7 },
  { latencyNs: 7.9, bucket: 7 },
  { latencyNs: 8, bucket: 8 },
  { latencyNs: 15, bucket: 15 },
  { latencyNs: 16, bucket: 16 },
  { latencyNs: 17, bucket: 16 },
  { latencyNs: 18, bucket: 17 },
  { latencyNs: 2 ** 30 - 1, bucket: 8 + 26 * 8 + 7 },
  { latencyNs: 2 ** 30, bucket: 8 + 27 * 8 },
  { latencyNs: 2 ** 40 - 1, bucket: BUCKETS - 1 },
  { latencyNs: 2 ** 40, bucket: BUCKETS - 1 },
  { latencyNs: 2 ** 42, bucket: BUCKETS - 1 }, // more than fits 32 bits after the division
  { latencyNs: Number.MAX_SAFE_INTEGER, bucket: BUCKETS - 1 },
])("bucketOf $latencyNs: $bucket", ({ latencyNs, bucket }) => {
  expect(bucketOf(latencyNs)).toBe(bucket);
});

test("bucketLimitNs: grows from bucket to bucket, by an eighth at most, up to 2^40", () => {
  for (let bucket = 1; bucket < BUCKETS; bucket++) {
    const before = bucketLimitNs(bucket - 1);
    expect(bucketLimitNs(bucket)).toBeGreaterThan(before);
    expect(bucketLimitNs(bucket) - before).toBeLessThanOrEqual(Math.max(1, before / 8));
  }
  expect(bucketLimitNs(BUCKETS - 1)).toBe(LIMIT_NS);
});

test("bucketOf: any latency lies below the limit of its bucket and not below that of the one before", () => {
  const anyLatency = fc.oneof(
    fc.double({ min: 0, max: LIMIT_NS, maxExcluded: true, noNaN: true }),
    fc.integer({ min: 0, max: LIMIT_NS - 1 }),
    fc.integer({ min: 0, max: 39 }).map((exponent) => 2 ** exponent),
    fc.integer({ min: 1, max: 40 }).map((exponent) => 2 ** exponent - 1),
  );
  fc.assert(
    fc.property(anyLatency, (latencyNs) => {
      const bucket = bucketOf(latencyNs);
      expect(latencyNs).toBeLessThan(bucketLimitNs(bucket));
      expect(latencyNs).toBeGreaterThanOrEqual(bucket === 0 ? 0 : bucketLimitNs(bucket - 1));
    }),
    { numRuns: 2000 },
  );
});

test("bucketOf: a longer latency never has a lower bucket", () => {
  const anyLatency = fc.double({ min: 0, max: 2 ** 50, noNaN: true });
  fc.assert(
    fc.property(anyLatency, anyLatency, (one, other) => {
      const isSorted = bucketOf(Math.min(one, other)) <= bucketOf(Math.max(one, other));
      expect(isSorted).toBe(true);
    }),
    { numRuns: 2000 },
  );
});

test("percentileNs: none without latencies", () => {
  expect(percentileNs(new Float64Array(BUCKETS), 0.5)).toBeUndefined();
});

test("percentileNs: above the exact one, by an eighth of it at most", () => {
  const latencies = fc.array(fc.integer({ min: 0, max: LIMIT_NS - 1 }), { minLength: 1 });
  const fraction = fc.constantFrom(0.5, 0.9, 0.99, 1);
  fc.assert(
    fc.property(latencies, fraction, (all, part) => {
      const counts = new Float64Array(BUCKETS);
      for (const latencyNs of all) {
        const bucket = bucketOf(latencyNs);
        counts[bucket] = (counts[bucket] ?? 0) + 1;
      }
      const sorted = all.toSorted((a, b) => a - b);
      const exact = sorted[Math.ceil(all.length * part) - 1] ?? -1;
      expect(percentileNs(counts, part)).toBeGreaterThan(exact);
      expect(percentileNs(counts, part)).toBeLessThanOrEqual(exact + Math.max(1, exact / 8));
    }),
  );
});

test("begin: counts by operation at once, and lists the request", () => {
  const statistics = makeStatistics(8);
  statistics.begin(3, Operation.read, 16, 4096, 1000);
  statistics.begin(0, Operation.write, 32, 1024, 2000);
  statistics.begin(1, Operation.flush, 0, 0, 3000);
  statistics.begin(2, Operation.discard, 64, 8192, 4000);
  statistics.begin(4, Operation.writeZeroes, 128, 512, 5000);
  expect(statistics.counter(Counter.readOps)).toBe(1);
  expect(statistics.counter(Counter.bytesRead)).toBe(4096);
  expect(statistics.counter(Counter.writeOps)).toBe(1);
  expect(statistics.counter(Counter.bytesWritten)).toBe(1024);
  expect(statistics.counter(Counter.flushOps)).toBe(1);
  expect(statistics.counter(Counter.discardOps)).toBe(1);
  expect(statistics.counter(Counter.writeZeroesOps)).toBe(1);
  expect(statistics.counter(Counter.inFlight)).toBe(5);
  expect(statistics.counter(Counter.completed)).toBe(0);
  expect(statistics.inFlight()).toEqual([
    { slot: 0, operation: "write", sector: 32, sectorCount: 2, startedNs: 2000 },
    { slot: 1, operation: "flush", sector: 0, sectorCount: 0, startedNs: 3000 },
    { slot: 2, operation: "discard", sector: 64, sectorCount: 16, startedNs: 4000 },
    { slot: 3, operation: "read", sector: 16, sectorCount: 8, startedNs: 1000 },
    { slot: 4, operation: "write_zeroes", sector: 128, sectorCount: 1, startedNs: 5000 },
  ]);
});

test("end: counts success and failure, keeps the latency, empties the slot", () => {
  const statistics = makeStatistics(2);
  statistics.begin(0, Operation.read, 0, 512, 1000);
  statistics.begin(1, Operation.write, 0, 512, 1000);
  statistics.end(0, true, 1005);
  statistics.end(1, false, 1100);
  expect(statistics.counter(Counter.completed)).toBe(1);
  expect(statistics.counter(Counter.failed)).toBe(1);
  expect(statistics.counter(Counter.inFlight)).toBe(0);
  expect(statistics.inFlight()).toEqual([]);
  expect(statistics.latencies("read")[bucketOf(5)]).toBe(1);
  expect(statistics.latencies("write")[bucketOf(100)]).toBe(1);
  expect(statistics.latencies("flush").every((count) => count === 0)).toBe(true);
});

test("end of a discard: no histogram takes it", () => {
  const statistics = makeStatistics(1);
  statistics.begin(0, Operation.discard, 0, 512, 0);
  statistics.end(0, true, 10);
  for (const operation of ["read", "write", "flush"] as const) {
    expect(statistics.latencies(operation).every((count) => count === 0)).toBe(true);
  }
  expect(statistics.counter(Counter.completed)).toBe(1);
});

test("sum of latencies: of each operation; a clock that stands still or goes back takes nothing away", () => {
  const statistics = makeStatistics(1);
  for (const [operation, endNs] of [
    [Operation.read, 1005],
    [Operation.read, 1100],
    [Operation.read, 1000],
    [Operation.read, 990],
    [Operation.flush, 1003],
  ] as const) {
    statistics.begin(0, operation, 0, 512, 1000);
    statistics.end(0, true, endNs);
  }
  expect(statistics.latencySumNs("read")).toBe(105);
  expect(statistics.latencySumNs("write")).toBe(0);
  expect(statistics.latencySumNs("flush")).toBe(3);
});

test("two views of the same memory see the same", () => {
  const shared = new SharedArrayBuffer(QueueStatistics.sharedBytes(4));
  const writer = new QueueStatistics(shared, 4);
  const reader = new QueueStatistics(shared, 4);
  writer.begin(2, Operation.read, 8, 512, 1);
  writer.count(Counter.kicks, 7);
  expect(reader.inFlight()).toHaveLength(1);
  expect(reader.counter(Counter.kicks)).toBe(7);
});

// --- internal ---

function makeStatistics(slots: number): QueueStatistics {
  return new QueueStatistics(new SharedArrayBuffer(QueueStatistics.sharedBytes(slots)), slots);
}
