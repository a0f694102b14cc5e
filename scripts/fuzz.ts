/**
 * `npm run fuzz [-- [--minutes N] [--seed N] [name...]]`: fuzzes for a while, ten minutes unless told otherwise.
 *
 * In turn, until the time is over: every file of tests/fuzz with a seed of its own, and every target of the native
 * library with libFuzzer, whose corpus grows in build/fuzz. A name is a part of a file's path, or `native` or a target.
 * What fails is printed with the command that replays it, and fuzzing goes on; the exit code is 1 then.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import {
  buildFuzzer,
  corpusOf,
  NATIVE_TARGETS,
  type NativeTarget,
} from "../tests/fuzz/native/targets.ts";
import { build } from "./build.ts";
import { outputOf, runCommand } from "./command.ts";

const ROOT = resolve(import.meta.dir, "..");
const FOLDER = join(ROOT, "build", "fuzz");
const SEEDS = 2 ** 31;
const SLICE_MS = 60_000;
const SLICE_MS_MIN = 5000;
const FILE_TIMEOUT_MS = 30 * 60_000;
const INPUT_BYTES_MAX = 1024;
/** Of a target's corpus in the repository: what is fuzzed longest is not kept. */
const CASES_MAX = 250;

interface Arguments {
  readonly minutes: number;
  readonly seed: number;
  readonly names: readonly string[];
  /** Puts what was found into the corpus of the repository, at the end. */
  readonly isKeeping: boolean;
}

interface Job {
  readonly name: string;
  /** What went wrong, or undefined. */
  readonly run: (seed: number, sliceMs: number) => Promise<string | undefined>;
}

async function main(): Promise<void> {
  const { minutes, seed, names, isKeeping } = parseArguments(process.argv.slice(2));
  await build();
  mkdirSync(FOLDER, { recursive: true });
  const isNamed = (name: string) => names.length === 0 || names.some((each) => name.includes(each));
  const targets = NATIVE_TARGETS.filter(({ name }) => isNamed(`native ${name}`));
  const jobs = [...fileJobs(), ...(await nativeJobs(targets))].filter(({ name }) => isNamed(name));
  if (jobs.length === 0) {
    throw new Error("no fuzz test has such a name");
  }
  const endMs = performance.now() + minutes * 60_000;
  const fairMs = Math.max(SLICE_MS_MIN, (minutes * 60_000) / jobs.length);
  let failures = 0;
  for (let round = 0; performance.now() < endMs; round++) {
    for (const job of jobs) {
      const leftMs = endMs - performance.now();
      if (leftMs <= 0) {
        break;
      }
      failures += await runJob(job, (seed + round) % SEEDS, Math.min(SLICE_MS, fairMs, leftMs));
    }
  }
  if (isKeeping) {
    for (const target of targets) {
      await keep(target);
    }
  }
  console.log(`fuzz: ${failures} failed`);
  process.exitCode = failures === 0 ? 0 : 1;
}

// --- internal ---

function parseArguments(words: readonly string[]): Arguments {
  let [minutes, seed, isKeeping] = [10, Date.now() % SEEDS, false];
  const names: string[] = [];
  const rest = words.values();
  for (const word of rest) {
    if (word === "--minutes") {
      minutes = Number(rest.next().value);
    } else if (word === "--seed") {
      seed = Number(rest.next().value);
    } else if (word === "--keep") {
      isKeeping = true;
    } else {
      names.push(word);
    }
  }
  if (!(minutes > 0) || !Number.isInteger(seed) || names.some((name) => name.startsWith("-"))) {
    console.error("usage: npm run fuzz -- [--minutes N] [--seed N] [--keep] [name...]");
    process.exit(2);
  }
  return { minutes, seed, names, isKeeping };
}

async function runJob(job: Job, seed: number, sliceMs: number): Promise<number> {
  const startMs = performance.now();
  const failure = await job.run(seed, sliceMs);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  console.log(`${failure === undefined ? "ok  " : "FAIL"} ${job.name} seed ${seed} (${seconds} s)`);
  if (failure !== undefined) {
    console.log(failure);
  }
  return failure === undefined ? 0 : 1;
}

/** Files of tests, each with its usual rounds: a new seed is worth more than more rounds of an old one. */
function fileJobs(): readonly Job[] {
  const files = [...new Bun.Glob("tests/fuzz/*.test.ts").scanSync(ROOT)].sort();
  return files
    .filter((file) => !file.endsWith("native.test.ts"))
    .map((file) => ({ name: file, run: (seed) => runFile(file, seed) }));
}

