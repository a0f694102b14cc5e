import { expect, test } from "bun:test";
import fc from "fast-check";
import { GuestMemory, type GuestRegion, REGIONS_MAX } from "./guest-memory.ts";

test("guest memory: an empty table holds no address", () => {
  const memory = loaded([]);
  expect(memory.find(0)).toBe(-1);
  expect(memory.translate(0, 1)).toBe(-1);
});

test("guest memory: the first and last byte of a region are inside, their neighbours are not", () => {
  const memory = loaded([{ guestAddress: 0x1000, sizeBytes: 0x100, hostAddress: 0x7000_0000 }]);
  expect(memory.translate(0xfff, 1)).toBe(-1);
  expect(memory.translate(0x1000, 1)).toBe(0x7000_0000);
  expect(memory.translate(0x10ff, 1)).toBe(0x7000_00ff);
  expect(memory.translate(0x1100, 1)).toBe(-1);
});

test("guest memory: a range that leaves its region is not translated, even into a neighbour", () => {
  const memory = loaded([
    { guestAddress: 0x1000, sizeBytes: 0x1000, hostAddress: 0x7000_0000 },
    { guestAddress: 0x2000, sizeBytes: 0x1000, hostAddress: 0x9000_0000 },
  ]);
  expect(memory.translate(0x1000, 0x1000)).toBe(0x7000_0000);
  expect(memory.translate(0x1000, 0x1001)).toBe(-1);
  expect(memory.bytesLeft(memory.find(0x1ff0), 0x1ff0)).toBe(0x10);
});

test("guest memory: addresses that no number holds exactly are outside", () => {
  const memory = loaded([{ guestAddress: 0, sizeBytes: 2 ** 40, hostAddress: 0x7000_0000 }]);
  expect(memory.find(2 ** 64 - 1)).toBe(-1);
  expect(memory.find(2 ** 53)).toBe(-1);
});

test("guest memory: a new table replaces the old one and what was remembered of it", () => {
  const shared = new Float64Array(GuestMemory.sharedWords());
  const memory = new GuestMemory();
  GuestMemory.store(shared, [{ guestAddress: 0x1000, sizeBytes: 16, hostAddress: 0x100 }]);
  memory.load(shared);
  expect(memory.translate(0x1000, 16)).toBe(0x100);
  GuestMemory.store(shared, []);
  memory.load(shared);
  expect(memory.translate(0x1000, 16)).toBe(-1);
});

test("guest memory: finds what a linear search finds, in tables of any size and order", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 5000 }), { maxLength: REGIONS_MAX });
  const gaps = fc.array(fc.integer({ min: 0, max: 3 }), {
    minLength: REGIONS_MAX,
    maxLength: REGIONS_MAX,
  });
  fc.assert(
    fc.property(sizes, gaps, fc.array(fc.nat(3_000_000)), (sizeList, gapList, addresses) => {
      const regions = placed(sizeList, gapList);
      const memory = loaded(regions.toReversed());
      for (const address of addresses) {
        const expected = regions.find(
          (region) =>
            address >= region.guestAddress && address < region.guestAddress + region.sizeBytes,
        );
        const host =
          expected === undefined ? -1 : expected.hostAddress + address - expected.guestAddress;
        expect(memory.translate(address, 1)).toBe(host);
      }
    }),
  );
});

// --- internal ---

function loaded(regions: readonly GuestRegion[]): GuestMemory {
  const shared = new Float64Array(GuestMemory.sharedWords());
  GuestMemory.store(shared, regions);
  const memory = new GuestMemory();
  memory.load(shared);
  return memory;
}

/** Regions one after another with gaps, which may be empty. */
function placed(sizes: readonly number[], gaps: readonly number[]): readonly GuestRegion[] {
  let at = 0;
  return sizes.map((sizeBytes, i) => {
    const guestAddress = at + (gaps[i] ?? 0);
    at = guestAddress + sizeBytes;
    return { guestAddress, sizeBytes, hostAddress: 2 ** 40 + i * 2 ** 20 };
  });
}
