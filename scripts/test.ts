/**
 * `npm test [-- [--long] [filter...]]`: checks, builds, runs every test file and counts.
 *
 * Each file runs in a process of its own, so that a crash or a hang costs that file only. The last line
 * is `N passed, N failed[, N skipped]`; the exit code is 0 only when nothing failed. A filter is part of
 * a file's path; with one, the checks are left out. `--long` gives randomised tests more rounds.
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "./build.ts";
import { check } from "./check.ts";
import { parseReport, type TestCase } from "./test-report.ts";

const ROOT = resolve(import.meta.dir, "..");
const REPORT_FOLDER = join(ROOT, "build", "test");
/** Above this the rest counts as failed. A quiet machine of two cores needs a quarter of it, and so of a file's limit. */
const RUN_TIMEOUT_MS = 60 * 60_000;
const LONG_RUN_TIMEOUT_MS = 4 * 3_600_000;
const LONG_FACTOR = 12;
/** Of one test that names no time of its own. */
const TEST_TIMEOUT_MS = 60_000;

interface Group {
  readonly patterns: readonly string[];
  /** Files that one of these finds belong to another group. */
  readonly except: readonly string[];
  /** Files at a time. */
  readonly parallel: number;
}

/** Of one file. */
const FILE_TIMEOUT_MS = 1_200_000;

/** Tests that measure time, or wait for a peer as long as it may take and no longer: they get the machine for themselves. */
const QUIET_TESTS = [
  ...["bench", "drain", "executable", "lazy-waits", "limits", "memory-changes", "metrics*"],
  ...["restart", "rpc", "service", "setup", "soak", "stop", "stripe-server-hostile", "top*"],
].map((name) => `tests/e2e/${name}.test.ts`);

const GROUPS: readonly Group[] = [
  { patterns: ["{src,scripts,tests}/**/*.test.ts"], except: QUIET_TESTS, parallel: 2 },
  { patterns: QUIET_TESTS, except: [], parallel: 1 },
];

/** Where a long file begins late, the other lanes wait for its end: these come first, the longest one before all. */
const LONGEST_FIRST = [
  "tests/e2e/ublk-faults.test.ts",
  "tests/e2e/ublk-power-loss.test.ts",
  "tests/e2e/ublk.test.ts",
  "tests/e2e/ublk-stops.test.ts",
  "tests/e2e/ublk-resize.test.ts",
  "tests/e2e/guest.test.ts",
  "tests/e2e/guest-restart.test.ts",
  "tests/e2e/guest-faults.test.ts",
  "tests/e2e/upgrade-guest.test.ts",
  "tests/e2e/live-migration.test.ts",
  "tests/e2e/memory-plug-guest.test.ts",
  "tests/e2e/recipes.test.ts",
  "tests/e2e/doctor.test.ts",
  "tests/e2e/bad-streams.test.ts",
  "tests/fuzz/archive-tampering.test.ts",
];

interface Arguments {
  readonly isLong: boolean;
  readonly filters: readonly string[];
}

interface Run {
  readonly cases: TestCase[];
  readonly deadlineMs: number;
  readonly isLong: boolean;
}

async function main(): Promise<void> {
  const { isLong, filters } = parseArguments(process.argv.slice(2));
  const startMs = performance.now();
  const limitMs = isLong ? LONG_RUN_TIMEOUT_MS : RUN_TIMEOUT_MS;
  const run: Run = { cases: [], deadlineMs: startMs + limitMs, isLong };
  rmSync(REPORT_FOLDER, { recursive: true, force: true });
  mkdirSync(REPORT_FOLDER, { recursive: true });
  if (await prepare(run, filters.length > 0)) {
    for (const group of GROUPS) {
      await runGroup(group, filters, run);
    }
  }
  if (run.cases.length === 0) {
    run.cases.push({ name: "a test file that the filter names", outcome: "failed" });
  }
  conclude(run.cases, performance.now() - startMs);
}

// --- internal ---

function parseArguments(words: readonly string[]): Arguments {
  const flags = words.filter((word) => word.startsWith("-"));
  const unknown = flags.find((flag) => flag !== "--long");
  if (unknown !== undefined) {
    console.error(`test: unknown flag ${unknown}; usage: npm test -- [--long] [filter...]`);
    process.exit(2);
  }
  return { isLong: flags.length > 0, filters: words.filter((word) => !word.startsWith("-")) };
}

/** Checks and build. A failed check is a failed test; without a build there is nothing to test. */
async function prepare(run: Run, isFiltered: boolean): Promise<boolean> {
  if (!isFiltered) {
    for (const name of await check()) {
      run.cases.push({ name: `check: ${name}`, outcome: "failed" });
    }
  }
  try {
    await build();
    return true;
  } catch (error) {
    console.log(`build: ${error instanceof Error ? error.message : error}`);
    run.cases.push({ name: "build", outcome: "failed" });
    return false;
  }
}

