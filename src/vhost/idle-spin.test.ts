import { expect, test } from "bun:test";
import { IdleSpin } from "./idle-spin.ts";

const SHORT_NS = 1_000;
const LONG_NS = 300_000;

test("looking: not before any work was seen", () => {
  expect(new IdleSpin("disk", 1000).limitNs()).toBe(0);
  expect(new IdleSpin("guest", 1000).limitNs()).toBe(0);
});

test("waiting for the disk: while work comes soon, for twice what a sleep costs", () => {
  const spin = new IdleSpin("disk", 1000);
  repeat(100, () => spin.learnSleep(10_000));
  repeat(100, () => spin.learn(SHORT_NS));
  expect(spin.limitNs()).toBeWithin(19_000, 20_001);
});

test("waiting for the disk: never longer than 50 us, whatever a sleep costs", () => {
  const spin = new IdleSpin("disk", 10_000_000);
  repeat(1000, () => spin.learnSleep(1e9));
  repeat(100, () => spin.learn(SHORT_NS));
  expect(spin.limitNs()).toBeWithin(49_000, 50_001);
});

test("waiting for the guest: longer for larger batches, up to 100 us", () => {
  const single = new IdleSpin("guest", 1000);
  const deep = new IdleSpin("guest", 1000);
  repeat(100, () => single.learnBatch(1));
  repeat(100, () => deep.learnBatch(256));
  repeat(100, () => single.learn(SHORT_NS));
  repeat(100, () => deep.learn(SHORT_NS));
  expect(single.limitNs()).toBeWithin(2_900, 3_001);
  expect(deep.limitNs()).toBe(100_000);
});

test("looking: no longer once work comes late", () => {
  const spin = new IdleSpin("disk", 1000);
  repeat(100, () => spin.learn(SHORT_NS));
  expect(spin.limitNs()).toBeGreaterThan(0);
  repeat(100, () => spin.learn(LONG_NS));
  expect(spin.limitNs()).toBe(0);
});

test("poll_timeout_us: bounds the looking, and 0 turns it off", () => {
  const short = new IdleSpin("disk", 2);
  const off = new IdleSpin("disk", 0);
  repeat(100, () => short.learn(SHORT_NS));
  repeat(100, () => off.learn(SHORT_NS));
  expect(short.limitNs()).toBe(2_000);
  expect(off.limitNs()).toBe(0);
});

test("measuring: one sleep in 64", () => {
  const spin = new IdleSpin("disk", 1000);
  const measured = Array.from({ length: 640 }, () => spin.isMeasured()).filter(Boolean);
  expect(measured.length).toBe(10);
});

function repeat(times: number, act: () => void): void {
  for (let i = 0; i < times; i++) {
    act();
  }
}
