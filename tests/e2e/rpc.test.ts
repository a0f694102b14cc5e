/** The RPC socket of the running executable: under load, with hostile clients, at the start and the stop. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { dirname, join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { runCommand } from "../../scripts/command.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startBackend,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { AVAILABLE, HostileClient } from "../support/hostile-client.ts";
import { ask, converse, RpcClient } from "../support/rpc-client.ts";

const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
const MIB = 1024 * 1024;
const VERSION_ANSWER = `{"version":"${packageJson.version}"}\n`;
const VERSION_REQUEST = '{"command":"version"}\n';
const QUEUES = 2;

/** One backend that most tests share; the first of them finds it unused. */
let shared: Place;
let backend: Backend;

beforeAll(async () => {
  shared = makePlace();
  backend = await startUbiblk(shared.disk);
});

afterAll(async () => {
  expect(await backend.stop()).toBe(0);
  expect(existsSync(shared.rpcPath)).toBe(false);
  shared[Symbol.dispose]();
});

test("idle disk: every old command answers byte for byte, pipelined on one connection", async () => {
  const requests = ["version", "status", "queues", "stats", "nope"]
    .map((command) => `\n${JSON.stringify({ command })}\r\n`)
    .join("  \n");
  const none = '{"bytes_read":0,"bytes_written":0,"flush_ops":0,"read_ops":0,"write_ops":0}';
  expect(await converse(shared.rpcPath, `${requests}{ not valid json }\n["version"]`)).toStartWith(
    `${VERSION_ANSWER}{"status":null}\n{"queues":[[],[]]}\n{"stats":{"queues":[${none},${none}]}}\n` +
      '{"code":"E_RPC_COMMAND","error":"unknown command: nope"}\n' +
      '{"code":"E_RPC_REQUEST","error":"invalid request: ',
  );
});

test("under load: requests in flight are listed, and the counts agree at the end", async () => {
  const load = runBench(shared.disk, "randread", "--queue-depth", "16", "--queues", "2");
  let listedMax = 0;
  let ageMax = -1;
  let isLoading = true;
  void load.finally(() => {
    isLoading = false;
  });
  while (isLoading) {
    const { queues } = await askRecord(shared.rpcPath, "queues");
    listedMax = Math.max(listedMax, ...queues.map((queue) => entriesOf(queue).length));
    const requests = await askRecord(shared.rpcPath, "requests");
    for (const entry of requests.queues.flatMap(entriesOf)) {
      const { age_ns: ageNs, operation, sectors } = recordOf(entry);
      expect([operation, sectors]).toEqual(["read", 8]);
      ageMax = Math.max(ageMax, Number(ageNs));
    }
    await Bun.sleep(2);
  }
  await load;
  expect(listedMax).toBeGreaterThan(0);
  expect(ageMax).toBeGreaterThanOrEqual(0);
  expect(ageMax).toBeLessThan(10e9);

  const stats = (await askRecord(shared.rpcPath, "stats")).queues.map(recordOf);
  const statistics = (await askRecord(shared.rpcPath, "statistics")).queues.map(recordOf);
  const histograms = (await askRecord(shared.rpcPath, "histograms")).queues.map(recordOf);
  expect(stats).toHaveLength(QUEUES);
  for (const [queue, counts] of stats.entries()) {
    expect(Number(counts.read_ops)).toBeGreaterThan(0);
    expect(counts.bytes_read).toBe(Number(counts.read_ops) * 4096);
    const all = recordOf(statistics[queue]);
    expect(all).toMatchObject({ ...counts, in_flight: 0, failed: 0, oldest_in_flight_ns: null });
    expect(all.completed).toBe(counts.read_ops);
    expect(Number(all.kicks)).toBeGreaterThan(0);
    const { count, p50_ns: p50, p99_ns: p99 } = recordOf(recordOf(all.latency).read);
    expect(count).toBe(counts.read_ops);
    expect(Number(p50)).toBeGreaterThan(500); // nothing reads a disk faster
    expect(Number(p99)).toBeGreaterThanOrEqual(Number(p50));
    const pairs = entriesOf(recordOf(histograms[queue]).read).map(entriesOf);
    expect(pairs.reduce((sum, pair) => sum + Number(pair[1]), 0)).toBe(Number(count));
  }
});

test("writes and flushes: counted as such", async () => {
  const before = recordOf((await askRecord(shared.rpcPath, "stats")).queues[0]);
  await runBench(shared.disk, "randwrite", "--flush-every", "8");
  const after = recordOf((await askRecord(shared.rpcPath, "stats")).queues[0]);
  expect(Number(after.write_ops)).toBeGreaterThan(Number(before.write_ops));
  expect(Number(after.flush_ops)).toBeGreaterThan(Number(before.flush_ops));
});

