import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Pattern, readStamp, SECTOR_WORDS } from "./pattern.ts";

const sector = fc.nat(2 ** 40);
const generation = fc.nat(2 ** 32 - 1);

describe("pattern", () => {
  test("what was filled has no difference, and tells sector and generation", () => {
    fc.assert(
      fc.property(fc.nat(2 ** 32 - 1), sector, generation, (seed, where, when) => {
        const words = new Uint32Array(SECTOR_WORDS * 2);
        new Pattern(seed).fill(words, SECTOR_WORDS, where, when);
        expect(new Pattern(seed).firstDifference(words, SECTOR_WORDS, where, when)).toBe(-1);
        expect(readStamp(words, SECTOR_WORDS)).toEqual({ sector: where, generation: when });
      }),
    );
  });

  test("a change of any single bit is found at its word", () => {
    fc.assert(
      fc.property(fc.nat(SECTOR_WORDS - 1), fc.nat(31), (word, bit) => {
        const words = new Uint32Array(SECTOR_WORDS);
        const pattern = new Pattern(1);
        pattern.fill(words, 0, 77, 3);
        words[word] = (words[word] ?? 0) ^ (1 << bit);
        expect(pattern.firstDifference(words, 0, 77, 3)).toBe(word);
      }),
    );
  });

  test("other seeds, sectors and generations differ behind the stamp too", () => {
    const words = new Uint32Array(SECTOR_WORDS);
    new Pattern(1).fill(words, 0, 5, 9);
    expect(new Pattern(2).firstDifference(words, 0, 5, 9)).toBe(4);
    words[1] = 6;
    expect(new Pattern(1).firstDifference(words, 0, 6, 9)).toBe(4);
  });

  test("a foreign sector has no stamp", () => {
    expect(readStamp(new Uint32Array(SECTOR_WORDS), 0)).toBeUndefined();
  });
});
