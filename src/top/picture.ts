/**
 * The picture of all disks, as lines: pure, so that it is the same on a terminal, in a pipe and in a test.
 *
 *   title                                     pinned
 *   names of the columns                      pinned
 *   per disk: its socket and state, its queues, their sum, its limits and fetch      scrolls
 *   sum of all disks, where there are several pinned
 *   keys                                      pinned; on a live screen only
 */
import {
  bytesPerSecond,
  operationsPerSecond,
  rowSpans,
  type Table,
  type TableRow,
  tableFor,
  titleSpans,
} from "./columns.ts";
import type { DiskView } from "./disk-watcher.ts";
import { fetchLines } from "./fetch-lines.ts";
import { percentileNs } from "./histogram.ts";
import { printable } from "./json-reader.ts";
import { limitLines } from "./limit-lines.ts";
import { countText, durationText, latencyText } from "./quantity.ts";
import { type LoadSample, sumOfSamples } from "./sample.ts";
import { lineLength, type StyledLine, span } from "./styled-line.ts";

/** What rows are ordered by; all but `queue` put the largest first. */
export const SORT_ORDERS = ["queue", "iops", "throughput", "latency", "in flight"] as const;

export type SortOrder = (typeof SORT_ORDERS)[number];

export interface Picture {
  readonly disks: readonly DiskView[];
  readonly intervalSeconds: number;
  /** The time of day. */
  readonly clock: string;
  readonly sort: SortOrder;
  /** Beside the title, such as that the view is paused; empty for nothing. */
  readonly note: string;
}

export interface ScreenSize {
  readonly columns: number;
  readonly rows: number;
}

/** What a screen shows: lines, and how far the middle part can be scrolled. */
export interface Screen {
  readonly lines: readonly StyledLine[];
  readonly scrollMax: number;
}

/** Everything, however long: for a pipe or a file. */
export function wholePicture(picture: Picture, columns: number): readonly StyledLine[] {
  const table = tableFor(columns);
  const parts = bodyAndSum(picture, table, columns);
  return [titleLine(picture), titleSpans(table), ...parts.body, ...parts.sum];
}

/** As much as fits, with the keys below. */
export function screenPicture(picture: Picture, size: ScreenSize, scroll: number): Screen {
  const table = tableFor(size.columns);
  const { body, sum } = bodyAndSum(picture, table, size.columns);
  const room = Math.max(1, size.rows - 3 - sum.length);
  const scrollMax = Math.max(0, body.length - room);
  const first = Math.min(scroll, scrollMax);
  const shown = body.slice(first, first + room);
  const blank = Array.from({ length: room - shown.length }, () => []);
  const hidden = body.length - shown.length;
  const lines = [
    titleLine(picture),
    [
      span(
        titleSpans(table)
          .map(({ text }) => text)
          .join("")
          .padEnd(size.columns),
        "bar",
      ),
    ],
    ...shown,
    ...blank,
    ...sum,
    keysLine(hidden),
  ];
  return { lines: lines.slice(0, size.rows), scrollMax };
}

/** What the keys do, in place of the disks. */
export function helpPicture(picture: Picture, size: ScreenSize): Screen {
  const lines = [titleLine(picture), [], ...HELP.map((line) => [span(line)])];
  return { lines: lines.slice(0, size.rows), scrollMax: 0 };
}

// --- internal ---

/** A request in flight for longer is pointed out: the storage below may be stuck. */
const SLOW_REQUEST_NS = 5e9;
/** Characters of a socket's path that are shown in any case. */
const PATH_MIN = 12;
const RESTART_SHOWN_SECONDS = 60;
const REASON_INDENT = "  ";

const HELP = [
  "  q, Ctrl-C         quit",
  "  p, space          pause: the picture stands still, measuring goes on",
  "  s                 sort by queue, iops, throughput, latency, in flight",
  "  up, down, k, j    scroll by a line",
  "  PgUp, PgDn        scroll by a page",
  "  h, ?              this help; any key leaves it",
  "",
  "  Rates and latencies are those of the last interval. A latency is the one",
  "  that half (p50) or 99 % (p99) of the requests stayed below.",
  '  "-" is what is not known: nothing of the kind ended, or nobody tells it.',
];

