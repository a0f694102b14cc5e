/**
 * Every command with every file that it needs missing, of the wrong kind, unreadable, empty or full of noise: one clear
 * line, the documented exit code, in bounded time, and nothing in its folder is made or changed.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { COMMANDS } from "../../src/commands/command-tree.ts";
import { type CommandRow, ROWS } from "../support/bad-input-rows.ts";
import { skipUnless } from "../support/requires.ts";
import {
  type Ending,
  listing,
  runIn,
  SPOILINGS,
  SpoilableFolder,
  type Spoiling,
  spoil,
} from "../support/spoiled-folder.ts";
import { until } from "../support/until.ts";

const LIMIT_MS = 300_000;
const AT_ONCE = 4;
const testAsRoot = skipUnless("only root may give files away", process.getuid?.() === 0);

let folders: SpoilableFolder;
beforeAll(async () => {
  folders = await SpoilableFolder.make();
});
afterAll(() => folders[Symbol.dispose]());

test("every command and tool has its rows, and no other", () => {
  const leaves = Object.entries(COMMANDS).flatMap(([name, { load, tools = {} }]) => [
    ...(load === undefined ? [] : [name]),
    ...Object.keys(tools).map((tool) => `${name} ${tool}`),
  ]);
  expect(Object.keys(ROWS).sort()).toEqual(leaves.sort());
});

describe.each(rows())("%s", (_, { command, row }) => {
  test("works when nothing is wrong", async () => {
    const folder = folders.copy();
    const words = [folders.executable, ...command.split(" "), ...row.argv];
    if (row.serves === undefined) {
      const { exitCode, stderr } = await runIn(words, { folder, stdin: row.stdin });
      expect({ exitCode, stderr }).toMatchObject({ exitCode: row.exitCode ?? exitCode });
      return;
    }
    const child = Bun.spawn(words, { cwd: folder, stdout: "ignore", stderr: "ignore" });
    const socket = join(folder, row.serves);
    await until(`${command} serves`, () => existsSync(socket) || child.exitCode !== null);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  });

  testAsRoot(
    "tells what is wrong with a file",
    async () => {
      const cases = Object.entries(row.inputs).flatMap(([input, harmless]) =>
        spoilingsOf(command, input)
          .filter((each) => !harmless.includes(each))
          .map((spoiling) => ({
            input,
            spoiling,
          })),
      );
      const problems: string[] = [];
      const work = cases.values();
      const lane = async () => {
        for (const { input, spoiling } of work) {
          const told = await problemsOf(command, row, input, spoiling);
          problems.push(...told.map((problem) => `${input} ${spoiling}: ${problem}`));
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, lane));
      expect(problems).toEqual([]);
    },
    LIMIT_MS,
  );
});

// --- internal ---

/** All commands read documents by the same code: some of them show that they do. */
function spoilingsOf(command: string, input: string): readonly Spoiling[] {
  const isKnown = input.endsWith(".toml") && command !== "vhost" && command !== "config check";
  return isKnown ? ["missing", "folder", "pipe", "garbage"] : SPOILINGS;
}

function rows(): [string, { command: string; row: CommandRow }][] {
  return Object.entries(ROWS).flatMap(([command, list]) =>
    list.map((row): [string, { command: string; row: CommandRow }] => [
      `${command} ${row.argv.join(" ")}`,
      { command, row },
    ]),
  );
}

async function problemsOf(
  command: string,
  row: CommandRow,
  input: string,
  spoiling: Spoiling,
): Promise<readonly string[]> {
  const folder = folders.copy();
  spoil(folder, input, spoiling);
  const before = listing(folder);
  const words = [folders.executable, ...command.split(" "), ...row.argv];
  const isNobody = spoiling === "unreadable";
  const result = await runIn(words, { folder, isNobody, stdin: row.stdin });
  const after = listing(folder).filter((line) => !isEmptyTarget(line));
  rmSync(folder, { recursive: true });
  return [
    ...unclear(result, basename(input), row.isReport === true),
    ...after.filter((line) => !before.includes(line)).map((line) => `made or changed: ${line}`),
    ...before.filter((line) => !after.includes(line)).map((line) => `gone or changed: ${line}`),
  ];
}

/** The folder of an archive's target is made before the disk's source is opened. */
function isEmptyTarget(line: string): boolean {
  return /^archive2 40700 /.test(line);
}

/** What is wrong with how a failure was told. */
function unclear(result: Ending, name: string, isReport: boolean): readonly string[] {
  const { exitCode, stdout, stderr, isTimedOut, isAsked } = result;
  if (isTimedOut) {
    return [`it does not end: ${stderr}`];
  }
  if (isAsked) {
    return []; // it said that it waits for a writer, and ended when it was asked to
  }
  const lines = stderr.trimEnd().split("\n");
  const errors = lines.filter((line) => /^ubiblk: error E_[A-Z_]+: ./.test(line));
  const strange = lines.filter(
    (line) => !errors.includes(line) && !/^\[(ERROR|WARN|INFO) *\] /.test(line),
  );
  const place = isReport ? stdout + stderr : errors.join();
  return [
    ...(exitCode === 1 ? [] : [`exit code ${exitCode}: ${stderr}`]),
    ...(errors.length === 1 ? [] : [`${errors.length} errors are told: ${stderr}`]),
    ...(place.includes(name) ? [] : [`not named: ${stderr}`]),
    ...strange.map((line) => `strange line: ${line}`),
  ];
}