test("a queue that is left alone is told of until its ring is set up anew", async () => {
  const stopped = async () =>
    (await askRecord(shared.rpcPath, "statistics")).queues.map((queue) => recordOf(queue).stopped);
  using client = HostileClient.attach(shared.disk.socketPath);
  expect(await stopped()).toEqual([0, 0]);
  client.memory.setUint16(AVAILABLE + 2, 1000, true); // more than the ring has
  client.kick();
  expect(client.isRingBroken()).toBe(true);
  expect(await stopped()).toEqual([1, 0]);
  client.stopRing();
  client.restartRing();
  expect(await stopped()).toEqual([0, 0]);
  expect(client.isServed()).toBe(true);
});

test("too many clients: told so; a place that becomes free is given again", async () => {
  using stack = new DisposableStack();
  const clients = Array.from({ length: 16 }, () => stack.use(new RpcClient(shared.rpcPath)));
  for (const client of clients) {
    client.send(VERSION_REQUEST);
    await client.until(() => client.received === VERSION_ANSWER);
  }
  expect(await converse(shared.rpcPath, VERSION_REQUEST)).toBe(
    '{"code":"E_RPC_LIMIT","error":"too many clients: 16 are served at a time; try again later"}\n',
  );
  clients[3]?.[Symbol.dispose]();
  await untilAnswered();
});

test("200 clients at once: the backend goes on", async () => {
  {
    using stack = new DisposableStack();
    for (let i = 0; i < 200; i++) {
      stack.use(new RpcClient(shared.rpcPath)).send(VERSION_REQUEST);
    }
    await Bun.sleep(200);
  }
  await untilAnswered();
  expect(backend.isRunning()).toBe(true);
});

test("clients that go before their answers: their places are free again", async () => {
  for (const count of [1, 100, 5_000]) {
    for (let i = 0; i < 20; i++) {
      await sendAndGo(shared.rpcPath, VERSION_REQUEST.repeat(count));
    }
    await untilAnswered();
  }
});

test("client that does not read: its answers are not piled up, others are answered", async () => {
  using client = new RpcClient(shared.rpcPath);
  client.stopReading();
  const beforeKib = residentKib(backend.pid);
  for (let i = 0; i < 400; i++) {
    client.send('{"command":"statistics"}\n'.repeat(1000)); // would be answered with 300 MB
  }
  await Bun.sleep(500);
  expect(await converse(shared.rpcPath, VERSION_REQUEST)).toBe(VERSION_ANSWER);
  expect(residentKib(backend.pid) - beforeKib).toBeLessThan(20 * 1024);
});

test("endless line: told once, not kept, and the client goes on", async () => {
  using client = new RpcClient(shared.rpcPath);
  const beforeKib = residentKib(backend.pid);
  for (let i = 0; i < 64; i++) {
    client.send(Buffer.alloc(MIB, "x"));
  }
  client.send(`\n${VERSION_REQUEST}`);
  await client.until(() => client.received.endsWith(VERSION_ANSWER));
  expect(client.received.split("\n")[0]).toStartWith(
    '{"code":"E_RPC_LIMIT","error":"invalid request',
  );
  expect(client.received.split("\n")).toHaveLength(3);
  // What is dropped waits for the collector: some of it, not all.
  expect(residentKib(backend.pid) - beforeKib).toBeLessThan(40 * 1024);
});

test("invalid UTF-8: the connection closes, behind the answers to what came before", async () => {
  using client = new RpcClient(shared.rpcPath);
  client.send(Buffer.concat([Buffer.from(VERSION_REQUEST), Uint8Array.of(0xff, 0xfe, 10)]));
  client.send(VERSION_REQUEST);
  await client.until(() => client.isEnded);
  expect(client.received).toBe(VERSION_ANSWER);
});

test("random bytes and sudden ends: the backend goes on", async () => {
  for (let i = 0; i < 100; i++) {
    const bytes = crypto.getRandomValues(new Uint8Array(1 + ((i * 97) % 3000)));
    const socket = connect({ path: shared.rpcPath });
    socket.on("error", () => {}); // the backend may close first
    await new Promise<void>((done) => {
      socket.write(bytes, () => done());
      socket.once("close", () => done());
    });
    socket.destroy();
  }
  await untilAnswered();
});

test("socket file: mode 0660 under any umask, which stays as it was", async () => {
  using place = makePlace();
  await using own = await startBackend({
    command: [
      "sh",
      "-c",
      'umask 0 && exec "$@"',
      "sh",
      EXECUTABLE,
      "vhost",
      "--config",
      place.disk.configPath,
    ],
    socketPath: place.disk.socketPath,
    logPath: join(place.folder, "log"),
  });
  expect(lstatSync(place.rpcPath).mode & 0o777).toBe(0o660);
  expect(readFileSync(`/proc/${own.pid}/status`, "utf8")).toMatch(/^Umask:\s+0000$/m);
});

test("killed backend: the next one replaces its socket and removes its own", async () => {
  using place = makePlace();
  {
    await using killed = await startUbiblk(place.disk);
    process.kill(killed.pid, "SIGKILL");
    await killed.stop();
  }
  expect(existsSync(place.rpcPath)).toBe(true);
  await using next = await startAfterKill(place.disk);
  expect(await converse(place.rpcPath, VERSION_REQUEST)).toBe(VERSION_ANSWER);
  expect(await next.stop()).toBe(0);
  expect(existsSync(place.rpcPath)).toBe(false);
});

