import { expect, test } from "bun:test";
import { TouchOrder } from "./touch-order.ts";

test("stripes stand in the order of their first touch, neighbours in one run", () => {
  const order = new TouchOrder(100);
  for (const stripe of [5, 6, 7, 90, 6, 91, 8, 4, 5]) {
    order.note(stripe);
  }
  expect(order.runs).toEqual([
    { first: 5, count: 3 },
    { first: 90, count: 2 },
    { first: 8, count: 1 },
    { first: 4, count: 1 },
  ]);
  expect(order.changes).toBe(7);
});
