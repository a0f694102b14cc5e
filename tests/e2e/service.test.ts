/** The executable as a service: what it tells its manager, its watchdog, and sockets that it was started with. */
import { afterEach, beforeEach, expect } from "bun:test";
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { type DiskFiles, EXECUTABLE, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { at, DATA, HostileClient, WRITE } from "../support/hostile-client.ts";
import { skipUnless, skipUnlessInstalled } from "../support/requires.ts";
import { ask } from "../support/rpc-client.ts";
import { ManagedService, type ManagedSocket } from "../support/service-manager.ts";
import { RawClient, readRequest } from "../support/stripe-server.ts";
import { until } from "../support/until.ts";

const DISK_BYTES = 4 * 2 ** 20;
const WATCHDOG_MS = 1_600;
const TEST_MS = 60_000;
const SOCK_DGRAM = 2;

const test: Declare = (name, body) => skipUnlessInstalled("python3")(name, body, TEST_MS);
const noFuse = missingFuse();
const testFuse: Declare = (name, body) =>
  skipUnless(noFuse ?? "", noFuse === undefined)(name, body, TEST_MS);

type Declare = (name: string, body: () => Promise<void>) => void;

let folder: string;
let disk: DiskFiles;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-service-"));
  writeDisk("");
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, DISK_BYTES);
});

afterEach(() => rmSync(folder, { recursive: true }));

for (const notify of [undefined, `@ubiblk-test-${process.pid}`]) {
  test(`vhost tells when it serves, what, and that it stops (${notify ?? "a path"})`, async () => {
    await using service = manage({ ...(notify === undefined ? {} : { notify }) });
    await until("it is ready", () => service.hasTold("READY=1"));
    using client = HostileClient.attach(disk.socketPath);
    expect(client.isServed()).toBe(true);
    expect(await service.stop()).toBe(0);
    const told = service.notices.map(({ lines }) => lines);
    expect(told).toEqual([
      [`STATUS=opening ${disk.dataPath}`],
      ["READY=1", `STATUS=serving ${disk.dataPath} at ${disk.socketPath}`],
      ["STOPPING=1", "STATUS=requests under way end, the disk is flushed"],
    ]);
  });
}

test("a start that fails is never ready", async () => {
  truncateSync(disk.dataPath, 0);
  await using service = manage({});
  expect(await service.ended()).toBe(1);
  expect(service.hasTold("READY=1")).toBe(false);
});

test("a manager that nobody can reach by its name is told of and no more", async () => {
  await using service = manage({}, (argv) => ["env", `NOTIFY_SOCKET=${"x".repeat(9000)}`, ...argv]);
  await until("it serves", () => existsSync(disk.socketPath));
  expect(await service.stop()).toBe(0);
  expect(service.log).toContain("ENAMETOOLONG");
});

test("a manager that has gone: the disk is served, and the log says so", async () => {
  await using service = manage(
    { env: { UBIBLK_LOG: "warn" }, notify: join(folder, "n") },
    (argv) => ["env", `NOTIFY_SOCKET=${join(folder, "missing")}`, ...argv],
  );
  await until("it serves", () => existsSync(disk.socketPath));
  await until("the log tells", () => service.log.includes("cannot tell the service manager"));
  expect(await service.stop()).toBe(0);
});

test("the watchdog hears of it in time while all is idle, and not without being asked", async () => {
  await using service = manage({ watchdogMs: WATCHDOG_MS });
  await using quiet = new ManagedService({
    folder: mkdtempSync(join(folder, "quiet-")),
    command: commandOf(otherDisk().configPath),
  });
  await until("signs of life", () => signsOf(service).length >= 6);
  const gaps = signsOf(service).map((ms, i, all) => (i === 0 ? 0 : ms - (all[i - 1] ?? 0)));
  expect(Math.max(...gaps)).toBeLessThan(WATCHDOG_MS);
  expect(signsOf(quiet)).toEqual([]);
});

test("a watchdog that is meant for another process is not ours", async () => {
  await using service = manage({ watchdogMs: 200, env: { WATCHDOG_PID: "1" } });
  await until("it is ready", () => service.hasTold("READY=1"));
  await Bun.sleep(500);
  expect(signsOf(service)).toEqual([]);
});

