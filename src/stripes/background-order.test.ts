import { expect, test } from "bun:test";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { BackgroundOrder } from "./background-order.ts";
import { StripeState } from "./stripe-state.ts";

const STRIPES = 8;

function orderOfAll(): BackgroundOrder {
  const flags = new Uint8Array(STRIPES).fill(STRIPE_FLAG.HAS_SOURCE);
  const state = StripeState.create(flags, { queues: 1, buffers: 1 });
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
