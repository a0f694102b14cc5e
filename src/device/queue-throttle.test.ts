/** A queue that is held back: what starts when, what is counted, and what becomes of a request that waits. */
import { expect, test } from "bun:test";
import { Operation } from "../disk/request-table.ts";
import { type LimitSettings, NO_LIMITS } from "./limit-settings.ts";
import { Counter, QueueStatistics } from "./queue-statistics.ts";
import { QueueThrottle } from "./queue-throttle.ts";
import { TokenBuckets } from "./token-buckets.ts";

const MS = 1e6;
const START = 5e9;
const { read, write, flush, discard, writeZeroes } = Operation;

test("without limits: it is off, and says so", () => {
  const { throttle } = make();
  expect(throttle.mayGo(START)).toBe(true);
  expect(throttle.isOn).toBe(false);
  expect(throttle.wakeNs(START)).toBe(Number.POSITIVE_INFINITY);
});

test("the second request waits for its time: the queue sleeps until then, and the wait is counted", () => {
  const { throttle, statistics } = make({ iops: 1000 });
  start(throttle, write, 4096, START);
  expect(throttle.mayStart(write, 4096, START)).toBe(false);
  expect(throttle.wakeNs(START)).toBe(START + MS);
  expect(throttle.mayGo(START + 0.4 * MS)).toBe(false);
  expect(throttle.mayGo(START + 1.1 * MS)).toBe(true);
  expect(throttle.mayStart(write, 4096, START + 1.1 * MS)).toBe(true);
  throttle.started(write, 0, START + 1.1 * MS);
  expect(statistics.counter(Counter.writesThrottled)).toBe(1);
  expect(statistics.counter(Counter.writeThrottledNs)).toBe(1.1 * MS);
  expect(statistics.counter(Counter.readsThrottled)).toBe(0);
  expect(statistics.counter(Counter.readThrottledNs)).toBe(0);
});

test("a short wait: the sleep is not shorter than a quarter of a millisecond", () => {
  const { throttle } = make({ iops: 1000, bytes_per_second: 4096e4 });
  start(throttle, read, 40_960, START);
  throttle.mayStart(read, 512, START + 0.9 * MS);
  expect(throttle.wakeNs(START + 0.9 * MS)).toBe(START + 1.15 * MS);
});

test("a time that has come before the sleep began: the queue wakes nevertheless", () => {
  const { throttle } = make({ iops: 1000 });
  start(throttle, read, 512, START);
  throttle.mayStart(read, 512, START);
  expect(throttle.wakeNs(START + 2 * MS)).toBe(START + 2.25 * MS);
});

test("a long wait: it looks after changes of the limits meanwhile", () => {
  const { throttle, control } = make({ iops: 1 });
  start(throttle, read, 512, START);
  throttle.mayStart(read, 512, START);
  expect(throttle.wakeNs(START)).toBe(START + 50 * MS);
  control.set(NO_LIMITS, START + MS);
  expect(throttle.mayGo(START + 50 * MS)).toBe(true);
  expect(throttle.isOn).toBe(false);
});

test("limits that change again and again: what waits for one that stays pays it once, and starts in time", () => {
  const { throttle, control } = make({ iops: 10 });
  start(throttle, read, 512, START);
  for (let at = START; at < START + 100 * MS; at += 10 * MS) {
    expect(throttle.mayGo(at) && throttle.mayStart(read, 512, at)).toBe(false);
    control.set(limits({ iops: 10, write_iops: 1000 + at / MS }), at);
  }
  expect(throttle.mayGo(START + 100 * MS)).toBe(true);
  expect(throttle.mayStart(read, 512, START + 100 * MS)).toBe(true);
});

test("a limit that is changed forgives what was taken of it before, and gives nothing back of that", () => {
  const { throttle, control } = make({ iops: 10 });
  start(throttle, read, 512, START);
  expect(throttle.mayStart(read, 512, START)).toBe(false);
  control.set(limits({ iops: 20 }), START);
  expect(throttle.mayGo(START)).toBe(true);
  expect(throttle.mayStart(read, 512, START)).toBe(false);
  expect(throttle.mayGo(START + 49 * MS)).toBe(false);
  expect(throttle.mayGo(START + 50 * MS)).toBe(true);
});