testFuse("a queue that hangs in its disk lets the watchdog run out, and says so", async () => {
  await using image = hangingDisk("sync");
  await using service = manage({ watchdogMs: WATCHDOG_MS });
  await until("signs of life", () => signsOf(service).length >= 2);
  image.halt();
  using client = HostileClient.attach(disk.socketPath);
  beginRead(client);
  await until("it complains", () => service.log.includes('threads="queue 0"'));
  const before = signsOf(service).length;
  await Bun.sleep(1.5 * WATCHDOG_MS);
  expect(signsOf(service)).toHaveLength(before);
  image.goOn();
  await until("signs of life again", () => signsOf(service).length > before + 1);
});

testFuse("a disk that hangs under io_uring is no failure of the service", async () => {
  await using image = hangingDisk("io_uring");
  await using service = manage({ watchdogMs: WATCHDOG_MS });
  await until("it is ready", () => service.hasTold("READY=1"));
  image.halt();
  {
    using client = HostileClient.attach(disk.socketPath);
    beginRead(client);
    // A front end that goes is waited for until its requests have ended, which they do not.
  }
  const before = signsOf(service).length;
  await Bun.sleep(1.5 * WATCHDOG_MS);
  expect(signsOf(service).length).toBeGreaterThan(before + 3);
  image.goOn();
});

test("sockets of the manager are served, also who came first, and their files stay", async () => {
  const paths = { vhost: join(folder, "their.sock"), rpc: join(folder, "their-rpc.sock") };
  await using service = manage({
    sockets: [
      { name: "rpc", path: paths.rpc },
      { name: "vhost", path: paths.vhost },
    ],
  });
  await until("the manager listens", () => existsSync(paths.vhost) && existsSync(paths.rpc));
  expect(await ask(paths.rpc, "log_level")).toEqual({ log_level: "info" });
  using client = HostileClient.attach(paths.vhost);
  expect(client.isServed()).toBe(true);
  expect(existsSync(disk.socketPath)).toBe(false);
  expect(service.log).toContain("is not at device.vhost_socket");
  expect(await service.stop()).toBe(0);
  expect(existsSync(paths.vhost) && existsSync(paths.rpc)).toBe(true);
});

test("a single socket needs neither a name nor vhost_socket in the document", async () => {
  const config = readFileSync(disk.configPath, "utf8");
  writeFileSync(disk.configPath, config.replace(/^vhost_socket = .*\n/m, ""));
  const path = join(folder, "their.sock");
  await using service = manage({ sockets: [{ name: "ubiblk-vhost@disk1.socket", path }] });
  await until("it is ready", () => service.hasTold("READY=1"));
  using client = HostileClient.attach(path);
  expect(client.isServed()).toBe(true);
});

test("sockets that are meant for another process are left alone", async () => {
  const sockets = [{ name: "vhost", path: join(folder, "their.sock") }];
  await using service = manage({ listenPid: 1, sockets });
  await until("it is ready", () => service.hasTold("READY=1"));
  expect(existsSync(disk.socketPath)).toBe(true);
});

const UNUSABLE: readonly (readonly [string, readonly ManagedSocket[], string])[] = [
  ["a file", [{ name: "vhost", file: "/etc/passwd" }], "it is no stream socket that listens"],
  ["datagrams", [{ name: "vhost", path: "d", type: SOCK_DGRAM }], "it is no stream socket"],
  ["TCP", [{ name: "vhost", port: 0 }], "the vhost socket is a Unix socket"],
  [
    "two of one name",
    [
      { name: "vhost", path: "a" },
      { name: "vhost", path: "b" },
    ],
    "there is another vhost socket already",
  ],
  [
    "two without names",
    [{ path: "a" }, { path: "b" }],
    'it is named "", and FileDescriptorName= has to be vhost or rpc',
  ],
];
for (const [what, sockets, why] of UNUSABLE) {
  test(`what is no socket to serve is refused: ${what}`, async () => {
    await using service = manage({ sockets });
    expect(await service.ended()).toBe(1);
    expect(service.log).toContain(`ubiblk: error E_SOCKET: cannot use descriptor`);
    expect(service.log).toContain(why);
  });
}

