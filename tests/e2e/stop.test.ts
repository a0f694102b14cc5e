/** SIGTERM and SIGINT: drain, flush, unlink, exit 0; a second one ends at once. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeMessage, encodeU64, REQUEST } from "../../src/formats/vhost-user.ts";
import { REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startBackend,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { at, DATA, HostileClient, WRITE } from "../support/hostile-client.ts";
import { attachLoopDevice, MountedDevice, missingMounts } from "../support/loop-device.ts";
import { skipUnless } from "../support/requires.ts";
import { converse } from "../support/rpc-client.ts";
import { endWhileItWaits } from "../support/waiting-command.ts";

const DISK_BYTES = 64 * 2 ** 20;
/** Far below what a stuck disk or front end would be waited for. */
const PROMPT_MS = 4_000;

const noMounts = missingMounts();
const testMount = skipUnless(noMounts ?? "", noMounts === undefined);

let folder: string;
let disk: DiskFiles;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-stop-"));
  const moreConfig = "[tuning]\nnum_queues = 2\n";
  disk = writeDiskConfig({ folder, isEncrypted: true, moreConfig });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, DISK_BYTES);
});

afterEach(() => rmSync(folder, { recursive: true }));

test.each(["SIGTERM", "SIGINT"] as const)("%s without a front end", async (signal) => {
  await using backend = await startUbiblk(disk);
  expect(await endedBy(backend, signal)).toEqual({ exitCode: 0, isPrompt: true });
  expect(existsSync(disk.socketPath)).toBe(false);
});

test.each([
  ["SIGTERM", 143],
  ["SIGINT", 130],
] as const)("%s before the key is there ends it as it does others: %d", async (signal, code) => {
  rmSync(join(folder, "key"));
  expect(Bun.spawnSync(["mkfifo", "-m", "600", join(folder, "key")]).exitCode).toBe(0);
  const words = ["vhost", "-f", disk.configPath];
  const { exitCode, told } = await endWhileItWaits(words, signal, folder);
  expect(exitCode).toBe(code);
  expect(told).not.toContain("error");
  expect(existsSync(disk.socketPath)).toBe(false);
});

test("stop by RPC, asked twice: answered, then as by a signal", async () => {
  const rpcPath = join(folder, "rpc.sock");
  disk = writeDiskConfig({ folder, isEncrypted: true, moreConfig: `rpc_socket = "${rpcPath}"\n` });
  await using backend = await startUbiblk(disk);
  using client = HostileClient.attach(disk.socketPath);
  expect(client.isServed()).toBe(true);
  const answer = await converse(rpcPath, '{"command":"stop"}\n["stop"]\n');
  expect(answer).toBe('{"stop":{"stopping":true}}\n'.repeat(2));
  expect(await ended(backend)).toEqual({ exitCode: 0, isPrompt: true });
  expect(client.isClosed()).toBe(true);
  expect(existsSync(disk.socketPath)).toBe(false);
  expect(existsSync(rpcPath)).toBe(false);
  expect(backend.log()).toContain("signal=rpc");
});

test("SIGTERM with an idle front end", async () => {
  await using backend = await startUbiblk(disk);
  using client = HostileClient.attach(disk.socketPath);
  expect(client.isServed()).toBe(true);
  expect(await endedBy(backend, "SIGTERM")).toEqual({ exitCode: 0, isPrompt: true });
  expect(client.isClosed()).toBe(true);
  expect(existsSync(disk.socketPath)).toBe(false);
});

test.each(["io_uring", "sync"])("SIGTERM under load, %s", async (engine) => {
  const moreConfig = `[tuning]\nnum_queues = 2\nio_engine = "${engine}"\n`;
  disk = writeDiskConfig({ folder, isEncrypted: true, moreConfig });
  await using backend = await startUbiblk(disk);
  const words = [
    "--workload=randwrite",
    "--queues=2",
    "--time=20",
    "--warmup=0",
    "--flush-every=16",
  ];
  const load = Bun.spawn([EXECUTABLE, "bench", `--socket=${disk.socketPath}`, ...words], {
    stdout: "ignore",
    stderr: "ignore",
  });
  await Bun.sleep(700);
  expect(load.exitCode).toBeNull();
  expect(await endedBy(backend, "SIGTERM")).toEqual({ exitCode: 0, isPrompt: true });
  expect(existsSync(disk.socketPath)).toBe(false);
  expect(backend.log()).not.toContain("ERROR");
  load.kill("SIGKILL");
  await load.exited;
});

