/** What the running executable tells: its form, how much, changed while it runs, and never a secret. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { closeDescriptor } from "../../src/ffi/socket.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startBackend,
  writeDiskConfig,
} from "../support/backend.ts";
import { HostileClient } from "../support/hostile-client.ts";
import { ask, converse } from "../support/rpc-client.ts";
import { socketPair } from "../support/socket-pair.ts";
import { until } from "../support/until.ts";

let folder: string;
let disk: DiskFiles;
let rpcPath: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-log-"));
  disk = writeDiskConfig({ folder, isEncrypted: true });
  rpcPath = join(folder, "rpc.sock");
  const config = readFileSync(disk.configPath, "utf8");
  writeFileSync(
    disk.configPath,
    config.replace("[device]\n", '[device]\nrpc_socket = "rpc.sock"\n'),
  );
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, 4 * 2 ** 20);
});

afterEach(() => rmSync(folder, { recursive: true }));

test("JSON: every line is an object that says when, how grave, what, and which thread", async () => {
  await using backend = await start(["--log-format=json", "--log-level=debug"]);
  visit();
  await until("the visit is told", () => backend.log().includes("front end disconnected"));
  expect(await backend.stop()).toBe(0);
  const events = linesOf(backend).map((line) => JSON.parse(line));
  for (const { time, level, message, thread } of events) {
    expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(level).toMatch(/^(error|warn|info|debug)$/);
    expect([typeof message, typeof thread]).toEqual(["string", "string"]);
  }
  expect(events.find(({ message }) => message === "ready")).toMatchObject({
    level: "info",
    thread: "main",
    fields: { socket: disk.socketPath, queues: 1 },
  });
  const request = events.find(({ message }) => message === "request");
  expect(request).toMatchObject({ level: "debug", thread: "vhost-control" });
});

test("the level is changed while it runs, at once in a thread that sleeps", async () => {
  await using backend = await start(["--log-level", "error"]);
  visit();
  expect(await ask(rpcPath, "log_level")).toEqual({ log_level: "error" });
  expect(backend.log()).toBe("");
  await converse(rpcPath, '{"command":"set_log_level","level":"debug"}\n');
  visit();
  await until("requests are told", () => backend.log().includes("[DEBUG] request name="));
  await converse(rpcPath, '{"command":"set_log_level","level":"error"}\n');
  const before = linesOf(backend).filter((line) => line.includes("front end connected")).length;
  visit();
  expect(await backend.stop()).toBe(0);
  const after = linesOf(backend).filter((line) => line.includes("front end connected")).length;
  expect(after).toBe(before);
  expect(backend.log()).not.toContain("stopped");
});

test("RUST_LOG=off: nothing is told but the error that ends the program", async () => {
  {
    await using backend = await start([], { RUST_LOG: "off" });
    visit();
    expect(await backend.stop()).toBe(0);
    expect(backend.log()).toBe("");
  }
  truncateSync(disk.dataPath, 0);
  const failed = Bun.spawnSync(commandOf([]), { env: { ...process.env, RUST_LOG: "off" } });
  expect(failed.stderr.toString()).toStartWith("ubiblk: error E_DISK_SIZE: ");
});

test("where standard error is what the journal reads, lines begin with their priority", () => {
  truncateSync(disk.dataPath, 0);
  // As systemd does it: the variable names device and inode of what descriptor 2 is.
  const script = 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"';
  const run = (command: readonly string[]) =>
    Bun.spawnSync(["sh", "-c", script, "sh", ...command], {
      env: { ...process.env, UBIBLK_LOG: "info" },
    }).stderr.toString();
  expect(run(commandOf([]))).toMatch(/^<4>.*\n<3>ubiblk: error E_DISK_SIZE: [^\n]*\n$/);
  expect(run(commandOf(["--log-format=json"]))).toMatch(/\n<3>\{"time":.*"code":"E_DISK_SIZE"/);
  const elsewhere = ["sh", "-c", 'exec "$@" 2>&1 1>/dev/null | cat >&2', "sh", ...commandOf([])];
  expect(run(elsewhere)).toContain("\nubiblk: error E_DISK_SIZE: ");
});

test("at the level debug no secret is told, in whatever form", async () => {
  const key = readFileSync(join(folder, "key"));
  const kek = crypto.getRandomValues(Buffer.alloc(32));
  const inline = "correct horse battery staple";
  writeFileSync(join(folder, "kek"), kek, { mode: 0o600 });
  writeFileSync(
    disk.configPath,
    readFileSync(disk.configPath, "utf8")
      .replace("[danger_zone]\n", "[danger_zone]\nallow_inline_plaintext_secrets = true\n")
      .concat(
        `[secrets.unused]\nsource.inline = "${inline}"\n[secrets.kek]\nsource.file = "kek"\n`,
      ),
    { mode: 0o600 },
  );
  await using backend = await start(["--log-level=debug"]);
  visit();
  await until("the visit is told", () => backend.log().includes("front end disconnected"));
  for (const command of ["log_level", "status", "statistics", "requests", "nope"]) {
    await ask(rpcPath, command);
  }
  expect(await backend.stop()).toBe(0);
  expect(backend.log()).toContain("unused");
  const forms = [key, key.subarray(0, 32), key.subarray(32), kek].flatMap((secret) => [
    secret.toString("hex"),
    secret.toString("base64").slice(0, 40),
    secret.toString("latin1"),
  ]);
  expect([...forms, inline].filter((form) => backend.log().includes(form))).toEqual([]);
});

test("a journal that stands still holds up neither RPC nor front ends, nor the stop", async () => {
  const { own, given } = socketPair();
  const backend = Bun.spawn([...commandOf(["--log-level=debug"])], {
    stdio: ["ignore", "ignore", given],
  });
  try {
    await until("it serves", () => existsSync(rpcPath) && existsSync(disk.socketPath));
    for (let i = 0; i < 1000; i++) {
      expect(await ask(rpcPath, "log_level")).toEqual({ log_level: "debug" });
    }
    visit();
    backend.kill();
    expect(await backend.exited).toBe(0);
  } finally {
    backend.kill("SIGKILL");
    closeDescriptor(own);
    closeDescriptor(given);
  }
});

// --- internal ---

function commandOf(flags: readonly string[]): string[] {
  return [EXECUTABLE, "vhost", "--config", disk.configPath, ...flags];
}

function start(flags: readonly string[], variables: Readonly<Record<string, string>> = {}) {
  return startBackend({
    command: commandOf(flags),
    socketPath: disk.socketPath,
    logPath: join(folder, "log"),
    env: { ...process.env, UBIBLK_LOG: undefined, RUST_LOG: undefined, ...variables },
  });
}

/** A front end comes, is served and goes. */
function visit(): void {
  using client = HostileClient.attach(disk.socketPath);
  expect(client.isServed()).toBe(true);
}

function linesOf(backend: Backend): readonly string[] {
  return backend.log().split("\n").slice(0, -1);
}
