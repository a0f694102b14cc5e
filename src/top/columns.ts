/**
 * The columns of the table of queues. The wider the terminal, the more of them: each has a rank, and all
 * of a rank are shown as soon as they fit. At 80 columns that is everything of rank 0.
 */
import { type LatencyOperation, percentileNs } from "./histogram.ts";
import { bytesText, countText, latencyText } from "./quantity.ts";
import type { Counters } from "./reading.ts";
import type { LoadSample } from "./sample.ts";
import { type Span, type Style, span } from "./styled-line.ts";

/** One row: a queue, or several together. */
export interface TableRow {
  readonly name: string;
  readonly load: LoadSample;
}

interface TableColumn {
  readonly title: string;
  readonly width: number;
  readonly rank: number;
  readonly style?: Style;
  readonly text: (load: LoadSample) => string | undefined;
}

/** What a screen of some width shows. */
export interface Table {
  readonly columns: readonly TableColumn[];
  /** Cells of the bar at the end; 0 for none. */
  readonly barWidth: number;
}

/** Reads, writes and other operations by second. */
export function operationsPerSecond(rates: Counters): number {
  const { read_ops, write_ops, flush_ops, discard_ops, write_zeroes_ops } = rates;
  return [read_ops, write_ops, flush_ops, discard_ops, write_zeroes_ops].reduce<number>(
    (sum, rate) => sum + (rate ?? 0),
    0,
  );
}

export function bytesPerSecond(rates: Counters): number {
  return (rates.bytes_read ?? 0) + (rates.bytes_written ?? 0);
}

/** The columns that fit, in order; a bar takes what is left where that is enough. */
export function tableFor(screenColumns: number): Table {
  let columns: readonly TableColumn[] = [];
  for (const rank of new Set(COLUMNS.map((column) => column.rank))) {
    const more = COLUMNS.filter((column) => column.rank <= rank);
    if (rank > 0 && widthOf(more) > screenColumns - (rank > BAR_RANK ? BAR_MIN + 1 : 0)) {
      break;
    }
    columns = more;
  }
  const left = screenColumns - widthOf(columns) - 1;
  const isAllShown = columns.some((column) => column.rank >= BAR_RANK);
  return { columns, barWidth: isAllShown && left >= BAR_MIN ? Math.min(left, BAR_MAX) : 0 };
}

export function titleSpans({ columns, barWidth }: Table): readonly Span[] {
  const titles = columns.map(({ title, width }) => title.padStart(width));
  const bar = barWidth === 0 ? "" : ` ${"= read  # write".slice(0, barWidth)}`;
  return [
    span(`${"queue".padEnd(NAME_WIDTH)}${titles.map((title) => ` ${title}`).join("")}${bar}`),
  ];
}

/** One row; its bar is full at `bytesMax` bytes per second. */
export function rowSpans(row: TableRow, table: Table, bytesMax: number): readonly Span[] {
  const { load } = row;
  const spans = [span(row.name.slice(0, NAME_WIDTH).padEnd(NAME_WIDTH), "bold")];
  for (const { width, style, text } of table.columns) {
    const shown = text(load);
    const padded = ` ${(shown ?? "-").padStart(width)}`;
    const isNothing = shown === undefined || shown === "0" || shown === "0 B";
    spans.push(span(padded, isNothing ? "dim" : (style ?? "plain")));
  }
  if (table.barWidth > 0 && load.rates !== undefined && bytesMax > 0) {
    const scale = table.barWidth / bytesMax;
    const reads = Math.round((load.rates.bytes_read ?? 0) * scale);
    const all = Math.round(bytesPerSecond(load.rates) * scale);
    spans.push(span(` ${"=".repeat(reads)}`, "read"), span("#".repeat(all - reads), "write"));
  }
  return spans;
}

// --- internal ---

const NAME_WIDTH = 5;
/** The bar comes before the columns of a higher rank. */
const BAR_RANK = 3;
const BAR_MIN = 10;
const BAR_MAX = 30;

const COLUMNS: readonly TableColumn[] = [
  rate("iops", 6, 0, operationsPerSecond),
  rate("rd iops", 7, 1, (rates) => rates.read_ops),
  rate("wr iops", 7, 1, (rates) => rates.write_ops),
  rate("fl iops", 7, 1, (rates) => rates.flush_ops),
  { ...byteRate("read/s", (rates) => rates.bytes_read), style: "read" },
  { ...byteRate("write/s", (rates) => rates.bytes_written), style: "write" },
  { title: "avg size", width: 8, rank: 2, text: averageSize },
  latency("rd p50", 0, "read", 0.5),
  latency("rd p99", 0, "read", 0.99),
  latency("wr p50", 0, "write", 0.5),
  latency("wr p99", 0, "write", 0.99),
  latency("fl p50", 3, "flush", 0.5),
  latency("fl p99", 3, "flush", 0.99),
  { title: "inflight", width: 8, rank: 0, text: ({ inFlight }) => known(inFlight, countText) },
  {
    title: "oldest",
    width: 6,
    rank: 2,
    text: ({ oldestInFlightNs }) => known(oldestInFlightNs, latencyText),
  },
  { ...rate("failed/s", 8, 2, (rates) => rates.failed), style: "bad" },
  rate("disc/s", 6, 4, ({ discard_ops: discards, write_zeroes_ops: zeroes }) =>
    discards === undefined && zeroes === undefined ? undefined : (discards ?? 0) + (zeroes ?? 0),
  ),
  rate("kicks/s", 7, 4, (rates) => rates.kicks),
  rate("calls/s", 7, 4, (rates) => rates.calls),
  total("read", (totals) => totals.bytes_read),
  total("written", (totals) => totals.bytes_written),
];

function widthOf(columns: readonly TableColumn[]): number {
  return columns.reduce((sum, { width }) => sum + 1 + width, NAME_WIDTH);
}

function known(value: number | undefined, text: (value: number) => string): string | undefined {
  return value === undefined ? undefined : text(value);
}

function rate(
  title: string,
  width: number,
  rank: number,
  value: (rates: Counters) => number | undefined,
): TableColumn {
  const text = ({ rates }: LoadSample) => known(rates && value(rates), countText);
  return { title, width, rank, text };
}

function byteRate(title: string, value: (rates: Counters) => number | undefined): TableColumn {
  const text = ({ rates }: LoadSample) => known(rates && value(rates), bytesText);
  return { title, width: 8, rank: 0, text };
}

function total(title: string, value: (totals: Counters) => number | undefined): TableColumn {
  return { title, width: 8, rank: 5, text: ({ totals }) => known(value(totals), bytesText) };
}

function latency(
  title: string,
  rank: number,
  operation: LatencyOperation,
  fraction: number,
): TableColumn {
  const text = ({ histograms }: LoadSample) =>
    known(percentileNs(histograms[operation], fraction), latencyText);
  return { title, width: 6, rank, text };
}

function averageSize({ rates }: LoadSample): string | undefined {
  const operations = (rates?.read_ops ?? 0) + (rates?.write_ops ?? 0);
  return rates === undefined || operations === 0
    ? undefined
    : bytesText(bytesPerSecond(rates) / operations);
}
