/**
 * `ubiblk bench` of the executable: against our own backend, and against qemu-storage-daemon as a
 * control that the client itself is right.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startStorageDaemon,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { skipUnlessInstalled } from "../support/requires.ts";
import { ask } from "../support/rpc-client.ts";
import { until } from "../support/until.ts";

const DISK_BYTES = 32 * 2 ** 20;
const QUEUES = 2;
const RESTARTS_MAX = 40;
const TEST_TIMEOUT_MS = 60_000;
/** Of a journal: some hundred writes. */
const WRITES_BYTES = 4096;
const RPC = 'rpc_socket = "rpc.sock"\n';

let folder = "";
let disk: DiskFiles;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-bench-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

describe.each([{ isEncrypted: false }, { isEncrypted: true }])("our backend %j", (kind) => {
  beforeEach(() => makeDisk(kind.isEncrypted));

  test.each([
    { flags: "--block-size=4K" },
    { flags: "--block-size=512 --size=1M" },
    { flags: "--block-size=128K --segments=32 --indirect --queues=2" },
    { flags: "--block-size=20K --queue-depth=1 --size=2M" },
    { flags: "--block-size=64K --without-event-idx --without-reply-ack --queues=2" },
    { flags: "--block-size=1M --segments=256 --queue-depth=4 --memory-slots" },
    { flags: "--packed --block-size=4K" },
    { flags: "--packed --block-size=20K --segments=7 --queue-depth=9 --without-event-idx" },
    { flags: "--packed --block-size=128K --segments=32 --indirect --queues=2" },
  ])(
    "verify $flags: every byte comes back",
    async ({ flags }) => {
      await using backend = await startUbiblk(disk);
      const result = await bench("--workload=verify", ...flags.split(" "));
      expect(result.stderr).toBe("");
      expect(result.exitCode).toBe(0);
      expect(JSON.parse(result.stdout).verified).toContain("all as expected");
      expect(await backend.stop()).toBe(0);
    },
    TEST_TIMEOUT_MS,
  );

  test(
    "killed while it writes: what was acknowledged is there after a restart",
    async () => {
      const journal = join(folder, "journal");
      const writes = ["--workload=randwrite", "--block-size=8K", "--flush-every=64", "--queues=2"];
      for (let round = 0; round < 3; round++) {
        const backend = await startAgain();
        const running = bench(...writes, `--journal=${journal}`, "--time=30");
        const begun = journalBytes(journal);
        await until("writes are under way", () => journalBytes(journal) > begun + WRITES_BYTES);
        process.kill(backend.pid, "SIGKILL");
        const killed = await running;
        await backend.stop();
        expect(killed.exitCode).toBe(1);
        expect(killed.stderr).toContain("E_BENCH: the backend closed the connection");

        await using again = await startAgain();
        const checked = await bench(`--check=${journal}`, "--queues=2");
        expect(checked.stderr).toBe("");
        expect(JSON.parse(checked.stdout).verified).toContain("blocks with acknowledged writes");
        expect(again.isRunning()).toBe(true);
      }
    },
    TEST_TIMEOUT_MS,
  );

  test(
    "a byte changed behind the backend is found, with its sector",
    async () => {
      const journal = join(folder, "journal");
      {
        await using _backend = await startUbiblk(disk);
        const written = await bench("--workload=write", `--journal=${journal}`, "--time=0.3");
        expect(written.exitCode).toBe(0);
      }
      const fd = openSync(disk.dataPath, "r+");
      writeSync(fd, "x", 5 * 512 + 100);
      closeSync(fd);
      await using _again = await startAgain();
      const checked = await bench(`--check=${journal}`);
      expect(checked.exitCode).toBe(1);
      expect(checked.stderr).toMatch(/^ubiblk: error E_VERIFY: sector 5[ :]/);
    },
    TEST_TIMEOUT_MS,
  );
});

