import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { COMPATIBILITY_ROWS, lineOf } from "./compatibility.ts";
import { outcomeOf, pageWith, ROOT } from "./report-page.ts";

const [ROW] = COMPATIBILITY_ROWS;

test.each([...COMPATIBILITY_ROWS])("the test of $file that proves a row is there: $what", (row) => {
  expect(readFileSync(join(ROOT, "tests", row.file), "utf8")).toContain(row.test);
});

test("the page has the line of each row, each passed, and no other", () => {
  const page = readFileSync(join(ROOT, "docs", "compatibility.md"), "utf8");
  const expected = COMPATIBILITY_ROWS.map((row) => lineOf(row, "VERSION", "passed"));
  const lines = page.split("\n").filter((line) => line.endsWith(".test.ts` |"));
  const found = lines.map((line) => line.replace(/^(\| [^|]+ \|) [\d.]+ \|/, "$1 VERSION |"));
  expect(found).toEqual(expected);
});

test("a row whose tests did not all pass has not passed", () => {
  const name = ROW?.test ?? "";
  const passed = { name: `a ${name}`, outcome: "passed" } as const;
  const failed = { name: `b ${name}`, outcome: "failed" } as const;
  expect(ROW && outcomeOf(ROW, [passed])).toBe("passed");
  expect(ROW && outcomeOf(ROW, [passed, failed])).toBe("failed");
  expect(ROW && outcomeOf(ROW, [])).toBeUndefined();
});

test("only the tables of the page are replaced", () => {
  const page = readFileSync(join(ROOT, "docs", "compatibility.md"), "utf8");
  const emptied = pageWith(page, "compatibility", "");
  expect(emptied).not.toContain(".test.ts` |");
  const tables = page.slice(
    page.indexOf("| peer |"),
    page.indexOf("<!-- made by npm run compatibility: end"),
  );
  expect(pageWith(emptied, "compatibility", tables)).toBe(page);
});
