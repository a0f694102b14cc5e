/** Buckets that several members share: what waits, for how long, and what a change of the limits leaves. */
import { expect, test } from "bun:test";
import { LIMITS, type Limit } from "../config/limit-rules.ts";
import type { LimitSettings } from "./limit-settings.ts";
import { TokenBuckets } from "./token-buckets.ts";

const MS = 1e6;
const SECOND = 1e9;
const START = 5 * SECOND;

test("a full bucket: as much as its burst at once, then one after another at its rate", () => {
  const { buckets } = share({ iops: { perSecond: 1000, burst: 3 } });
  const starts = Array.from({ length: 6 }, () => buckets.take(false, 1, 4096, START));
  expect(starts.map((start) => start - START)).toEqual([0, 0, 0, MS, 2 * MS, 3 * MS]);
});

test("no burst given: a tenth of a second's", () => {
  const { buckets } = share({ iops: { perSecond: 50, burst: undefined } });
  const starts = Array.from({ length: 6 }, () => buckets.take(true, 1, 0, START));
  expect(starts.map((start) => start - START)).toEqual([0, 0, 0, 0, 0, 20 * MS]);
});

test("a long rest: no more than the burst has gathered", () => {
  const { buckets } = share({ iops: { perSecond: 1000, burst: 2 } });
  take(buckets, 2);
  const later = START + 1e6 * SECOND;
  expect(buckets.take(false, 1, 0, later)).toBe(later);
  expect(buckets.take(false, 1, 0, later)).toBe(later);
  expect(buckets.take(false, 1, 0, later)).toBe(later + MS);
});

test("more than a bucket holds: waits until it is full, then others until the debt is repaid", () => {
  const { buckets } = share({ bytes_per_second: { perSecond: 1e6, burst: 10_000 } });
  expect(buckets.take(true, 1, 50_000, START)).toBe(START);
  expect(buckets.take(true, 1, 1_000, START) - START).toBe(41 * MS);
  expect(buckets.take(true, 1, 50_000, START) - START).toBe((41 + 10) * MS);
});

test("reads, writes and all: each request takes from the two that concern it, and waits for the later one", () => {
  const { buckets } = share({
    iops: { perSecond: 1000, burst: 2 },
    write_iops: { perSecond: 100, burst: 1 },
  });
  expect(buckets.take(true, 1, 0, START)).toBe(START);
  expect(buckets.take(true, 1, 0, START) - START).toBe(10 * MS);
  expect(buckets.take(false, 1, 0, START) - START).toBe(MS);
});

test("operations and bytes: whichever is scarcer", () => {
  const { buckets } = share({
    read_iops: { perSecond: 1000, burst: 1 },
    read_bytes_per_second: { perSecond: 1e6, burst: 4096 },
  });
  take(buckets, 1);
  expect(buckets.take(false, 1, 512, START) - START).toBe(MS);
  expect(buckets.take(false, 1, 8192, START) - START).toBe(2 * MS);
  expect(Math.round(buckets.take(false, 1, 512, START) - START)).toBe(5.12 * MS);
});

test("requests of several queues: in the order in which they asked, whatever their size", () => {
  const { buckets, other } = share({ bytes_per_second: { perSecond: 1e6, burst: 4096 } });
  expect(buckets.take(false, 1, 4096, START)).toBe(START);
  const large = other.take(false, 1, 4096, START);
  const small = buckets.take(false, 1, 512, START);
  expect(Math.round(large - START)).toBe(4.096 * MS);
  expect(Math.round(small - START)).toBe(4.608 * MS);
});

test("a queue whose clock is a little behind: takes what is there now, and turns nothing back", () => {
  const { buckets, other } = share({ iops: { perSecond: 1000, burst: 1 } });
  expect(buckets.take(false, 1, 0, START)).toBe(START);
  expect(other.take(false, 1, 0, START - 0.5 * MS)).toBe(START + MS);
  expect(buckets.take(false, 1, 0, START)).toBe(START + 2 * MS);
});

test("tokens that are given back: the next one has them", () => {
  const { buckets } = share({ iops: { perSecond: 1000, burst: 1 } });
  take(buckets, 1);
  expect(buckets.take(false, 1, 0, START)).toBe(START + MS);
  buckets.giveBack(false, 1, 0, buckets.mode, START);
  expect(buckets.take(false, 1, 0, START)).toBe(START + MS);
});

test("a change: a debt is forgiven, a level is kept, what did not change stays as it was", () => {
  const { buckets, control } = share({
    iops: { perSecond: 10, burst: 1 },
    write_iops: { perSecond: 10, burst: 1 },
  });
  expect(buckets.take(true, 1, 0, START)).toBe(START);
  control.set(
    settings({ iops: { perSecond: 1000, burst: 1 }, write_iops: { perSecond: 10, burst: 1 } }),
    START,
  );
  expect(buckets.take(false, 1, 0, START)).toBe(START + MS); // its level was 0, and is not full anew
  expect(buckets.take(true, 1, 0, START)).toBe(START + 100 * MS);
  control.set(settings({ iops: { perSecond: 1000, burst: 2 } }), START);
  expect(buckets.take(true, 1, 0, START)).toBe(START + MS);
});

test("a new limit: its bucket is full; one that is lifted holds nothing back", () => {
  const { buckets, control } = share({});
  expect(buckets.mode % 2).toBe(0);
  control.set(settings({ iops: { perSecond: 1000, burst: 1 } }), START);
  expect(buckets.mode % 2).toBe(1);
  expect(buckets.take(false, 1, 0, START)).toBe(START);
  expect(buckets.take(false, 1, 0, START)).toBe(START + MS);
  control.set(settings({}), START);
  expect(buckets.mode % 2).toBe(0);
  expect(buckets.take(false, 1, 0, START)).toBe(START);
});

test("a million requests: the last one starts when the rate says so, to the microsecond", () => {
  const { buckets } = share({ iops: { perSecond: 7777, burst: 8 } });
  take(buckets, 1_000_000);
  const start = buckets.take(false, 1, 0, START);
  expect(start - START).toBeCloseTo(((1_000_001 - 8) / 7777) * SECOND, -3);
});

// --- internal ---

function share(limits: Readonly<Record<string, Limit>>) {
  const shared = TokenBuckets.share(3);
  const [buckets, other, control] = [0, 1, 2].map((member) => new TokenBuckets(shared, member));
  if (buckets === undefined || other === undefined || control === undefined) {
    throw new Error("there are three members");
  }
  control.set(settings(limits), 0);
  return { buckets, other, control };
}

function settings(limits: Readonly<Record<string, Limit>>): LimitSettings {
  return LIMITS.map(({ rate }) => limits[rate] ?? { perSecond: undefined, burst: undefined });
}

function take(buckets: TokenBuckets, count: number): void {
  for (let i = 0; i < count; i++) {
    buckets.take(false, 1, 0, START);
  }
}
