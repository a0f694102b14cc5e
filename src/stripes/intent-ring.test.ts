import { expect, test } from "bun:test";
import { Intent, IntentRing } from "./intent-ring.ts";

test("entries arrive in order; a full ring takes none until one was taken", () => {
  const shared = new SharedArrayBuffer(IntentRing.sharedBytes(2));
  const writer = new IntentRing(shared);
  const reader = new IntentRing(shared);
  expect(writer.push(Intent.fetch, 7, 1, 0)).toBe(true);
  expect(writer.push(Intent.changed, 2 ** 32 - 2, 3, -1)).toBe(true);
  expect(writer.push(Intent.fetch, 9, 1, 0)).toBe(false);
  expect([reader.waiting(), reader.intent, reader.stripe]).toEqual([2, Intent.fetch, 7]);
  reader.shift(1);
  expect(writer.push(Intent.fetch, 9, 1, 0)).toBe(true);
  expect([reader.stripe, reader.count, reader.baseFailures]).toEqual([2 ** 32 - 2, 3, -1]);
});

test("a run is taken in parts", () => {
  const ring = new IntentRing(new SharedArrayBuffer(IntentRing.sharedBytes(1)));
  ring.push(Intent.changed, 10, 5, 0);
  ring.shift(2);
  expect([ring.waiting(), ring.stripe, ring.count]).toEqual([1, 12, 3]);
  ring.shift(3);
  expect(ring.waiting()).toBe(0);
});

test("more entries than fit, one after another", () => {
  const ring = new IntentRing(new SharedArrayBuffer(IntentRing.sharedBytes(4)));
  for (let stripe = 0; stripe < 1000; stripe++) {
    expect(ring.push(Intent.fetch, stripe, 1, 0)).toBe(true);
    expect(ring.stripe).toBe(stripe);
    ring.shift(1);
  }
});
