import { expect, test } from "bun:test";
import { FetchRate } from "./fetch-rate.ts";

test("the rate is that of the last ten seconds", () => {
  const rate = new FetchRate();
  for (let second = 0; second <= 30; second++) {
    rate.add(second <= 20 ? second * 100 : 2000 + (second - 20) * 10, second * 1000);
  }
  expect(rate.perSecond).toBe(10);
});

test("one look tells nothing, and many in a moment tell what a few do", () => {
  const rate = new FetchRate();
  rate.add(5, 0);
  expect(rate.perSecond).toBe(0);
  for (let ms = 1; ms <= 1000; ms++) {
    rate.add(5 + ms, ms);
  }
  expect(rate.perSecond).toBe(1000);
});

test("the remaining time is told while the background brings the rest, at the speed of the last seconds", () => {
  const rate = new FetchRate();
  rate.add(0, 0);
  expect(rate.etaSeconds(100, true)).toBeUndefined();
  rate.add(40, 2_000);
  expect(rate.etaSeconds(100, true)).toBe(5);
  expect(rate.etaSeconds(100, false)).toBeUndefined();
  expect(rate.etaSeconds(0, true)).toBeUndefined();
});