function titleLine({ disks, intervalSeconds, clock, sort, note }: Picture): StyledLine {
  const queues = disks.reduce((sum, disk) => sum + disk.queues.length, 0);
  const known = disks.filter(
    ({ state, version }) => state === "connecting" || version !== undefined,
  );
  const others = disks.length - known.length;
  const parts = [
    `${counted(known.length, "disk")}, ${counted(queues, "queue")}` +
      (others > 0 ? `, ${counted(others, "other socket")}` : ""),
    `every ${Number(intervalSeconds.toFixed(3))}s`,
    ...(sort === "queue" ? [] : [`by ${sort}`]),
    clock,
  ];
  return [
    span("ubiblk top", "bold"),
    span(`  ${parts.join("  ")}`),
    ...(note === "" ? [] : [span("  "), span(note, "warn")]),
  ];
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function keysLine(hiddenLines: number): StyledLine {
  const keys = span("q quit  p pause  s sort  h help", "dim");
  return hiddenLines > 0
    ? [keys, span(`  ${counted(hiddenLines, "line")} more: up, down`, "warn")]
    : [keys];
}

interface Parts {
  readonly body: readonly StyledLine[];
  readonly sum: readonly StyledLine[];
}

function bodyAndSum(picture: Picture, table: Table, columns: number): Parts {
  const disks = sorted(picture.disks, picture.sort, (disk) => sumOfSamples(disk.queues));
  const bytesMax = Math.max(
    0,
    ...disks.map(({ queues }) => bytesPerSecond(sumOfSamples(queues).rates ?? {})),
  );
  const body = disks.flatMap((disk, index) => [
    ...(index > 0 ? [[]] : []),
    ...diskLines(disk, columns),
    ...loadRows(disk, picture.sort).map((row) => rowSpans(row, table, bytesMax)),
    ...limitLines(disk.limits, disk.queues),
    ...(disk.fetch === undefined ? [] : fetchLines(disk.fetch, columns)),
  ]);
  const all = { name: "total", load: sumOfSamples(disks.flatMap((disk) => disk.queues)) };
  return { body, sum: disks.length > 1 ? [[], rowSpans(all, table, 0)] : [] };
}

/** The queues of a disk, and their sum where there are several. */
function loadRows(disk: DiskView, sort: SortOrder): readonly TableRow[] {
  const queues = disk.queues.map((load, index) => ({ name: `${index}`.padStart(5), load }));
  const rows = sorted(queues, sort, (row) => row.load);
  return rows.length > 1 ? [...rows, { name: "  all", load: sumOfSamples(disk.queues) }] : rows;
}

/** A reason that does not fit goes below, over as many lines as it takes. */
function diskLines(disk: DiskView, columns: number): readonly StyledLine[] {
  const whole = diskLine(disk, columns);
  if (disk.reason === undefined || lineLength(whole) <= columns) {
    return [whole];
  }
  const below = wrapped(printable(disk.reason), columns - REASON_INDENT.length);
  return [
    diskLine({ ...disk, reason: undefined }, columns),
    ...below.map((text) => [span(REASON_INDENT + text, "bad")]),
  ];
}

/** Cut between words; a word that is longer than a line is left as it is. */
function wrapped(text: string, columns: number): readonly string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`;
    if (lines.length > 0 && [...longer].length <= columns) {
      lines[lines.length - 1] = longer;
    } else {
      lines.push(word);
    }
  }
  return lines;
}

/** A path that is too long loses its beginning, so that what is told behind it is seen. */
function diskLine(disk: DiskView, columns: number): StyledLine {
  const version = disk.version === undefined ? "" : `  ${disk.version}`;
  const facts = [span(version, "dim"), ...stateSpans(disk), ...troubleSpans(disk)];
  const room = Math.max(PATH_MIN, columns - lineLength(facts));
  const path = [...printable(disk.socket)];
  const shown = path.length > room ? ["...", ...path.slice(path.length - room + 3)] : path;
  return [span(shown.join(""), "bold"), ...facts];
}

function stateSpans(disk: DiskView): StyledLine {
  const { state, restartedSecondsAgo: agoSeconds } = disk;
  switch (state) {
    case "connecting":
      return [span("  connecting", "dim")];
    case "live":
      return agoSeconds !== undefined && agoSeconds < RESTART_SHOWN_SECONDS
        ? [span(`  restarted ${durationText(agoSeconds)} ago`, "warn")]
        : [];
    case "stuck":
    case "away": {
      const since = `${state} for ${durationText(disk.silentSeconds ?? 0)}`;
      const why = disk.reason === undefined ? "" : `: ${printable(disk.reason)}`;
      return [span(`  ${since}${why}`, "bad")];
    }
  }
}

/** What a narrow screen has no column for, and what nobody should miss. */
function troubleSpans({ queues }: DiskView): StyledLine {
  const { rates, oldestInFlightNs: oldestNs = 0, stopped = 0 } = sumOfSamples(queues);
  const failed = rates?.failed ?? 0;
  return [
    ...(stopped > 0 ? [span(`  ${counted(stopped, "queue")} stopped`, "bad")] : []),
    ...(failed > 0 ? [span(`  ${countText(failed)} failed/s`, "bad")] : []),
    ...(oldestNs > SLOW_REQUEST_NS
      ? [span(`  a request takes ${latencyText(oldestNs)}`, "bad")]
      : []),
  ];
}

/** A new array in the wanted order; equal ones stay in theirs. */
function sorted<Item>(
  items: readonly Item[],
  order: SortOrder,
  loadOf: (item: Item) => LoadSample,
): readonly Item[] {
  return order === "queue"
    ? items
    : items.toSorted((a, b) => weightOf(loadOf(b), order) - weightOf(loadOf(a), order));
}

function weightOf(load: LoadSample, order: Exclude<SortOrder, "queue">): number {
  switch (order) {
    case "iops":
      return operationsPerSecond(load.rates ?? {});
    case "throughput":
      return bytesPerSecond(load.rates ?? {});
    case "latency":
      return Math.max(
        percentileNs(load.histograms.read, 0.99) ?? 0,
        percentileNs(load.histograms.write, 0.99) ?? 0,
      );
    case "in flight":
      return load.inFlight ?? 0;
  }
}