test("a stripe server serves a TCP socket of the manager, unencrypted only when that is allowed", async () => {
  const sockets = [{ name: "stripes", port: 0 }];
  const listen = join(folder, "listen.toml");
  const command = [EXECUTABLE, "stripe-server", "-f", disk.configPath, "--listen-config", listen];
  writeDisk("", "metadata_path = 'meta'\n");
  const made = Bun.spawnSync([EXECUTABLE, "init-metadata", "--config", disk.configPath]);
  expect(made.exitCode).toBe(0);
  writeFileSync(listen, '[server]\nunix_socket = "s.sock"\n', { mode: 0o600 });
  {
    await using service = new ManagedService({ folder, command, sockets });
    expect(await service.ended()).toBe(1);
    expect(service.log).toContain(
      "error E_CONFIG_DANGER: server.psk: missing for the socket at 127.",
    );
  }
  rmSync(join(folder, "notify"));
  const danger = "[danger_zone]\nenabled = true\nallow_unencrypted_connection = true\n";
  writeFileSync(listen, `[server]\nunix_socket = "s.sock"\n${danger}`, { mode: 0o600 });
  await using service = new ManagedService({ folder, command, sockets, watchdogMs: 400 });
  await until("it is ready", () => service.hasTold("READY=1"));
  using client = await RawClient.connect(service.port);
  client.send(readRequest(0));
  expect((await client.take(1)).length).toBe(1);
  await until("signs of life", () => signsOf(service).length >= 2);
  expect(await service.stop()).toBe(0);
  expect(existsSync(join(folder, "s.sock"))).toBe(false);
});

skipUnless("giving files away needs root", process.getuid?.() === 0)(
  "sockets have the mode and the owners that the document says",
  async () => {
    writeDisk(
      "",
      'vhost_socket_mode = "0600"\nvhost_socket_owner = "nobody"\nrpc_socket = "rpc.sock"\n' +
        'rpc_socket_mode = "640"\nrpc_socket_group = "12345"\n',
    );
    await using _backend = await startUbiblk(disk);
    const socket = lstatSync(disk.socketPath);
    expect({ mode: socket.mode & 0o777, uid: socket.uid, gid: socket.gid }).toEqual({
      mode: 0o600,
      uid: 65_534,
      gid: process.getgid?.() ?? 0,
    });
    const rpc = lstatSync(join(folder, "rpc.sock"));
    expect({ mode: rpc.mode & 0o777, uid: rpc.uid, gid: rpc.gid }).toEqual({
      mode: 0o640,
      uid: 0,
      gid: 12_345,
    });
  },
);

skipUnless("another user needs root", process.getuid?.() === 0)(
  "a socket that may not be given away is no socket: the start fails and leaves nothing",
  () => {
    writeDisk("", 'vhost_socket_owner = "root"\n');
    for (const path of [folder, disk.dataPath, disk.configPath]) {
      chownSync(path, 65_534, 65_534);
    }
    const command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const { exitCode, stderr } = Bun.spawnSync([...command, ...commandOf(disk.configPath)]);
    expect(stderr.toString()).toContain("E_SOCKET: cannot listen at");
    expect(stderr.toString()).toContain("only root gives a socket to others");
    expect(exitCode).toBe(1);
    expect(existsSync(disk.socketPath)).toBe(false);
  },
);

// --- internal ---

function writeDisk(moreConfig: string, deviceKeys = ""): void {
  disk = writeDiskConfig({ folder, isEncrypted: false, moreConfig });
  const config = readFileSync(disk.configPath, "utf8");
  writeFileSync(disk.configPath, config.replace("[device]\n", `[device]\n${deviceKeys}`));
}

function otherDisk(): DiskFiles {
  const other = writeDiskConfig({ folder: join(folder, "other"), isEncrypted: false });
  writeFileSync(other.dataPath, "", { mode: 0o600 });
  truncateSync(other.dataPath, DISK_BYTES);
  return other;
}

/** The disk becomes a file that can be made to hang. */
function hangingDisk(ioEngine: string): FuseImage {
  writeDisk(`[tuning]\nio_engine = "${ioEngine}"\n`, "read_only = true\n");
  renameSync(disk.dataPath, join(folder, "real.img"));
  return new FuseImage(join(folder, "real.img"), disk.dataPath);
}

/** A read of what no page cache has; nobody waits for its end. */
function beginRead(client: HostileClient): void {
  const header = client.header(0, REQUEST_TYPE.IN, DISK_BYTES / 1024);
  const data = { address: at(DATA), length: 512, flags: WRITE };
  client.setChain(0, [header, data, client.statusByte(0)]);
  client.offer(0);
  client.kick();
}

function commandOf(configPath: string): readonly string[] {
  return [EXECUTABLE, "vhost", "--config", configPath];
}

function manage(
  options: Omit<ConstructorParameters<typeof ManagedService>[0], "folder" | "command">,
  wrap: (argv: readonly string[]) => readonly string[] = (argv) => argv,
): ManagedService {
  return new ManagedService({ ...options, folder, command: wrap(commandOf(disk.configPath)) });
}

/** When the watchdog heard of it. */
function signsOf(service: ManagedService): readonly number[] {
  return service.notices.filter(({ lines }) => lines.includes("WATCHDOG=1")).map(({ ms }) => ms);
}