async function runGroup(group: Group, filters: readonly string[], run: Run): Promise<void> {
  const files = filesOf(group).filter(
    (file) => filters.length === 0 || filters.some((filter) => file.includes(filter)),
  );
  const next = files.values();
  const lanes = Array.from({ length: group.parallel }, async () => {
    for (const file of next) {
      run.cases.push(...(await runFile(file, run)));
    }
  });
  await Promise.all(lanes);
}

function filesOf({ patterns, except }: Group): readonly string[] {
  const others = new Set(filesFound(except));
  return filesFound(patterns)
    .filter((file) => !others.has(file))
    .sort((a, b) => startOf(a) - startOf(b) || (a < b ? -1 : 1));
}

/** Its place in the order of starts; the same for all that are short. */
function startOf(file: string): number {
  const place = LONGEST_FIRST.indexOf(file);
  return place < 0 ? LONGEST_FIRST.length : place;
}

function filesFound(patterns: readonly string[]): readonly string[] {
  return patterns.flatMap((pattern) => [...new Bun.Glob(pattern).scanSync(ROOT)]);
}

/** Runs one file. An end that its report does not explain is one more failed test. */
async function runFile(file: string, run: Run): Promise<readonly TestCase[]> {
  const startMs = performance.now();
  const longestMs = FILE_TIMEOUT_MS * (run.isLong ? LONG_FACTOR : 1);
  const timeoutMs = Math.min(longestMs, run.deadlineMs - startMs);
  if (timeoutMs <= 0) {
    return report(file, [{ name: `${file}: no time left for it`, outcome: "failed" }], 0, "");
  }
  const reportPath = join(REPORT_FOLDER, `${file.replaceAll("/", "-")}.xml`);
  const reporter = ["--only-failures", "--reporter=junit", `--reporter-outfile=${reportPath}`];
  const flags = [`--timeout=${TEST_TIMEOUT_MS}`, ...reporter];
  const child = Bun.spawn([process.execPath, "test", ...flags, `./${file}`], {
    cwd: ROOT,
    env: { ...process.env, ...(run.isLong ? { UBIBLK_TEST_LONG: "1" } : {}) },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    detached: true, // a process group of its own: what a killed test started ends with it
  });
  running.set(child.pid, file);
  let isTimedOut = false;
  const timer = setTimeout(() => {
    isTimedOut = true;
    endGroup(child.pid);
  }, timeoutMs);
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  clearTimeout(timer);
  running.delete(child.pid);
  const cases = [...readReport(reportPath)];
  if (isTimedOut) {
    cases.push({ name: `${file}: stopped after ${timeoutMs / 1000} s`, outcome: "failed" });
  } else if (exitCode !== 0 && !cases.some(({ outcome }) => outcome === "failed")) {
    cases.push({ name: `${file}: ended with exit code ${exitCode}`, outcome: "failed" });
  } else if (cases.length === 0) {
    cases.push({ name: `${file}: ran no test`, outcome: "failed" });
  }
  return report(file, cases, performance.now() - startMs, `${stdout}${stderr}`);
}

/** Process groups of the test files under way. */
const running = new Map<number, string>();

function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) {
      throw error;
    }
  }
}

function readReport(path: string): readonly TestCase[] {
  try {
    return parseReport(readFileSync(path, "utf8"));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return []; // the process died before it could write
    }
    throw error;
  }
}

function report(
  file: string,
  cases: readonly TestCase[],
  durationMs: number,
  output: string,
): readonly TestCase[] {
  const counts = summary(cases);
  const isFailed = cases.some(({ outcome }) => outcome === "failed");
  if (isFailed) {
    console.log(output.trimEnd());
  }
  console.log(
    `${isFailed ? "FAIL" : "ok  "} ${file}: ${counts} (${(durationMs / 1000).toFixed(1)} s)`,
  );
  return cases;
}

/** `N passed, N failed`, with the skipped ones behind when there are any. */
function summary(cases: readonly TestCase[]): string {
  const count = (outcome: string) => cases.filter((each) => each.outcome === outcome).length;
  const skipped = count("skipped");
  const ending = skipped === 0 ? "" : `, ${skipped} skipped`;
  return `${count("passed")} passed, ${count("failed")} failed${ending}`;
}

function conclude(cases: readonly TestCase[], durationMs: number): void {
  for (const { name } of cases.filter(({ outcome }) => outcome === "skipped")) {
    console.log(`skipped: ${name}`);
  }
  for (const { name } of cases.filter(({ outcome }) => outcome === "failed")) {
    console.log(`failed: ${name}`);
  }
  console.log(`tests took ${Math.round(durationMs / 1000)} s`);
  console.log(summary(cases));
  process.exitCode = cases.some(({ outcome }) => outcome === "failed") ? 1 : 0;
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    for (const [pid, file] of running) {
      console.log(`interrupted: ${file}`);
      endGroup(pid);
    }
    process.exit(signal === "SIGINT" ? 130 : 143);
  });
}

await main();
