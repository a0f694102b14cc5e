/**
 * `npm run reliability`, after `npm test` or `npm run test:long`: writes the table of docs/reliability.md from the reports of
 * that run and from figures that tests left in build/figures. What the run did not find stays as it was.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lastOutcomeOf, type ProvenRow, pageWith, ROOT } from "./report-page.ts";

const PAGE = join(ROOT, "docs", "reliability.md");

export interface ReliabilityRow extends ProvenRow {
  /** Of the page. */
  readonly promise: number;
  readonly what: string;
  /** What is told of build/figures/NAME.json: words, and names of figures in braces. */
  readonly figures?: { readonly name: string; readonly text: string };
}

export const RELIABILITY_ROWS: readonly ReliabilityRow[] = [
  {
    promise: 1,
    what: "power lost under load, three writers and a file system, disk being fetched",
    file: "e2e/ublk-power-loss.test.ts",
    test: "loses its power: what was flushed is there",
  },
  {
    promise: 1,
    what: "power lost while an archive is stored, at every write",
    file: "contract/store-power-loss.test.ts",
    test: "is there after a loss of power",
  },
  {
    promise: 2,
    what: "backend killed under load, journal of what was acknowledged",
    file: "e2e/bench.test.ts",
    test: "killed while it writes: what was acknowledged is there after a restart",
  },
  {
    promise: 2,
    what: "block device killed under load and taken over, fio verifies all",
    file: "e2e/ublk-faults.test.ts",
    test: "killed under load: who writes waits",
  },
  {
    promise: 2,
    what: "block device killed in the middle of its starts, taken over",
    file: "e2e/ublk-faults.test.ts",
    test: "whose recoveries are killed",
  },
  {
    promise: 2,
    what: "block device killed in the middle of its stops, taken over or started anew",
    file: "e2e/ublk-stops.test.ts",
    test: "killed while it stops",
  },
  {
    promise: 2,
    what: "block device killed, or told a second time, while the kernel stops it under load",
    file: "e2e/ublk-stops.test.ts",
    test: "dies while it stops under load",
  },
  {
    promise: 2,
    what: "killed by a limit of memory under load",
    file: "e2e/memory-limit.test.ts",
    test: "a limit that it outgrows under load",
  },
  {
    promise: 3,
    what: "killed and started again under a front end that goes on",
    file: "e2e/reconnect.test.ts",
    test: "killed under load",
    figures: { name: "reconnect", text: "{kills} kills, {resumed} with requests in flight" },
  },
  {
    promise: 3,
    what: "a write of a dead backend that comes late: the next one waits for it",
    file: "e2e/late-write.test.ts",
    test: "a late write of a killed backend: the next one waits for it, and a newer write wins",
  },
  {
    promise: 4,
    what: "upgraded again and again while it is fetched",
    file: "e2e/upgrade-state.test.ts",
    test: "upgraded again and again, and every stripe comes",
  },
  {
    promise: 4,
    what: "upgraded again and again under a Linux guest",
    file: "e2e/upgrade-guest.test.ts",
    test: "a guest writes and reads back while its backend is upgraded again and again",
  },
  {
    promise: 4,
    what: "old or new process killed at any moment of an upgrade",
    file: "e2e/upgrade-deaths.test.ts",
    test: "killed by chance, old and new: who serves then has all that was acknowledged",
    figures: { name: "upgrade-deaths", text: "{kills} kills" },
  },
  {
    promise: 5,
    what: "killed at random moments while fetched and written, every sector checked",
    file: "e2e/lazy-kill.test.ts",
    test: "killed at random moments while it is fetched and written",
    figures: {
      name: "lazy-kill",
      text: "{kills} kills, {killsWhileFetching} while stripes were missing",
    },
  },
  {
    promise: 5,
    what: "simulated crash at every event, in every order of writes",
    file: "simulation/stripes.test.ts",
    test: "crashes at every event",
  },
  {
    promise: 5,
    what: "the whole backend simulated: faults, kills, losses of power, all from seeds",
    file: "simulation/whole-backend.test.ts",
    test: "nothing that was promised is lost",
  },
  {
    promise: 6,
    what: "every change of an archive's metadata",
    file: "fuzz/archive-tampering.test.ts",
    test: "goes unnoticed",
  },
  {
    promise: 6,
    what: "disk file cut off under the backend",
    file: "e2e/hostile-chains.test.ts",
    test: "reads fail, and stale bytes never show",
  },
  {
    promise: 7,
    what: "guest that is half attacker: random chains in both kinds of rings",
    file: "fuzz/ring-requests.test.ts",
    test: "every chain is used once, every request is answered right",
    figures: { name: "ring-requests", text: "{disks} disks, {chains} chains" },
  },
  {
    promise: 7,
    what: "front end that says anything",
    file: "fuzz/vhost-messages.test.ts",
    test: "the next front end is served, and nothing is kept",
  },
  {
    promise: 7,
    what: "native library under sanitizers, inputs led by coverage",
    file: "fuzz/native.test.ts",
    test: "nothing that a sanitizer finds",
  },
  {
    promise: 7,
    what: "clients of a stripe server that flood, stall and vanish",
    file: "e2e/stripe-server-hostile.test.ts",
    test: "another client is served at once, and a stop takes a moment",
  },
  {
    promise: 8,
    what: "file system full, then room again",
    file: "e2e/disk-full.test.ts",
    test: "writes fail while the disk is full, and no others",
  },
  {
    promise: 8,
    what: "file system full while stripes are fetched",
    file: "e2e/disk-full.test.ts",
    test: "stripes fail, and are there when there is room",
  },
  {
    promise: 8,
    what: "device below with a bad range, then dead, then healed",
    file: "e2e/ublk-faults.test.ts",
    test: "disk on a device that fails: errors arrive at once, and pass",
  },
  {
    promise: 8,
    what: "drive that fails writes for a second (dm-flakey)",
    file: "e2e/guest-faults.test.ts",
    test: "a drive that fails writes for a second",
  },
  {
    promise: 8,
    what: "disk that hangs",
    file: "e2e/overdue.test.ts",
    test: "a disk that hangs: beside the status, in the log once, and gone when it goes on",
  },
  {
    promise: 9,
    what: "stripe server killed and started again",
    file: "e2e/lazy-remote.test.ts",
    test: "through the death and the return of the server",
  },
  {
    promise: 9,
    what: "stripe server and bucket behind a network that delays, stalls, silences and resets",
    file: "e2e/bad-network.test.ts",
    test: ", seed",
    figures: {
      name: "bad-network",
      text: "{reset} resets, {stall} stalls, {silence} silent connections",
    },
  },
  {
    promise: 9,
    what: "packets late and lost (netem), server killed and started again",
    file: "e2e/guest-faults.test.ts",
    test: "packets late and lost",
  },
  {
    promise: 9,
    what: "bucket that finds the clock wrong",
    file: "e2e/clock.test.ts",
    test: "a bucket that finds the clock wrong",
  },
  {
    promise: 10,
    what: "all memory compared while its log of changes is watched",
    file: "e2e/dirty-log.test.ts",
    test: "pages that changed are marked, and no others than may have",
  },
  {
    promise: 10,
    what: "guest under load moved between two emulators and back",
    file: "e2e/live-migration.test.ts",
    test: "times between two backends, and every byte is right",
  },
  {
    promise: 11,
    what: "clock set by years, there and back, under load",
    file: "e2e/clock.test.ts",
    test: "a disk with limits under load: served as before",
  },
  {
    promise: 11,
    what: "backend stopped and continued under load, and under a guest's file system",
    file: "e2e/pause.test.ts",
    test: "stopped and continued",
  },
  {
    promise: 11,
    what: "largest requests within 96 MiB for all of the process",
    file: "e2e/memory-limit.test.ts",
    test: "within its limit",
  },
  {
    promise: 12,
    what: "soak: front ends that come and go, fetches, RPC, metrics",
    file: "e2e/soak.test.ts",
    test: "memory, descriptors, mappings and latency stay as they are",
    figures: {
      name: "soak",
      text:
        "{seconds} s, {turns} turns, {frontEnds} front ends, {answers} answers; first and last third: {mibFirst} and {mibLast} MiB, " +
        "{descriptorsFirst} and {descriptorsLast} descriptors, p50 of reads x {readP50Ratio}, p99 x {readP99Ratio}",
    },
  },
];

