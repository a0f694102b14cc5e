import { expect, test } from "bun:test";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { BackgroundOrder } from "./background-order.ts";
import { Phase, StripeState } from "./stripe-state.ts";

const STRIPES = 8;

let state: StripeState;

function orderOfAll(): BackgroundOrder {
  const flags = new Uint8Array(STRIPES).fill(STRIPE_FLAG.HAS_SOURCE);
  state = StripeState.create(flags, { queues: 1, buffers: 1 });
  return new BackgroundOrder(state, () => Array.from({ length: STRIPES }, (_, i) => i).values());
}

test("a limit spaces the fetches out", () => {
  const order = orderOfAll();
  order.limit(1000);
  expect(order.next(100)).toBe(0);
  order.began(500, 100);
  expect(order.dueMs).toBe(600);
  expect(order.next(599)).toBeUndefined();
  expect(order.next(600)).toBe(1);
});

test("a new limit holds at once: what the old one demanded is forgotten", () => {
  const order = orderOfAll();
  order.limit(1);
  expect(order.next(0)).toBe(0);
  order.began(1_000_000, 0);
  expect(order.dueMs).toBe(1_000_000_000);
  order.limit(1_000_000);
  expect(order.dueMs).toBe(1000);
  order.limit(Number.POSITIVE_INFINITY);
  expect(order.next(1)).toBe(1);
});

test("a new limit does not shorten the pause between two passes", () => {
  const order = orderOfAll();
  order.limit(1_000_000);
  for (let stripe = 0; stripe < STRIPES; stripe++) {
    order.next(0);
  }
  order.began(1, 0);
  expect(order.next(10)).toBeUndefined();
  const { dueMs } = order;
  expect(dueMs).toBeGreaterThan(10);
  order.limit(Number.POSITIVE_INFINITY);
  expect(order.dueMs).toBe(dueMs);
});

test("what is to be tried again goes first, and does not wait for the next pass", () => {
  const order = orderOfAll();
  order.again(5);
  expect([order.next(0), order.next(0)]).toEqual([5, 0]);
  while (order.next(0) !== undefined) {}
  expect(order.dueMs).toBe(1_000);
  order.again(3);
  expect([order.dueMs, order.next(1), order.next(1)]).toEqual([0, 3, undefined]);
});

test("behind 64 failures in a row the source is left alone for a while, then what failed comes again", () => {
  const order = orderOfAll();
  expect(order.next(1_000)).toBe(0);
  failOften(order, 1_000);
  expect([order.isPaused, order.dueMs]).toEqual([true, 11_000]);
  expect(order.next(10_999)).toBeUndefined();
  state.fail(0, Phase.failed);
  expect(order.next(11_000)).toBe(0);
  expect(order.isPaused).toBe(false);
});

test("the pauses of a source that stays away double, up to a limit; one success makes them short again", () => {
  const order = orderOfAll();
  let nowMs = 0;
  const pauses: number[] = [];
  for (let round = 0; round < 7; round++) {
    order.next(nowMs);
    failOften(order, nowMs);
    pauses.push((order.dueMs - nowMs) / 1000);
    nowMs = order.dueMs;
  }
  expect(pauses).toEqual([10, 20, 40, 80, 160, 320, 320]);
  order.next(nowMs);
  order.succeeded();
  failOften(order, nowMs);
  expect(order.dueMs - nowMs).toBe(10_000);
});

test("a pause that was asked for ends only when that is asked for", () => {
  const order = orderOfAll();
  order.next(0);
  failOften(order, 0);
  order.pause();
  expect(order.dueMs).toBe(Number.POSITIVE_INFINITY);
  expect(order.next(10 ** 9)).toBeUndefined();
  order.resume();
  expect(order.next(10 ** 9)).toBe(1);
});

test("many failures long after the last look: the pause is counted from them", () => {
  const order = orderOfAll();
  order.next(0);
  failOften(order, 100_000);
  expect(order.dueMs).toBe(110_000);
});

test("a stripe that failed alone is tried again by a pass behind a long pause, about once a minute", () => {
  const order = orderOfAll();
  for (let stripe = 0; stripe < STRIPES; stripe++) {
    state.fail(order.next(0) ?? -1, Phase.failed);
  }
  const tries: number[] = [];
  for (let seconds = 0; seconds < 200; seconds++) {
    for (let next = order.next(seconds * 1000); next !== undefined; ) {
      if (next === 0) {
        tries.push(seconds);
      }
      next = order.next(seconds * 1000);
    }
  }
  expect(tries).toEqual([31, 63, 127, 191]);
});

// --- internal ---

function failOften(order: BackgroundOrder, nowMs: number): void {
  for (let i = 0; i < 64; i++) {
    order.failed(nowMs);
  }
}
