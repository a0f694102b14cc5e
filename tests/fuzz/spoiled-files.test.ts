/**
 * Commands of the running executable over files with something wrong in them: documents, keys, metadata, archives. Each
 * ends in time, with success or an error that a user can read. A failure prints the seed; `UBIBLK_FUZZ_SEED=N` runs it
 * again.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type CommandRow, ROWS } from "../support/bad-input-rows.ts";
import { changedBytes } from "../support/changed-bytes.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";
import { type Ending, runIn, SpoilableFolder } from "../support/spoiled-folder.ts";

const RUNS = rounds(40, 4000);
/** What no message for a user has in it. */
const CRASH =
  /\n {4}at |assertion failed|panic|TypeError|RangeError|ReferenceError|SyntaxError|ASSERTION|Bun v/;
const SERVE_SECONDS = "0.7";

let folders: SpoilableFolder;
beforeAll(async () => {
  folders = await SpoilableFolder.make();
});
afterAll(() => folders[Symbol.dispose]());

/** Those that read files and do not depend on the machine. */
const rows = Object.entries(ROWS)
  .flatMap(([command, list]) => list.map((row) => ({ command, row })))
  .filter(({ row }) => Object.keys(row.inputs).length > 0 && row.peer === undefined)
  .filter(({ command }) => command !== "ublk" && command !== "doctor");

test(`files with random changes, from seed ${FUZZ_SEED}: every command ends well or says why not`, async () => {
  const endings = { ok: 0, refused: 0 };
  for (let run = 0; run < RUNS; run++) {
    const random = new SeededRandom(FUZZ_SEED + run);
    const { command, row } = rows[(FUZZ_SEED + run) % rows.length] ?? {
      command: "",
      row: { argv: [], inputs: {} },
    };
    const folder = folders.copy();
    const file = spoilOne(folder, row, random);
    const ending = await runIn(wordsOf(command, row), { folder, stdin: row.stdin });
    const problem = problemOf(ending);
    expect({ seed: FUZZ_SEED + run, command, file, problem }).toMatchObject({ problem: "" });
    endings[ending.exitCode === 0 ? "ok" : "refused"] += 1;
    rmSync(folder, { recursive: true });
  }
  expect(endings.ok).toBeGreaterThan(0);
  expect(endings.refused).toBeGreaterThan(0);
}, 1_200_000);

// --- internal ---

/** Changes one of the files that the command reads, or an object of the archive. Returns its name. */
function spoilOne(folder: string, row: CommandRow, random: SeededRandom): string {
  const named = Object.keys(row.inputs).filter((name) => statSync(join(folder, name)).isFile());
  const archived = named.some((name) => name.startsWith("archive/"))
    ? readdirSync(join(folder, "archive"), { recursive: true, encoding: "utf8" })
        .map((name) => join("archive", name))
        .filter((name) => statSync(join(folder, name)).isFile())
        .sort()
    : [];
  const files = [...named, ...archived];
  const file = files[random.below(files.length)] ?? "";
  const path = join(folder, file);
  writeFileSync(path, changedBytes(readFileSync(path), random), { mode: 0o600 });
  return file;
}

/** One that serves is ended after a moment. */
function wordsOf(command: string, row: CommandRow): readonly string[] {
  const words = [folders.executable, ...command.split(" "), ...row.argv];
  return row.serves === undefined
    ? words
    : ["timeout", "--preserve-status", "-s", "TERM", SERVE_SECONDS, ...words];
}

function problemOf({ exitCode, isTimedOut, stderr, stdout }: Ending): string {
  if (isTimedOut) {
    return `it does not end: ${stderr}`;
  }
  if (exitCode > 1 && exitCode !== 143) {
    return `exit code ${exitCode}: ${stderr}`; // 143: ended before it could serve
  }
  if (exitCode === 1 && `${stderr}${stdout}`.trim() === "") {
    return "it fails without a word";
  }
  const crash = CRASH.exec(`${stdout}${stderr}`);
  return crash === null ? "" : `it crashes: ${stderr.slice(0, 2000)}`;
}
