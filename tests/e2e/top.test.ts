/** `ubiblk top` without a terminal: its samples as text and JSON, of our backend and of other peers. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { olderBackend, servePeer } from "../support/rpc-peers.ts";
import { until } from "../support/until.ts";

const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
const MIB = 1024 * 1024;

let folder: string;
let disk: DiskFiles;
let rpcPath: string;
let backend: Backend;

beforeAll(async () => {
  folder = mkdtempSync(join(BUILD_FOLDER, "top-"));
  rpcPath = join(folder, "rpc.sock");
  disk = writeDiskConfig({
    folder,
    isEncrypted: true,
    moreConfig: 'rpc_socket = "rpc.sock"\n[tuning]\nnum_queues = 2\n',
  });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, 16 * MIB);
  backend = await startUbiblk(disk);
});

afterAll(async () => {
  await backend.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("under load, as JSON: the rates are those of the counters, with latencies", async () => {
  const load = runBench("randread", "8");
  await Bun.sleep(500);
  const samples = await jsonSamples("--socket", rpcPath, "--count", "4", "--interval", "0.5");
  await load;
  expect(samples).toHaveLength(4);
  const intervals = samples.map((each) => Number(diskOf(each).interval_seconds));
  expect(intervals.toSorted((a, b) => a - b)[1]).toBeWithin(0.3, 1.5);
  for (const [index, sample] of samples.entries()) {
    const { state, version, interval_seconds: seconds, queues, total, fetch } = diskOf(sample);
    expect({ state, fetch, queues: listOf(queues).length }).toEqual({
      state: "live",
      fetch: null,
      queues: 2,
    });
    expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    const counts = recordOf(total);
    expect(Number(counts.read_ops_per_second)).toBeGreaterThan(100);
    // The two counters are read one after the other, while the queues go on.
    const bytes = Number(counts.bytes_read_per_second) / Number(counts.read_ops_per_second);
    expect(bytes).toBeWithin(3800, 4400);
    expect(Number(recordOf(recordOf(counts.latency).read).p50_ns)).toBeGreaterThan(500);
    expect(recordOf(counts.latency).write).toEqual({ count: 0, p50_ns: null, p99_ns: null });
    if (index > 0) {
      const before = recordOf(diskOf(samples[index - 1]).total);
      const operations = Number(counts.read_ops) - Number(before.read_ops);
      expect(operations / Number(counts.read_ops_per_second)).toBeCloseTo(Number(seconds), 2);
    }
  }
});

test("sample as JSON: the keys are those of the manual", async () => {
  const [sample] = await jsonSamples("--socket", rpcPath, "--once", "--interval", "0.1");
  expect(Object.keys(recordOf(sample))).toEqual(["time", "disks", "total"]);
  const manual = await Bun.file(resolve(import.meta.dir, "..", "..", "docs", "top.md")).text();
  const keys = new Set<string>();
  JSON.stringify(sample, (key, value) => {
    keys.add(key);
    return value;
  });
  const isWord = (key: string) => /^[a-z]/.test(key) && key !== "stripes";
  expect([...keys].filter(isWord).filter((key) => !manual.includes(`\`${key}\``))).toEqual([]);
});

test("once, without a terminal: text of the wanted width, and no escape sequence", async () => {
  const command = [EXECUTABLE, "top", rpcPath, "--once", "--interval", "0.1"];
  const narrow = await runCommand(command, { env: { ...process.env, COLUMNS: undefined } });
  const wide = await runCommand(command, { env: { ...process.env, COLUMNS: "160" } });
  expect(narrow.exitCode).toBe(0);
  expect(narrow.stdout).toStartWith("ubiblk top  1 disk, 2 queues  every 0.1s  ");
  expect(narrow.stdout.split("\n")[1]).toBe(
    "queue   iops   read/s  write/s rd p50 rd p99 wr p50 wr p99 inflight",
  );
  expect(wide.stdout).toContain("failed/s");
  expect(narrow.stdout + wide.stdout).not.toContain("\x1b");
});

test("older backend: rates and what is in flight, without latencies", async () => {
  const path = join(folder, "older.sock");
  using _server = await servePeer(path, olderBackend(100));
  const samples = await jsonSamples(path, "--count", "2", "--interval", "0.2");
  for (const sample of samples) {
    const { state, version, queues, interval_seconds: seconds } = diskOf(sample);
    expect({ state, version }).toEqual({ state: "live", version: null });
    const queue = recordOf(listOf(queues)[0]);
    const operations = Number(queue.read_ops_per_second) * Number(seconds);
    expect(operations).toBeWithin(99, 101);
    expect(queue).toMatchObject({ in_flight: 2, kicks_per_second: null });
    expect(recordOf(queue.latency).read).toEqual({ count: null, p50_ns: null, p99_ns: null });
  }
});

test("counters that start from nothing on one connection: null, then never below zero", async () => {
  const path = join(folder, "anew.sock");
  const counts = [1_000_000, 1_000_100, 5, 25, 45];
  using _server = await servePeer(path, (command) => ({
    text:
      command === "stats"
        ? `{"stats":{"queues":[{"read_ops":${counts.shift() ?? 65}}]}}\n`
        : '{"error":"unknown command"}\n',
  }));
  const samples = await jsonSamples(path, "--count", "4", "--interval", "0.1");
  const rates = samples.map((each) => recordOf(diskOf(each).total).read_ops_per_second);
  expect(rates.map((rate) => rate === null || Number(rate) > 0)).toEqual([true, true, true, true]);
  expect(rates[1]).toBeNull();
  expect(diskOf(samples.at(-1)).restarts).toBe(1);
});

test("socket that does not answer: shown as stuck, the other disk goes on", async () => {
  const path = join(folder, "stuck.sock");
  using _server = await servePeer(path, () => undefined);
  const begin = performance.now();
  const samples = await jsonSamples(`${path},${rpcPath}`, "--count", "3", "--interval", "0.3");
  expect(performance.now() - begin).toBeLessThan(5_000);
  const [stuck, live] = listOf(recordOf(samples.at(-1)).disks).map(recordOf);
  expect(stuck).toMatchObject({ state: "stuck", reason: "no answer in time" });
  expect(Number(stuck?.silent_seconds)).toBeGreaterThan(1);
  expect(live).toMatchObject({ state: "live" });
});

test("socket that answers again: live as before, with rates over the whole time", async () => {
  const path = join(folder, "slow.sock");
  const answer = olderBackend(100);
  let silentUntilMs: number | undefined;
  using _server = await servePeer(path, (command) => {
    const isSilent = silentUntilMs !== undefined && performance.now() < silentUntilMs;
    if (command === "histograms") {
      silentUntilMs ??= performance.now() + 2_500; // behind the last command of the first question
    }
    return isSilent ? undefined : answer(command);
  });
  const samples = await jsonSamples(path, "--count", "22", "--interval", "0.4");
  const states = samples.map((sample) => diskOf(sample).state);
  expect(states).toContain("stuck");
  const last = diskOf(samples.at(-1));
  expect(last).toMatchObject({ state: "live", restarts: 0, reason: null });
  const rate = Number(recordOf(last.total).read_ops_per_second);
  expect(rate * Number(last.interval_seconds)).toBeWithin(99, 101);
});

test("disk with stripes to fetch: rate, remaining time and failed ones, in JSON and as text", async () => {
  const path = join(folder, "fetch.sock");
  let fetched = 0;
  using _server = await servePeer(path, (command) => {
    fetched += command === "status" ? 60 : 0;
    const more = '"failed":2,"failed_stripes":[7,9],"anything":{"new":[1]}';
    return command === "status"
      ? {
          text: `{"status":{"stripes":{"fetched":${fetched},"source":1000,"total":4000,${more}}}}\n`,
        }
      : olderBackend(0)(command);
  });
  const samples = await jsonSamples(path, "--count", "3", "--interval", "0.4");
  const fetch = recordOf(diskOf(samples.at(-1)).fetch);
  expect(fetch).toMatchObject({ source: 1000, total: 4000, failed: 2, failed_stripes: [7, 9] });
  const seconds = samples.reduce<number>(
    (sum, each) => sum + Number(diskOf(each).interval_seconds),
    0,
  );
  const rate = Number(fetch.stripes_per_second);
  expect(rate * seconds).toBeWithin(178, 182);
  expect(rate * Number(fetch.eta_seconds)).toBeWithin(990 - 240, 1010 - 240);
  const { stdout } = await runCommand([EXECUTABLE, "top", path, "--once", "--interval", "0.3"]);
  expect(stdout).toMatch(/^fetch \[#+\.+\] +\d+\.\d% {2}\d+\/1000 stripes {2}\d+\/s {2}ETA \ds$/m);
  expect(stdout).toContain("fetch failed for 2 stripes: 7, 9\n");
});

test.each([
  { name: "no JSON", reply: "hello\n".repeat(10), reason: "no answer to version" },
  { name: "no end", reply: "x".repeat(17 * MIB), reason: "sends what was not asked for" },
  { name: "too many clients", reply: '{"error":"too many clients"}\n', reason: "too many" },
])("peer that is no backend ($name): told, never a failure", async ({ reply, reason }) => {
  const path = join(folder, "wrong.sock");
  using _server = await servePeer(path, () => ({ text: reply, isLast: true }));
  const [sample] = await jsonSamples(`${path},${rpcPath}`, "--once", "--interval", "0.5");
  expect(diskOf(sample).state).toBe("away");
  expect(diskOf(sample).reason).toContain(reason);
});

test("backend restarted under a pattern: found again, told, and no rate goes below zero", async () => {
  const child = Bun.spawn(
    [EXECUTABLE, "top", "--json", "--interval", "0.2", join(folder, "rp*.sock")],
    { stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  );
  let text = "";
  const reading = (async () => {
    for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += piece;
    }
  })();
  const last = () => text.split("\n").at(-2) ?? "";
  await until("it is seen", () => last().includes('"state":"live"'));
  await runBench("randread", "0.5");
  await backend.stop();
  await until("it is away", () => last().includes('"state":"away"'));
  backend = await startUbiblk(disk);
  await until("it is back", () => last().includes('"state":"live"'));
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  await reading;
  const disks = samplesOf(text).map(diskOf);
  expect(disks.at(-1)).toMatchObject({ state: "live", restarts: 1 });
  expect(text).not.toMatch(/per_second":-/);
});

test("reader that goes away: the end, without an error", async () => {
  const line = `"${EXECUTABLE}" top --json --interval 0.05 "${rpcPath}" | head -1`;
  const result = await runCommand(["sh", "-c", line], { timeoutMs: 10_000 });
  expect(samplesOf(result.stdout)).toHaveLength(1);
  expect([result.exitCode, result.stderr]).toEqual([0, ""]);
});

test.each<readonly string[]>([
  ["--interval", "0"],
  ["--interval", "nan"],
  ["--interval", "inf"],
  ["--interval", "1e999"],
  ["--interval=-1"],
  ["--count", "0"],
  ["--once", "--count", "2"],
  ["--socket", ""],
])("wrong usage (%s %s): exit code 2", async (...flags) => {
  const result = await runCommand([EXECUTABLE, "top", "x.sock", ...flags]);
  expect([result.exitCode, result.stdout]).toEqual([2, ""]);
  expect(result.stderr).toStartWith("ubiblk: error E_USAGE: ");
});

test("no socket named: exit code 2; none answers: exit code 1, and why", async () => {
  expect((await runCommand([EXECUTABLE, "top"])).exitCode).toBe(2);
  const path = join(folder, "none.sock");
  const result = await runCommand([EXECUTABLE, "top", path, "--once", "--interval", "0.1"]);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(`error E_TOP: no backend answered: ${path}: no socket there`);
});

test("a vhost_socket: told, and asked once only", async () => {
  const path = join(folder, "*.sock");
  const flags = ["--count", "4", "--interval", "0.3"];
  const result = await runCommand([EXECUTABLE, "top", path, ...flags], { timeoutMs: 20_000 });
  expect(result.exitCode).toBe(0);
  expect(result.stdout).toContain("is this its vhost_socket?");
  expect(result.stdout).toContain("1 disk, 2 queues, 1 other socket");
  expect(backend.log().match(/JSON came, which belongs to rpc_socket/g)).toHaveLength(1);
});

// --- internal ---

async function runBench(workload: string, seconds: string): Promise<void> {
  const load = ["--workload", workload, "--queues", "2", "--time", seconds, "--warmup", "0"];
  const result = await runCommand([EXECUTABLE, "bench", "--socket", disk.socketPath, ...load]);
  if (result.exitCode !== 0) {
    throw new Error(result.stderr);
  }
}

async function jsonSamples(...flags: readonly string[]): Promise<readonly unknown[]> {
  const result = await runCommand([EXECUTABLE, "top", "--json", ...flags], { timeoutMs: 20_000 });
  if (result.exitCode !== 0) {
    throw new Error(result.stderr);
  }
  return samplesOf(result.stdout);
}

/** One JSON value a line. */
function samplesOf(text: string): readonly unknown[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

/** The first disk of a sample. */
function diskOf(sample: unknown): Readonly<Record<string, unknown>> {
  return recordOf(listOf(recordOf(sample).disks)[0]);
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) {
    throw new Error(`${JSON.stringify(value)} is no object`);
  }
  return { ...value };
}

function listOf(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new Error(`${JSON.stringify(value)} is no array`);
  }
  return value;
}