test("its time has come but no place is free: it starts later, wakes nobody, and only the limit's time counts", () => {
  const { throttle, statistics } = make({ iops: 1000 });
  start(throttle, read, 512, START);
  throttle.mayStart(read, 512, START);
  expect(throttle.mayGo(START + 2 * MS)).toBe(true);
  expect(throttle.mayStart(read, 512, START + 2 * MS)).toBe(true);
  expect(throttle.wakeNs(START + 2 * MS)).toBe(Number.POSITIVE_INFINITY);
  expect(throttle.mayGo(START + 9 * MS)).toBe(true);
  expect(throttle.mayStart(read, 512, START + 9 * MS)).toBe(true);
  throttle.started(read, 0, START + 9 * MS);
  expect(statistics.counter(Counter.readThrottledNs)).toBe(2 * MS);
});

test("flushes cost nothing; discards a write and no bytes; write zeroes their bytes, afterwards", () => {
  const { throttle } = make({ write_iops: 1000, bytes_per_second: 4096 });
  start(throttle, flush, 0, START);
  start(throttle, discard, 512, START);
  expect(throttle.mayStart(discard, 512, START)).toBe(false);
  const later = START + MS;
  expect(throttle.mayStart(discard, 512, later)).toBe(true);
  throttle.started(discard, 0, later);
  const last = later + MS;
  expect(throttle.mayStart(writeZeroes, 16, last)).toBe(true);
  throttle.started(writeZeroes, 8192, last);
  expect(throttle.mayStart(read, 512, last)).toBe(false);
});

test("another request in the place of the one that waits: it pays its own price", () => {
  const { throttle } = make({ bytes_per_second: 409_600 });
  start(throttle, read, 40_960, START);
  expect(throttle.mayStart(read, 512, START)).toBe(false);
  expect(throttle.mayStart(read, 40_960, START + 2 * MS)).toBe(false);
  expect(throttle.mayGo(START + 99 * MS)).toBe(false);
  expect(throttle.mayGo(START + 101 * MS)).toBe(true);
});

test("a queue that is stopped: the tokens of its waiting request go to others", () => {
  const { throttle, other } = make({ iops: 1000 });
  start(throttle, read, 512, START);
  throttle.mayStart(read, 512, START);
  throttle.cancel(START);
  other.mayGo(START);
  other.mayStart(write, 512, START);
  expect(other.wakeNs(START)).toBe(START + MS);
  expect(throttle.wakeNs(START)).toBe(Number.POSITIVE_INFINITY);
});

// --- internal ---

/** Two queues. */
function make(rates: Readonly<Record<string, number>> = {}) {
  const shared = TokenBuckets.share(3);
  const control = new TokenBuckets(shared, 2);
  control.set(limits(rates), 0);
  const statistics = newStatistics();
  const throttle = new QueueThrottle(shared, 0, statistics);
  const other = new QueueThrottle(shared, 1, newStatistics());
  throttle.mayGo(START);
  return { throttle, other, control, statistics };
}

/** Each with a bucket of a thousandth of it, 1 or 4096 at least. */
function limits(rates: Readonly<Record<string, number>>): LimitSettings {
  const names = ["iops", "read_iops", "write_iops", "bytes_per_second"];
  return NO_LIMITS.map((none, i) => {
    const perSecond = rates[names[i] ?? ""];
    const least = i < 3 ? 1 : 4096;
    return perSecond === undefined
      ? none
      : { perSecond, burst: Math.max(least, Math.ceil(perSecond / 1000)) };
  });
}

function newStatistics(): QueueStatistics {
  return new QueueStatistics(new SharedArrayBuffer(QueueStatistics.sharedBytes(1)), 1);
}

/** A request that does not wait. */
function start(throttle: QueueThrottle, operation: number, bytes: number, nowNs: number): void {
  expect(throttle.mayStart(operation, bytes, nowNs)).toBe(true);
  throttle.started(operation, 0, nowNs);
}
