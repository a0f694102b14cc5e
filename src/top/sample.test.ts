/** Rates between two readings, and what stands for a backend that was started anew. */
import { expect, test } from "bun:test";
import { percentileNs } from "./histogram.ts";
import { type Answers, type Reading, readAnswers } from "./reading.ts";
import { isCountedAnew, queueSamples, sumOfSamples } from "./sample.ts";

test("rates: by the seconds that passed, not by the wanted interval", () => {
  const before = readingOf([{ read_ops: 100, bytes_read: 409_600, failed: 1 }]);
  const after = readingOf([{ read_ops: 400, bytes_read: 1_638_400, failed: 1 }]);
  const [sample] = queueSamples(before, after, 1.5);
  expect(sample?.rates).toEqual({ read_ops: 200, bytes_read: 819_200, failed: 0 });
  expect(sample?.totals).toEqual({ read_ops: 400, bytes_read: 1_638_400, failed: 1 });
});

test("first reading: totals, but no rates", () => {
  const [sample] = queueSamples(undefined, readingOf([{ read_ops: 100 }]), 0);
  expect(sample?.rates).toBeUndefined();
  expect(sample?.totals).toEqual({ read_ops: 100 });
});

test("a counter, a bucket or the number of queues goes back: counted anew", () => {
  const before = readingOf([{ read_ops: 5, write_ops: 5 }], [{ read: [[8192, 5]] }]);
  const same = readingOf([{ read_ops: 5, write_ops: 9 }], [{ read: [[8192, 5]] }]);
  expect(isCountedAnew(before, same)).toBe(false);
  expect(isCountedAnew(before, readingOf([{ read_ops: 6, write_ops: 4 }]))).toBe(true);
  expect(isCountedAnew(before, readingOf([{ read_ops: 5, write_ops: 5 }, {}]))).toBe(true);
  const lessBuckets = readingOf([{ read_ops: 5, write_ops: 5 }], [{ read: [[9216, 7]] }]);
  expect(isCountedAnew(before, lessBuckets)).toBe(true);
});

test("counters that go back although nobody looked: never a negative rate", () => {
  const [sample] = queueSamples(readingOf([{ read_ops: 9 }]), readingOf([{ read_ops: 3 }]), 1);
  expect(sample?.rates).toEqual({ read_ops: 0 });
});

test("latencies: of the requests between the readings only", () => {
  const before = readingOf([{}], [{ read: [[1000, 1_000_000]], write: [], flush: [] }]);
  const after = readingOf(
    [{}],
    [
      {
        read: [
          [1000, 1_000_050],
          [2000, 48],
          [9000, 2],
        ],
        write: [],
        flush: [],
      },
    ],
  );
  const [sample] = queueSamples(before, after, 1);
  expect(percentileNs(sample?.histograms.read, 0.5)).toBe(1000);
  expect(percentileNs(sample?.histograms.read, 0.99)).toBe(9000);
  expect(percentileNs(sample?.histograms.write, 0.5)).toBeUndefined();
});

test("sum: adds rates and what is in flight, merges latencies, keeps the oldest", () => {
  const before = readingOf([{ read_ops: 0 }, { read_ops: 0 }], [{ read: [] }, { read: [] }]);
  const after = readingOf(
    [
      { read_ops: 10, in_flight: 3, oldest_in_flight_ns: 500 },
      { read_ops: 20, in_flight: 4, oldest_in_flight_ns: null, stopped: 1 },
    ],
    [
      { read: [[1000, 10]] },
      {
        read: [
          [1000, 1],
          [2000, 19],
        ],
      },
    ],
  );
  const sum = sumOfSamples(queueSamples(before, after, 2));
  expect(sum.rates).toEqual({ read_ops: 15 });
  expect(sum.inFlight).toBe(7);
  expect(sum.oldestInFlightNs).toBe(500);
  expect(sum.stopped).toBe(1);
  expect([...(sum.histograms.read ?? [])]).toEqual([
    [1000, 11],
    [2000, 19],
  ]);
});

test("backend with stats and queues only: its counters and what is in flight", () => {
  const reading = readAnswers(
    answersOf({
      stats: {
        queues: [{ bytes_read: 1, bytes_written: 2, flush_ops: 3, read_ops: 4, write_ops: 5 }],
      },
      queues: [[["flush"], ["read", 2, 3]]],
    }),
  );
  expect(reading?.queues[0]).toMatchObject({
    counters: { bytes_read: 1, bytes_written: 2, flush_ops: 3, read_ops: 4, write_ops: 5 },
    inFlight: 2,
    histograms: { read: undefined, write: undefined, flush: undefined },
  });
  expect(reading?.stripes).toBeUndefined();
});

test("status: null, of three counts, and with more facts", () => {
  const stripesOf = (status: unknown) =>
    readAnswers(answersOf({ stats: { queues: [] }, status }))?.stripes;
  expect(stripesOf(null)).toBeUndefined();
  const counts = { fetched: 1, source: 2, total: 3 };
  expect(stripesOf({ stripes: counts })).toMatchObject({ ...counts, failed: undefined });
  expect(
    stripesOf({ stripes: counts, fetch: { failed: 2, failed_stripes: [7, 9], eta_seconds: 4 } }),
  ).toMatchObject({ ...counts, failed: 2, failedStripes: [7, 9], etaSeconds: 4 });
  expect(
    stripesOf({ stripes: { ...counts, failed: 2, failed_stripes: [7, 9] }, eta_seconds: 4 }),
  ).toMatchObject({ ...counts, failed: 2, failedStripes: [7, 9], etaSeconds: 4 });
});

test.each([
  null,
  "text",
  { queues: 7 },
  { queues: [null, 1, "x", [], { read_ops: -1, bytes_read: "many", in_flight: null }] },
])("answer that is nonsense (%j): no error, and no such number", (statistics) => {
  const reading = readAnswers(
    answersOf({ statistics, histograms: statistics, status: statistics }),
  );
  for (const queue of reading?.queues ?? []) {
    expect(queue.counters).toEqual({});
    expect(queue.inFlight).toBeUndefined();
  }
});

// --- internal ---

function answersOf(values: Readonly<Record<string, unknown>>): Answers {
  return new Map(Object.entries(values).map(([command, value]) => [command, { [command]: value }]));
}

/** A reading of queues with these statistics and histograms. */
function readingOf(queues: readonly unknown[], histograms: readonly unknown[] = []): Reading {
  const reading = readAnswers(
    answersOf({ statistics: { queues }, histograms: { queues: histograms } }),
  );
  if (reading === undefined) {
    throw new Error("the answers make no reading");
  }
  return reading;
}