test("stop with clients connected: they are dropped, exit code 0", async () => {
  using place = makePlace();
  await using own = await startUbiblk(place.disk);
  using client = new RpcClient(place.rpcPath);
  client.send(VERSION_REQUEST);
  await client.until(() => client.received === VERSION_ANSWER);
  expect(await own.stop()).toBe(0);
  await client.until(() => client.isEnded);
});

test("another program's file in the place of the socket: it stays at the stop", async () => {
  using place = makePlace();
  await using own = await startUbiblk(place.disk);
  unlinkSync(place.rpcPath);
  writeFileSync(place.rpcPath, "precious");
  expect(await own.stop()).toBe(0);
  expect(readFileSync(place.rpcPath, "utf8")).toBe("precious");
});

test.each([
  { name: "file", code: "E_SOCKET_NOT_OURS", prepare: (path: string) => writeFileSync(path, "x") },
  { name: "folder", code: "E_SOCKET_NOT_OURS", prepare: (path: string) => mkdirSync(path) },
])("$name at rpc_socket: the start fails, and no front end sees the disk", async (each) => {
  using place = makePlace();
  each.prepare(place.rpcPath);
  const result = await runCommand([EXECUTABLE, "vhost", "--config", place.disk.configPath]);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(each.code);
  expect(result.stderr).toContain(`device.rpc_socket: ${place.rpcPath} exists`);
  expect(existsSync(place.rpcPath)).toBe(true);
  expect(existsSync(place.disk.socketPath)).toBe(false);
});

test("folder of rpc_socket missing: the start fails and says where", async () => {
  using place = makePlace("missing/rpc.sock");
  const result = await runCommand([EXECUTABLE, "vhost", "--config", place.disk.configPath]);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("E_SOCKET");
  expect(result.stderr).toContain(
    `cannot listen at ${place.rpcPath}: the folder ${dirname(place.rpcPath)} is missing`,
  );
});

test("rpc_socket in use: the start fails, the other backend goes on", async () => {
  using place = makePlace(shared.rpcPath);
  const result = await runCommand([EXECUTABLE, "vhost", "--config", place.disk.configPath]);
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("E_SOCKET_IN_USE");
  await untilAnswered();
});

// --- internal ---

/** Sends requests, and goes without a look at what comes back. */
function sendAndGo(path: string, requests: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.on("error", reject);
    socket.on("close", () => resolve());
    socket.on("connect", () => {
      socket.write(requests);
      socket.destroy();
    });
  });
}

interface Place extends Disposable {
  readonly folder: string;
  readonly disk: DiskFiles;
  readonly rpcPath: string;
}

/** A small encrypted disk of two queues, with an RPC socket. */
function makePlace(rpcSocket = "rpc.sock"): Place {
  const folder = mkdtempSync(join(BUILD_FOLDER, "rpc-"));
  const disk = writeDiskConfig({
    folder,
    isEncrypted: true,
    moreConfig: `rpc_socket = "${rpcSocket}"\n[tuning]\nnum_queues = ${QUEUES}\n`,
  });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, 16 * MIB);
  return {
    folder,
    disk,
    rpcPath: resolve(folder, rpcSocket),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** The kernel keeps a killed process's lock until its last I/O has ended. */
async function startAfterKill(disk: DiskFiles): Promise<Backend> {
  const endMs = performance.now() + 20_000;
  for (;;) {
    try {
      return await startUbiblk(disk);
    } catch (error) {
      if (!String(error).includes("E_DISK_LOCKED") || performance.now() > endMs) {
        throw error;
      }
      await Bun.sleep(50);
    }
  }
}

async function runBench(disk: DiskFiles, workload: string, ...flags: string[]): Promise<void> {
  const load = ["--workload", workload, "--block-size", "4K", "--time", "1", "--warmup", "0"];
  const command = [EXECUTABLE, "bench", "--socket", disk.socketPath, ...load, ...flags];
  const result = await runCommand(command, { timeoutMs: 20_000 });
  if (result.exitCode !== 0) {
    throw new Error(result.stderr);
  }
}

/** Waits until a client is served again: ends of others take a moment to be seen. */
async function untilAnswered(): Promise<void> {
  const endMs = performance.now() + 20_000;
  let answer = "";
  while (answer !== VERSION_ANSWER && performance.now() < endMs) {
    answer = await converse(shared.rpcPath, VERSION_REQUEST).catch(() => "");
  }
  expect(answer).toBe(VERSION_ANSWER);
}

/** What `command` answers for each queue. */
async function askRecord(
  path: string,
  command: string,
): Promise<{ readonly queues: readonly unknown[] }> {
  const answer = recordOf(await ask(path, command))[command];
  return { queues: Array.isArray(answer) ? answer : entriesOf(recordOf(answer).queues) };
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) {
    throw new Error(`${JSON.stringify(value)} is no object`);
  }
  return { ...value };
}

function entriesOf(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new Error(`${JSON.stringify(value)} is no array`);
  }
  return value;
}

function residentKib(pid: number): number {
  const text = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(text)?.[1]);
}
