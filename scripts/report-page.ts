/** Tables of documents that are made from the reports of a test run: a row names the test that proves it. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Outcome, parseReport, type TestCase } from "./test-report.ts";

export const ROOT = resolve(import.meta.dir, "..");

export interface ProvenRow {
  /** In tests/. */
  readonly file: string;
  /** The whole name, or of a table of tests what is the same in all of them. */
  readonly test: string;
}

/** How the tests of a row ended; undefined when none ran. All of a table of tests must have passed. */
export function outcomeOf(row: ProvenRow, cases: readonly TestCase[]): Outcome | undefined {
  const outcomes = cases.filter(({ name }) => name.includes(row.test)).map((each) => each.outcome);
  return (["failed", "skipped", "passed"] as const).find((each) => outcomes.includes(each));
}

/** How they ended in the last run; undefined when none of them ran. */
export function lastOutcomeOf(row: ProvenRow): Outcome | undefined {
  const report = join(ROOT, "build", "test", `tests-${row.file.replaceAll("/", "-")}.xml`);
  const cases = existsSync(report) ? parseReport(readFileSync(report, "utf8")) : [];
  return outcomeOf(row, cases);
}

/**
 * The page with other tables.
 * @param script the npm script between whose lines they stand
 * @throws Error when the page has no place for them
 */
export function pageWith(page: string, script: string, tables: string): string {
  const begin = `<!-- made by npm run ${script}: begin -->\n`;
  const end = `<!-- made by npm run ${script}: end -->\n`;
  const [before, rest] = page.split(begin);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) {
    throw new Error("the lines that say where the tables begin and end are missing");
  }
  return `${before}${begin}${tables}${end}${after}`;
}
