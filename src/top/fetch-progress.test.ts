/** Rate and remaining time of a fetch. */
import { expect, test } from "bun:test";
import { FetchProgress } from "./fetch-progress.ts";
import type { StripeReading } from "./reading.ts";

test("rate and remaining time: over the last half minute", () => {
  const progress = new FetchProgress();
  expect(progress.add(stripes(0), 0)).toMatchObject({
    stripesPerSecond: undefined,
    etaSeconds: undefined,
  });
  // 100 stripes in the first 10 s, then 10 a second.
  progress.add(stripes(100), 10_000);
  for (let second = 11; second <= 40; second++) {
    progress.add(stripes(100 + (second - 10) * 10), second * 1000);
  }
  const last = progress.add(stripes(410), 41_000);
  expect(last.stripesPerSecond).toBe(10);
  expect(last.etaSeconds).toBe(59);
});

test("nothing arrives: no remaining time", () => {
  const progress = new FetchProgress();
  progress.add(stripes(5), 0);
  const sample = progress.add(stripes(5), 1000);
  expect(sample.stripesPerSecond).toBe(0);
  expect(sample.etaSeconds).toBeUndefined();
});

test("fewer stripes than before, on a fresh disk: counted from there", () => {
  const progress = new FetchProgress();
  progress.add(stripes(500), 0);
  expect(progress.add(stripes(10), 1000).stripesPerSecond).toBeUndefined();
  expect(progress.add(stripes(30), 2000).stripesPerSecond).toBe(20);
});

test("bytes by second: as told, or from the size of a stripe", () => {
  const progress = new FetchProgress();
  progress.add({ ...stripes(0), stripeBytes: 1024 }, 0);
  expect(progress.add({ ...stripes(2), stripeBytes: 1024 }, 1000).bytesPerSecond).toBe(2048);
  expect(progress.add({ ...stripes(2), bytesPerSecond: 7 }, 2000).bytesPerSecond).toBe(7);
  const told = progress.add({ ...stripes(2), bytesPerSecond: 7168, stripeBytes: 1024 }, 3000);
  expect(told).toMatchObject({ bytesPerSecond: 7168, stripesPerSecond: 7 });
});

// --- internal ---

function stripes(fetched: number): StripeReading {
  return {
    fetched,
    source: 1000,
    total: 4000,
    failed: undefined,
    failedStripes: [],
    stripeBytes: undefined,
    bytesPerSecond: undefined,
    etaSeconds: undefined,
  };
}