async function runFile(file: string, seed: number): Promise<string | undefined> {
  const command = [process.execPath, "test", "--timeout=60000", "--only-failures", `./${file}`];
  const env = { ...process.env, UBIBLK_FUZZ_SEED: `${seed}` };
  const result = await runCommand(command, { cwd: ROOT, env, timeoutMs: FILE_TIMEOUT_MS });
  if (result.exitCode === 0) {
    return undefined;
  }
  const replay = `UBIBLK_FUZZ_SEED=${seed} npx --no -- bun test --timeout 60000 ./${file}`;
  return `${result.stdout}${result.stderr}\nreplay: ${replay}`;
}

async function nativeJobs(targets: readonly NativeTarget[]): Promise<readonly Job[]> {
  const compiler = ["clang", ...Array.from({ length: 12 }, (_, i) => `clang-${22 - i}`)].find(
    (name) => Bun.which(name) !== null,
  );
  if (compiler === undefined) {
    console.log("fuzz: there is no clang; the native library is left out");
    return [];
  }
  const jobs: Job[] = [];
  for (const target of targets) {
    const program = await buildFuzzer(target, FOLDER, compiler);
    unpack(target);
    const name = `native ${target.name}`;
    jobs.push({ name, run: (seed, sliceMs) => runTarget(target, program, seed, sliceMs) });
  }
  return jobs;
}

/** The cases of the repository, a file each, beside those that were found on this machine. */
function unpack(target: NativeTarget): void {
  const folder = corpusFolder(target);
  mkdirSync(folder, { recursive: true });
  const lines = readFileSync(corpusOf(target), "latin1").split("\n");
  for (const line of lines.filter((each) => each !== "")) {
    const bytes = Buffer.from(line, "hex");
    writeFileSync(join(folder, Bun.SHA1.hash(bytes, "hex")), bytes);
  }
}

function corpusFolder({ name }: NativeTarget): string {
  return join(FOLDER, `corpus-${name}`);
}

/** SIGBUS is the native library's own: neither the sanitizer nor the fuzzer may take it. */
const NATIVE_ENV = { ...process.env, ASAN_OPTIONS: "handle_sigbus=0" };
const NATIVE_FLAGS = ["-handle_bus=0", `-max_len=${INPUT_BYTES_MAX}`];

async function runTarget(
  target: NativeTarget,
  program: string,
  seed: number,
  sliceMs: number,
): Promise<string | undefined> {
  const seconds = Math.max(1, Math.ceil(sliceMs / 1000));
  const limits = [`-seed=${seed}`, `-max_total_time=${seconds}`, "-timeout=20"];
  const command = [program, ...NATIVE_FLAGS, ...limits, `-artifact_prefix=${FOLDER}/`];
  const result = await runCommand([...command, corpusFolder(target)], {
    cwd: FOLDER,
    env: NATIVE_ENV,
    timeoutMs: sliceMs * 2 + 120_000,
  });
  const output = `${result.stdout}${result.stderr}`;
  console.log(`     ${output.split("\n").findLast((line) => line.includes("DONE")) ?? ""}`);
  if (result.exitCode === 0 && !result.isTimedOut) {
    return undefined;
  }
  const artifact = /Test unit written to (\S+)/.exec(output)?.[1] ?? "the input";
  return `${output.slice(-8000)}\nreplay: ASAN_OPTIONS=handle_sigbus=0 ${program} ${artifact}`;
}

/** The smallest set of inputs that reaches all that is reached, as text. */
async function keep(target: NativeTarget): Promise<void> {
  const folder = join(FOLDER, `kept-${target.name}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  const program = join(FOLDER, `fuzz-${target.name}`);
  if (!existsSync(program)) {
    return;
  }
  const words = [program, ...NATIVE_FLAGS, "-merge=1", folder, corpusFolder(target)];
  await outputOf(words, { env: NATIVE_ENV, timeoutMs: 600_000 });
  const inputs = readdirSync(folder).map((name) => readFileSync(join(folder, name)));
  const lines = inputs
    .sort((a, b) => a.length - b.length)
    .slice(0, CASES_MAX)
    .map((bytes) => `${bytes.toString("hex")}\n`);
  writeFileSync(corpusOf(target), lines.sort().join(""));
  console.log(`kept ${lines.length} of ${inputs.length} inputs of ${target.name}`);
}

await main();