test("what was written before SIGTERM is there after the next start", async () => {
  {
    await using backend = await startUbiblk(disk);
    using client = HostileClient.attach(disk.socketPath);
    expect(client.isServed(77, 0x42)).toBe(true);
    expect(await endedBy(backend, "SIGTERM")).toEqual({ exitCode: 0, isPrompt: true });
  }
  await using _backend = await startUbiblk(disk);
  using client = HostileClient.attach(disk.socketPath);
  const data = { address: at(DATA), length: 512, flags: WRITE };
  client.submit([client.header(0, REQUEST_TYPE.IN, 77), data, client.statusByte(0)]);
  expect(client.bytes.subarray(DATA, DATA + 512).every((byte) => byte === 0x42)).toBe(true);
});

test("a front end that stops in the middle of a message does not hold SIGTERM up", async () => {
  await using backend = await startUbiblk(disk);
  using client = new HostileClient(disk.socketPath);
  client.sendBytes(encodeMessage(REQUEST.SET_FEATURES, 0, encodeU64(0n)).subarray(0, 7));
  await Bun.sleep(200);
  expect(await endedBy(backend, "SIGTERM")).toEqual({ exitCode: 0, isPrompt: true });
  expect(existsSync(disk.socketPath)).toBe(false);
});

test("a log that nobody reads holds neither requests nor the stop up", async () => {
  const logPath = join(folder, "log.pipe");
  expect(Bun.spawnSync(["mkfifo", "-m", "600", logPath]).exitCode).toBe(0);
  const pipe = openSync(logPath, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    fill(pipe);
    await using backend = await startBackend({
      command: [EXECUTABLE, "vhost", "--config", disk.configPath],
      socketPath: disk.socketPath,
      logPath,
      env: { ...process.env, UBIBLK_LOG: "debug" },
    });
    {
      using client = HostileClient.attach(disk.socketPath);
      expect(client.isServed()).toBe(true);
    }
    expect(readSync(pipe, new Uint8Array(2 ** 20))).toBeGreaterThan(0);
    using client = HostileClient.attach(disk.socketPath);
    expect(client.isServed()).toBe(true);
    const text = new Uint8Array(2 ** 20);
    const story = new TextDecoder().decode(text.subarray(0, readSync(pipe, text)));
    expect(story).toMatch(/^\[WARN \] \d+ lines were lost: nobody read the log\n\[/m);
    fill(pipe);
    expect(await endedBy(backend, "SIGTERM")).toEqual({ exitCode: 0, isPrompt: true });
  } finally {
    closeSync(pipe);
  }
});

testMount(
  "a disk that does not answer holds the stop up; a second signal ends it at once",
  async () => {
    using device = attachLoopDevice({
      backingPath: join(folder, "backing.img"),
      sizeBytes: DISK_BYTES,
      sectorBytes: 512,
    });
    using mount = new MountedDevice(device, folder);
    const slow = writeDiskConfig({ folder, isEncrypted: true, dataPath: mount.file(2 ** 20) });
    await using backend = await startUbiblk(slow);
    using client = HostileClient.attach(slow.socketPath);
    mount.freeze();
    client.setChain(0, [
      client.header(0, REQUEST_TYPE.OUT, 0),
      { address: at(DATA), length: 4096, flags: 0 },
      client.statusByte(0),
    ]);
    client.offer(0);
    client.kick();
    await Bun.sleep(1_000); // the write is under way
    process.kill(backend.pid, "SIGTERM");
    await Bun.sleep(300);
    const wasRunning = backend.isRunning();
    process.kill(backend.pid, "SIGINT");
    await Bun.sleep(100);
    mount.thaw();
    expect(wasRunning).toBe(true);
    expect(await backend.stop()).toBe(1);
    expect(backend.log()).toContain("second signal");
  },
);

// --- internal ---

/** Leaves no room in a pipe, for which `fd` must not block. */
function fill(fd: number): void {
  for (const bytes of [4096, 1]) {
    try {
      for (;;) {
        writeSync(fd, new Uint8Array(bytes));
      }
    } catch (error) {
      expect(error).toHaveProperty("code", "EAGAIN");
    }
  }
}

async function endedBy(backend: Backend, signal: "SIGTERM" | "SIGINT") {
  process.kill(backend.pid, signal);
  return await ended(backend);
}

async function ended(backend: Backend) {
  const startMs = performance.now();
  while (backend.isRunning() && performance.now() - startMs < PROMPT_MS) {
    await Bun.sleep(5);
  }
  const isPrompt = !backend.isRunning();
  return { exitCode: await backend.stop(), isPrompt };
}