/** The result of a row whose tests ran in no run that the page knows of. */
export const NOT_RUN = "not run";

/** A line of the table. */
export function lineOf(row: ReliabilityRow, figures: string, outcome: string): string {
  return `| ${row.promise} | ${row.what} | ${figures} | ${outcome} | \`tests/${row.file}\` |`;
}

/** `text` with the figures in the place of their names. @throws Error when one is missing */
export function filled(text: string, figures: Readonly<Record<string, unknown>>): string {
  return text.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    const figure = figures[name];
    if (typeof figure !== "number") {
      throw new Error(`there is no figure ${name}`);
    }
    return String(Number(figure.toFixed(2)));
  });
}

// --- internal ---

const HEADING = "| promise | what was done | figures | result | test |\n|---|---|---|---|---|\n";

/** Figures and result that the page tells now. */
function oldCells(row: ReliabilityRow, page: string): readonly string[] {
  const start = `| ${row.promise} | ${row.what} |`;
  const line = page.split("\n").find((each) => each.startsWith(start)) ?? "";
  return line
    .slice(start.length)
    .split("|")
    .map((cell) => cell.trim());
}

function newFigures({ figures }: ReliabilityRow): string | undefined {
  const path = join(ROOT, "build", "figures", `${figures?.name}.json`);
  return figures === undefined || !existsSync(path)
    ? undefined
    : filled(figures.text, JSON.parse(readFileSync(path, "utf8")));
}

function writePage(): void {
  const page = readFileSync(PAGE, "utf8");
  const lines = RELIABILITY_ROWS.map((row) => {
    const [figures = "", result = ""] = oldCells(row, page);
    return lineOf(row, newFigures(row) ?? figures, lastOutcomeOf(row) ?? (result || NOT_RUN));
  });
  writeFileSync(PAGE, pageWith(page, "reliability", `${HEADING}${lines.join("\n")}\n`));
}

if (import.meta.main) {
  writePage();
}
