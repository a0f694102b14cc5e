import { expect, test } from "bun:test";
import { IdleSpin } from "./idle-spin.ts";

const SHORT_NS = 1_000;
const LONG_NS = 300_000;

test("looking: not before any work was seen", () => {
  expect(new IdleSpin(1000).limitNs()).toBe(0);
});

test("looking: while work comes soon, for twice what a sleep costs", () => {
  const spin = new IdleSpin(1000);
  repeat(100, () => spin.learnSleep(10_000));
  repeat(100, () => spin.learn(SHORT_NS));
  expect(spin.limitNs()).toBeWithin(19_000, 20_001);
});

test("looking: no longer once work comes late", () => {
  const spin = new IdleSpin(1000);
  repeat(100, () => spin.learn(SHORT_NS));
  expect(spin.limitNs()).toBeGreaterThan(0);
  repeat(100, () => spin.learn(LONG_NS));
  expect(spin.limitNs()).toBe(0);
});

test("looking: never longer than 50 us, whatever a sleep costs", () => {
  const spin = new IdleSpin(10_000_000);
  repeat(1000, () => spin.learnSleep(1e9));
  repeat(100, () => spin.learn(SHORT_NS));
  expect(spin.limitNs()).toBe(50_000);
});

test("poll_timeout_us: bounds the looking, and 0 turns it off", () => {
  const short = new IdleSpin(2);
  const off = new IdleSpin(0);
  repeat(100, () => short.learn(SHORT_NS));
  repeat(100, () => off.learn(SHORT_NS));
  expect(short.limitNs()).toBe(2_000);
  expect(off.limitNs()).toBe(0);
});

test("measuring: one sleep in 64", () => {
  const spin = new IdleSpin(1000);
  const measured = Array.from({ length: 640 }, () => spin.isMeasured()).filter(Boolean);
  expect(measured.length).toBe(10);
});

function repeat(times: number, act: () => void): void {
  for (let i = 0; i < times; i++) {
    act();
  }
}