describe("measuring", () => {
  beforeEach(() => makeDisk(false));

  test("the backend's CPU time and all latencies are told", async () => {
    await using backend = await startUbiblk(disk);
    const flags = ["--workload=randwrite", "--flush-every=8", "--time=0.5", "--warmup=0.1"];
    const result = await bench(...flags, `--pid=${backend.pid}`);
    expect(result.exitCode).toBe(0);
    const report = JSON.parse(result.stdout);
    expect(report.seconds).toBeWithin(0.45, 1);
    expect(report.operations).toBe(report.latency.write.count + report.latency.flush.count);
    expect(report.latency.write.p50Us).toBeLessThanOrEqual(report.latency.write.maxUs);
    expect(report.backendCpuNsPerOperation).toBeGreaterThan(0);
  });

  test("without a backend the error says what to do, at once", async () => {
    const result = await bench("--workload=randread");
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain("E_SOCKET: cannot connect");
    expect(result.durationMs).toBeLessThan(5000);
  });

  test(
    "a backend that stops answering is given up after the time limit",
    async () => {
      makeDisk(false, RPC);
      await using backend = await startUbiblk(disk);
      const running = bench("--workload=randread", "--time=30", "--timeout=1");
      await untilRead();
      process.kill(backend.pid, "SIGSTOP");
      const result = await running;
      process.kill(backend.pid, "SIGCONT");
      expect(result.exitCode).toBe(1);
      expect(result.stderr).toContain("E_BENCH: no request ended for 1000 ms");
    },
    TEST_TIMEOUT_MS,
  );

  test("a second front end is told what may keep it from an answer", async () => {
    makeDisk(false, RPC);
    await using _backend = await startUbiblk(disk);
    const first = bench("--workload=randread", "--time=3");
    await untilRead();
    const second = await bench("--workload=randread", "--timeout=0.5");
    expect(second.stderr).toContain(
      "no answer within 500 ms; another front end may be connected, or this may be another socket",
    );
    expect((await first).exitCode).toBe(0);
  });

  test("an rpc_socket says at once that it is none of a front end", async () => {
    makeDisk(false, RPC);
    await using _backend = await startUbiblk(disk);
    const result = await runCommand([EXECUTABLE, "bench", "--socket", join(folder, "rpc.sock")]);
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain("JSON came, which belongs to rpc_socket, not to vhost_socket");
    expect(result.durationMs).toBeLessThan(5000);
  });

  test.each([
    { flag: "--queues=4", reason: "has 2 queues, 4 are wanted; raise num_queues in its [tuning]" },
    { flag: "--pid=4194305", reason: "of process 4194305: ESRCH (no such process)" },
  ])("$flag, which the backend does not have, is told", async ({ flag, reason }) => {
    await using _backend = await startUbiblk(disk);
    const result = await bench("--workload=randread", "--time=0.1", flag);
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain(reason);
  });

  test.each([
    { flags: ["--block-size=5"], named: "--block-size" },
    { flags: ["--workload=format"], named: "--workload" },
    { flags: ["--journal=x", "--workload=read"], named: "--journal" },
    { flags: ["--power-loss"], named: "--power-loss" },
    { flags: ["--time=soon"], named: "--time" },
  ])("bad usage $flags: exit code 2", async ({ flags, named }) => {
    const result = await bench(...flags);
    expect(result.exitCode).toBe(2);
    expect(result.stderr).toContain(named);
    expect(existsSync("x")).toBe(false);
  });
});

describe("qemu-storage-daemon", () => {
  const controlled = skipUnlessInstalled("qemu-storage-daemon");

  controlled("verify passes on a backend that is not ours", async () => {
    makeDisk(false);
    await using _backend = await startStorageDaemon(disk, QUEUES);
    const result = await bench("--workload=verify", "--queues=2", "--block-size=16K");
    expect(result.stderr).toBe("");
    expect(result.exitCode).toBe(0);
  });
});

function makeDisk(isEncrypted: boolean, deviceKeys = ""): void {
  disk = writeDiskConfig({
    folder,
    isEncrypted,
    moreConfig: `${deviceKeys}[tuning]\nnum_queues = ${QUEUES}\n`,
  });
  writeFileSync(disk.dataPath, "");
  truncateSync(disk.dataPath, DISK_BYTES);
}

function journalBytes(path: string): number {
  return existsSync(path) ? statSync(path).size : 0;
}

/** A front end is there and reads. */
function untilRead(): Promise<void> {
  return until("requests are handed to the disk", async () => {
    const answer = (await ask(join(folder, "rpc.sock"), "statistics")) as {
      readonly statistics: { readonly queues: readonly { readonly read_ops: number }[] };
    };
    return answer.statistics.queues.some(({ read_ops }) => read_ops > 0);
  });
}

/** The kernel lets go of a ring's files, and so of the lock, a moment after the process has ended. */
async function startAgain(): Promise<Backend> {
  for (let attempt = 0; attempt < RESTARTS_MAX; attempt++) {
    try {
      return await startUbiblk(disk);
    } catch (error) {
      expect(String(error)).toContain("E_DISK_LOCKED");
      await Bun.sleep(50);
    }
  }
  throw new Error("the disk stays locked after its backend was killed");
}

function bench(...flags: readonly string[]): Promise<CommandResult> {
  const command = [EXECUTABLE, "bench", `--socket=${join(folder, "vhost.sock")}`, "--json"];
  return runCommand([...command, ...flags], { timeoutMs: 60_000 });
}
