import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { filled, lineOf, NOT_RUN, RELIABILITY_ROWS } from "./reliability.ts";
import { ROOT } from "./report-page.ts";

test.each([...RELIABILITY_ROWS])("the test of $file that proves a row is there: $what", (row) => {
  expect(readFileSync(join(ROOT, "tests", row.file), "utf8")).toContain(row.test);
});

test("the page has the line of each row and no other, and none that failed or was skipped", () => {
  const page = readFileSync(join(ROOT, "docs", "reliability.md"), "utf8");
  const expected = RELIABILITY_ROWS.map((row) => lineOf(row, "FIGURES", "RESULT"));
  const lines = page.split("\n").filter((line) => line.endsWith(".test.ts` |"));
  const cells = new RegExp(`^((?:\\| [^|]+ ){2}\\|) [^|]*\\| (passed|${NOT_RUN}) \\|`);
  expect(lines.map((line) => line.replace(cells, "$1 FIGURES | RESULT |"))).toEqual(expected);
});

test("each promise of the page has a row", () => {
  const page = readFileSync(join(ROOT, "docs", "reliability.md"), "utf8");
  const promises = [...page.matchAll(/^(\d+)\. \*\*/gm)].map(([, number]) => Number(number));
  expect([...new Set(RELIABILITY_ROWS.map(({ promise }) => promise))]).toEqual(promises);
});

test("figures stand in the place of their names, and one that is missing is an error", () => {
  expect(filled("{turns} turns, x {ratio}", { turns: 107, ratio: 1.0392 })).toBe(
    "107 turns, x 1.04",
  );
  expect(() => filled("{turns} turns", {})).toThrow("there is no figure turns");
});
