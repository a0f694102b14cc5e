/**
 * `npm run bench [-- flags]`: our speed and size beside those of software that others wrote, all in one
 * run on one machine. Prints a table and writes build/bench.json.
 *
 *   --rows a,b         only rows whose name begins so (`--list` names them)
 *   --repetitions N    samples of each participant, default 5; medians count
 *   --seconds S        length of a sample, default 2
 *   --size MIB         size of the data files, default 1024; rows of lazy disks also have files of twice that
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { loadRows } from "../tests/bench/load-rows.ts";
import { describeMachine, hasVaes512, type Machine, machineText } from "../tests/bench/machine.ts";
import { formatTable, type Row, type RowResult } from "../tests/bench/result.ts";
import { dataFiles, prepareFiles } from "../tests/bench/servers.ts";
import { build } from "./build.ts";

const OUTPUT_PATH = resolve(import.meta.dir, "..", "build", "bench.json");

interface Settings {
  readonly prefixes: readonly string[];
  readonly isList: boolean;
  readonly repetitions: number;
  readonly seconds: number;
  readonly sizeMib: number;
}

async function main(): Promise<void> {
  const settings = parseSettings();
  await build();
  // These need the built library.
  const { upkeepRows } = await import("../tests/bench/upkeep-rows.ts");
  const { lazyRows } = await import("../tests/bench/lazy-rows.ts");
  const { archiveRows } = await import("../tests/bench/archive-rows.ts");
  const { mappingRow } = await import("../tests/bench/mapping-row.ts");
  const { remoteRows } = await import("../tests/bench/remote-rows.ts");
  const { ublkRows } = await import("../tests/bench/ublk-rows.ts");
  const { cipherRows } = await import("../tests/bench/cipher.bench.ts");
  const { XtsCipher } = await import("../src/disk/cipher.ts");
  const machine = await describeMachine(XtsCipher.create(new Uint8Array(64)).provider);
  const files = dataFiles(settings.sizeMib);
  const rows = [
    ...loadRows(files, hasVaes512(machine)),
    ...cipherRows(),
    ...upkeepRows(files),
    ...lazyRows(files),
    ...archiveRows(files),
    mappingRow(),
    ...remoteRows(files),
    ...ublkRows(),
  ];
  if (settings.isList) {
    console.log(rows.map(({ id, title }) => `${id.padEnd(28)}${title}`).join("\n"));
    return;
  }
  const wanted = chosen(rows, settings.prefixes);
  console.log(`${machineText(machine)}\n`);
  console.error("bench: preparing the data files");
  await prepareFiles(files);
  const results = await runRows(wanted, settings);
  writeReport(machine, settings, results);
  console.log(`\n${formatTable(results)}\nwritten to ${join("build", "bench.json")}`);
}

// --- internal ---

function parseSettings(): Settings {
  const { values } = parseArgs({
    options: {
      rows: { type: "string", default: "" },
      list: { type: "boolean", default: false },
      repetitions: { type: "string", default: "5" },
      seconds: { type: "string", default: "2" },
      size: { type: "string", default: "1024" },
    },
  });
  return {
    prefixes: values.rows.split(",").filter((prefix) => prefix !== ""),
    isList: values.list,
    repetitions: positive("repetitions", values.repetitions),
    seconds: positive("seconds", values.seconds),
    sizeMib: positive("size", values.size),
  };
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0) {
    console.error(`bench: --${name}: ${JSON.stringify(text)} is not a number above 0`);
    process.exit(2);
  }
  return value;
}

function chosen(rows: readonly Row[], prefixes: readonly string[]): readonly Row[] {
  const unknown = prefixes.find((prefix) => !rows.some(({ id }) => id.startsWith(prefix)));
  if (unknown !== undefined) {
    console.error(`bench: --rows: no row begins with ${unknown}; --list names them`);
    process.exit(2);
  }
  return rows.filter(
    ({ id }) => prefixes.length === 0 || prefixes.some((prefix) => id.startsWith(prefix)),
  );
}

/** A row that fails is shown as failed; the others still run. */
async function runRows(rows: readonly Row[], settings: Settings): Promise<readonly RowResult[]> {
  const results: RowResult[] = [];
  const note = (text: string) => console.error(`bench: ${text}`);
  for (const row of rows) {
    try {
      const { repetitions, seconds } = settings;
      results.push(await row.run({ repetitions, seconds, note }));
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      note(`${row.id} FAILED: ${reason}`);
      const title = `${row.title}: FAILED, ${reason.split("\n")[0]}`;
      results.push({ id: row.id, title, lines: [], details: { failure: reason } });
      process.exitCode = 1;
    }
  }
  return results;
}

function writeReport(machine: Machine, settings: Settings, results: readonly RowResult[]): void {
  mkdirSync(resolve(OUTPUT_PATH, ".."), { recursive: true });
  const when = new Date().toISOString();
  const report = { when, machine, settings, results };
  writeFileSync(OUTPUT_PATH, `${JSON.stringify(report, null, 2)}\n`);
}

await main();
