import { expect, test } from "bun:test";
import fc from "fast-check";
import { runsInShort, runText, stripeRuns } from "./stripe-runs.ts";

test.each([
  { stripes: [], text: "" },
  { stripes: [0], text: "0" },
  { stripes: [3, 4], text: "3, 4" },
  { stripes: [3, 4, 5], text: "3-5" },
  { stripes: [0, 1, 2, 4, 5, 7], text: "0-2, 4, 5, 7" },
  { stripes: [9], text: "9" },
])("stripes $stripes are written as $text", ({ stripes, text }) => {
  const flags = new Uint8Array(10);
  for (const stripe of stripes) {
    flags[stripe] = 1;
  }
  expect([...stripeRuns(flags, 1)].map(runText).join(", ")).toBe(text);
});

test("runs hold exactly the stripes with the flag", () => {
  fc.assert(
    fc.property(fc.uint8Array({ max: 7 }), fc.constantFrom(1, 2, 4), (flags, flag) => {
      const found = [...stripeRuns(flags, flag)].flatMap(({ first, last }) =>
        Array.from({ length: last - first + 1 }, (_, i) => first + i),
      );
      const expected = [...flags.keys()].filter((stripe) => ((flags[stripe] ?? 0) & flag) !== 0);
      expect(found).toEqual(expected);
    }),
  );
});

test("a long list is cut for a message", () => {
  const flags = Uint8Array.from({ length: 100 }, (_, i) => i % 2);
  expect(runsInShort(flags, 1, 3)).toBe("1, 3, 5 and others");
  expect(runsInShort(flags.subarray(0, 6), 1, 3)).toBe("1, 3, 5");
});
