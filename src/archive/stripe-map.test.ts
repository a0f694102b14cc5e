import { expect, test } from "bun:test";
import { StripeMap } from "./stripe-map.ts";

const hashOf = (byte: number) => new Uint8Array(32).fill(byte);

test("a new map has no stripe", () => {
  const map = StripeMap.create(3);
  expect(map.stripeEnd).toBe(3);
  expect([0, 1, 2].map((stripe) => map.kind(stripe))).toEqual(["absent", "absent", "absent"]);
  expect(StripeMap.create(0).stripeEnd).toBe(0);
});

test("stripes are zero or stored with their hashes, in any order", () => {
  const map = StripeMap.create(4);
  map.setStored(3, hashOf(0xab));
  map.setZero(0);
  map.setStored(1, Uint8Array.of(0xff, 0xff, ...hashOf(0x01)), 2);
  const kinds = [0, 1, 2, 3].map((stripe) => map.kind(stripe));
  expect(kinds).toEqual(["zero", "stored", "absent", "stored"]);
  expect(map.hashHex(3)).toBe("ab".repeat(32));
  expect(map.hash(1)).toEqual(hashOf(1));
});

test("a stripe that changes keeps its last value and takes no more room", () => {
  const map = StripeMap.create(1, 1);
  map.setStored(0, hashOf(1));
  map.setStored(0, hashOf(2));
  expect(map.hash(0)).toEqual(hashOf(2));
  map.setZero(0);
  expect(map.kind(0)).toBe("zero");
});

test("an attached map is the same map", () => {
  const map = StripeMap.create(2);
  const attached = StripeMap.attach(structuredClone(map.shared));
  attached.setStored(1, hashOf(7));
  expect(map.hash(1)).toEqual(hashOf(7));
  expect(attached.stripeEnd).toBe(2);
});

test("a stripe outside the map, and a hash of a stripe that is not stored, are mistakes of the caller", () => {
  const map = StripeMap.create(2, 1);
  expect(() => map.kind(2)).toThrow("lies in its map");
  expect(() => map.kind(-1)).toThrow("not negative");
  expect(() => map.setZero(2)).toThrow("lies in its map");
  expect(() => map.hash(0)).toThrow("only a stored stripe");
  expect(() => map.setStored(0, new Uint8Array(31))).toThrow("32 bytes");
  map.setStored(0, hashOf(1));
  expect(() => map.setStored(1, hashOf(2))).toThrow("room for its hashes");
});

test("more stripes than there can be memory for are an error for the user", () => {
  expect(() => StripeMap.create(2 ** 50)).toThrow(expect.objectContaining({ code: "E_MEMORY" }));
});
