/** Which objects need not be written. */
import { expect, test } from "bun:test";
import { belowOnce } from "../../tests/support/until.ts";
import { HashList, ObjectNames } from "./object-names.ts";

/** Hashes that begin alike meet in the tables. */
const hashOf = (first: number, last: number) => {
  const hash = new Uint8Array(32);
  hash[0] = first;
  hash[31] = last;
  return hash;
};

test("of stripes with equal hashes one writes the object, those with others write theirs", () => {
  const hashes = [hashOf(1, 1), hashOf(1, 2), hashOf(1, 1), hashOf(1, 2), hashOf(2, 1)];
  const names = ObjectNames.create(hashes.length, new HashList());
  const other = ObjectNames.attach(names.shared);
  const claims = hashes.map((hash, stripe) =>
    (stripe % 2 === 0 ? names : other).claim(stripe, hash, (owner) =>
      hash.every((byte, i) => byte === hashes[owner]?.[i]),
    ),
  );
  expect(claims).toEqual([true, true, false, false, true]);
});

test("as many claims as stripes fit, whatever the hashes are", () => {
  const names = ObjectNames.create(1000, new HashList());
  for (let stripe = 0; stripe < 1000; stripe += 1) {
    expect(names.claim(stripe, hashOf(stripe % 3, 0), () => false)).toBe(true);
  }
});

test("objects that were there are known by all of their hash", () => {
  const list = new HashList();
  for (let i = 0; i < 3000; i += 1) {
    list.add(
      Uint8Array.of(...hashOf(i % 256, 1).slice(0, 24), 0, 0, 0, 0, 0, i >> 8, i & 255, 1).toHex(),
    );
  }
  const names = ObjectNames.attach(ObjectNames.create(0, list).shared);
  expect(list.count).toBe(3000);
  expect(Array.from({ length: 3000 }, (_, i) => names.isExisting(list.at(i)))).not.toContain(false);
  const near = list.at(5).slice();
  near[31] = 2;
  expect(names.isExisting(near)).toBe(false);
});

test("names chosen to begin alike do not slow the tables down", async () => {
  const list = new HashList();
  const count = 60_000;
  const hash = new Uint8Array(32);
  const view = new DataView(hash.buffer);
  for (let i = 0; i < count; i += 1) {
    view.setUint32(20, i + 1);
    list.add(hash.toHex());
  }
  const takenMs = async () => {
    const startMs = performance.now();
    const names = ObjectNames.create(count, list);
    let found = 0;
    for (let i = 0; i < count; i += 1) {
      found += names.isExisting(list.at(i)) ? 1 : 0;
      found += names.claim(i, list.at(i), () => false) ? 1 : 0;
    }
    expect(found).toBe(2 * count);
    return performance.now() - startMs;
  };
  expect(await belowOnce(2_000, takenMs)).toBeLessThan(2_000); // in one place: thousands of millions of steps
});

test("nothing is there when nothing was listed", () => {
  expect(ObjectNames.create(4, new HashList()).isExisting(hashOf(0, 0))).toBe(false);
});
