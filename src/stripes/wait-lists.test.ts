import { expect, test } from "bun:test";
import { SeededRandom } from "../../tests/support/random.ts";
import { WaitLists } from "./wait-lists.ts";

test("slots of a stripe come back in the order of their arrival", () => {
  const lists = new WaitLists(4);
  for (const slot of [2, 0, 3]) {
    lists.add(slot, 77, 1);
  }
  expect(lists.count).toBe(1);
  expect(slotsOf(lists, lists.remove(0))).toEqual([2, 0, 3]);
  expect(lists.count).toBe(0);
});

test("many stripes, added and removed in any order, against a map (seed 5)", () => {
  const random = new SeededRandom(5);
  const lists = new WaitLists(64);
  const model = new Map<number, number[]>();
  const free = Array.from({ length: 64 }, (_, slot) => slot);
  for (let step = 0; step < 5000; step++) {
    const slot = random.oneIn(2) ? free.pop() : undefined;
    if (slot !== undefined) {
      const stripe = random.below(20) * 0x0800_0001; // stripes above 2^31 as well
      lists.add(slot, stripe, 1);
      model.set(stripe, [...(model.get(stripe) ?? []), slot]);
    } else if (lists.count > 0) {
      const list = random.below(lists.count);
      const stripe = lists.stripe(list);
      const slots = slotsOf(lists, lists.remove(list));
      expect(slots).toEqual(model.get(stripe) ?? []);
      model.delete(stripe);
      free.push(...slots);
    }
    expect(lists.count).toBe(model.size);
  }
});

// --- internal ---

function slotsOf(lists: WaitLists, head: number): number[] {
  const slots: number[] = [];
  for (let slot = head; slot >= 0; slot = lists.next(slot)) {
    slots.push(slot);
  }
  return slots;
}
