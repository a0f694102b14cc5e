/** What a row of the benchmark found, and how it is printed. */

/** One comparison: a figure of ours beside a peer's or beside a limit. */
export interface ResultLine {
  readonly what: string;
  readonly ours: string;
  readonly peer: string;
  readonly ratio: string;
  readonly goal: string;
  /** Undefined where nothing is asked for. */
  readonly isMet: boolean | undefined;
}

export interface RowResult {
  readonly id: string;
  readonly title: string;
  readonly lines: readonly ResultLine[];
  /** Everything measured, for the JSON file. */
  readonly details: unknown;
}

export interface Row {
  readonly id: string;
  readonly title: string;
  readonly run: (options: RowOptions) => Promise<RowResult>;
}

export interface RowOptions {
  /** Samples of each participant; the median counts. */
  readonly repetitions: number;
  /** Of one sample. */
  readonly seconds: number;
  readonly note: (text: string) => void;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const upper = sorted[Math.floor(middle)] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** Three significant digits: more would be noise. */
export function shortNumber(value: number): string {
  if (!Number.isFinite(value)) {
    return "-";
  }
  const size = Math.abs(value);
  if (size >= 1_000_000) {
    return `${threeDigits(value / 1_000_000)} M`;
  }
  return size >= 10_000 ? `${threeDigits(value / 1000)} k` : threeDigits(value);
}

/** All rows as one table, with a closing count of the goals that were missed. */
export function formatTable(results: readonly RowResult[]): string {
  const heading = ["", "ours", "peer", "ratio", "goal", ""];
  const cells = results.flatMap((result) => [
    [result.title, "", "", "", "", ""],
    ...result.lines.map((line) => [
      `  ${line.what}`,
      line.ours,
      line.peer,
      line.ratio,
      line.goal,
      line.isMet === undefined ? "" : line.isMet ? "ok" : "MISSED",
    ]),
  ]);
  const widths = heading.map((_, column) =>
    Math.max(
      ...[heading, ...cells]
        .filter((row) => row[1] !== "" || row[4] !== "")
        .map((row) => row[column]?.length ?? 0),
    ),
  );
  const text = [heading, ...cells].map((row) =>
    row
      .map((cell, column) => pad(cell, widths[column] ?? 0, column))
      .join("  ")
      .trimEnd(),
  );
  const goals = results
    .flatMap((result) => result.lines)
    .filter((line) => line.isMet !== undefined);
  const missed = goals.filter((line) => line.isMet === false).length;
  return [...text, "", `${goals.length - missed} of ${goals.length} goals reached`].join("\n");
}

// --- internal ---

function threeDigits(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function pad(cell: string, width: number, column: number): string {
  return column === 0 || column >= 4 ? cell.padEnd(width) : cell.padStart(width);
}
