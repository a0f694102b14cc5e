import { expect, test } from "bun:test";
import fc from "fast-check";
import { Histogram } from "./histogram.ts";

test("an empty histogram tells zeros", () => {
  const histogram = new Histogram();
  expect([histogram.count, histogram.meanNs, histogram.percentileNs(0.99)]).toEqual([0, 0, 0]);
});

test("percentiles of 1 to 1000 us are within a bucket of the exact ones", () => {
  const histogram = new Histogram();
  for (let us = 1; us <= 1000; us++) {
    histogram.record(us * 1000);
  }
  expect(histogram.percentileNs(0.5)).toBeWithin(500_000, 516_000);
  expect(histogram.percentileNs(0.99)).toBeWithin(990_000, 1_000_001);
  expect(histogram.percentileNs(1)).toBe(1_000_000);
  expect(histogram.meanNs).toBe(500_500);
});

test("any single value is its own percentile, at most 3.2 % or one unit too high", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 30e9 }), (ns) => {
      const histogram = new Histogram();
      histogram.record(ns);
      histogram.record(40e9); // so that the maximum does not hide the bucket's end
      const told = histogram.percentileNs(0.5);
      expect(told).toBeGreaterThanOrEqual(ns);
      expect(told).toBeLessThanOrEqual(ns * 1.032 + 8);
    }),
  );
});

test("values beyond the last bucket still count, and the maximum is exact", () => {
  const histogram = new Histogram();
  histogram.record(1e12);
  expect(histogram.count).toBe(1);
  expect(histogram.maxNs).toBe(1e12);
});
