/** What goes with a disk from process to process: stripes that are being fetched, what commands changed, secrets. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { runCommand } from "../../scripts/command.ts";
import { decodeConfigPart, encodeConfigPart, REQUEST } from "../../src/formats/vhost-user.ts";
import { CONFIG_WRITEBACK_OFFSET, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { DiskToArchive } from "../support/archived-disk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { at, DATA, ENTRIES, HostileClient, WRITE } from "../support/hostile-client.ts";
import { expectSame } from "../support/lazy-disk.ts";
import { startUncertainRing } from "../support/left-ring.ts";
import { startStripeServer } from "../support/stripe-server.ts";
import { until } from "../support/until.ts";
import { isRunning, UpgradableDisk } from "../support/upgradable-disk.ts";

const MIB = 2 ** 20;
const STRIPES = 48;
const UPGRADES = 6;
const RATE = 40 * MIB;

test.each([
  ["a raw image", () => imageSource()],
  ["an archive", archiveSource],
] as const)(
  "a disk that is filled from %s: upgraded again and again, and every stripe comes",
  async (_, makeSource) => {
    using source = await makeSource();
    await using disk = new UpgradableDisk({
      diskBytes: STRIPES * MIB,
      device: 'metadata_path = "meta"\ntrack_written = true\n',
      sections: source.sections,
    });
    await init(disk);
    await disk.start();
    for (let round = 0; round < UPGRADES; round++) {
      const wanted = (STRIPES / UPGRADES) * round;
      await until("stripes come", async () => (await fetched(disk)) >= wanted);
      writeSector(disk, round * 5 * MIB, 0xa0 + round);
      const { upgrade } = await disk.upgrade();
      expect(upgrade?.pid).toBe(disk.pid);
      expect(await fetched(disk)).toBeGreaterThanOrEqual(wanted);
    }
    await until("all stripes came", async () => (await fetched(disk)) === STRIPES);
    await disk.stop();
    const expected = Buffer.from(source.content);
    for (let round = 0; round < UPGRADES; round++) {
      expected.fill(0xa0 + round, round * 5 * MIB, round * 5 * MIB + 512);
    }
    expectSame(readFileSync(disk.file("disk.raw")), expected);
    expect(disk.log()).not.toContain("ERROR");
    const dump = await runCommand([EXECUTABLE, "dump-metadata", "-f", "disk.toml"], {
      cwd: disk.folder,
      timeoutMs: 20_000,
    });
    expect(dump.exitCode).toBe(0);
  },
);

test("limits, the pause and rate of the fetch and the log level stay as commands left them", async () => {
  using source = imageSource(MIB); // much is missing as long as commands and upgrades take
  await using disk = new UpgradableDisk({
    diskBytes: STRIPES * MIB,
    device: 'metadata_path = "meta"\n',
    sections: source.sections,
  });
  await init(disk);
  await disk.start();
  const limits = { iops: 5000, iops_burst: 700, write_bytes_per_second: 10 * MIB };
  const changes = [
    { command: "set_limits", ...limits },
    { command: "pause_fetch" },
    { command: "set_fetch_rate", bytes_per_second: 3 * MIB },
    { command: "set_log_level", level: "warn" },
  ];
  for (const change of changes) {
    expect(await disk.command(change)).not.toHaveProperty("error");
  }
  for (const _ of [1, 2]) {
    expect((await disk.upgrade()).upgrade?.pid).toBe(disk.pid);
    expect(await disk.command({ command: "limits" })).toMatchObject({ limits });
    const fetch = { paused: true, limit_bytes_per_second: 3 * MIB };
    expect(await disk.command({ command: "status" })).toMatchObject({ status: { fetch } });
    expect(await disk.command({ command: "log_level" })).toEqual({ log_level: "warn" });
  }
});

test("what no command changed is as the configuration has it by now", async () => {
  await using disk = new UpgradableDisk({ diskBytes: 4 * MIB, sections: "[limits]\niops = 100" });
  await disk.start();
  disk.configure((text) => text.replace("iops = 100", "iops = 200"));
  await disk.upgrade();
  expect(await disk.command({ command: "limits" })).toMatchObject({ limits: { iops: 200 } });
});

test("a guest that turned its write cache off finds it off", async () => {
  await using disk = new UpgradableDisk({ diskBytes: 4 * MIB });
  await disk.start();
  {
    using client = new HostileClient(disk.socketPath);
    client.negotiate([]);
    const bytes = Uint8Array.of(0);
    client.command(
      REQUEST.SET_CONFIG,
      encodeConfigPart({ offset: CONFIG_WRITEBACK_OFFSET, flags: 0, bytes }),
    );
  }
  await disk.upgrade();
  using client = new HostileClient(disk.socketPath);
  client.negotiate([]);
  const part = { offset: CONFIG_WRITEBACK_OFFSET, flags: 0, bytes: new Uint8Array(1) };
  const answer = decodeConfigPart(client.ask(REQUEST.GET_CONFIG, encodeConfigPart(part)));
  expect(answer.bytes).toEqual(Uint8Array.of(0));
});

test("a ring that a dead backend left is not taken for one that ended here", async () => {
  await using disk = new UpgradableDisk({ diskBytes: 4 * MIB });
  await disk.start();
  const isLeftAlone = async () => {
    using client = startUncertainRing(disk.socketPath);
    const isBroken = client.isRingBroken();
    const { error } = await disk.upgrade();
    return isBroken && client.usedIndex() === 2 * ENTRIES && error?.includes("is left alone");
  };
  expect((await disk.upgrade()).error).toBeUndefined();
  expect(await isLeftAlone()).toBe(true); // nobody had it before
  await until("the front end has gone", () => disk.log().includes("front end disconnected"));
  expect((await disk.upgrade()).error).toBeUndefined();
  expect(await isLeftAlone()).toBe(true); // it was left alone before
});

test("secrets of the environment and of a pipe come along, and nobody finds them", async () => {
  const key = "5".repeat(64);
  await using disk = new UpgradableDisk({
    diskBytes: 4 * MIB,
    sections: `[encryption]\nxts_key.ref = "k"\n[secrets.k]\nsource.env = "DISK_KEY"`,
  });
  disk.configure((text) =>
    text.replace("enabled = true", "enabled = true\nallow_env_secrets = true"),
  );
  await disk.start({ DISK_KEY: key });
  writeSector(disk, 0, 0x11);
  const before = disk.pid;
  expect((await disk.upgrade()).upgrade?.pid).toBe(disk.pid);
  await until("the old process has ended", () => !isRunning(before));
  expect(sectorOf(disk, 0)).toBe(0x11);
  const facts = ["environ", "cmdline"].map((name) =>
    readFileSync(`/proc/${disk.pid}/${name}`, "latin1"),
  );
  expect(facts.join("\n")).not.toContain(key);
  expect(disk.log()).not.toContain(key);
  // Of memory without a name in any file system only the code is left, once the guest's is let go of.
  const memory = () => disk.openFiles().filter((file) => file.includes("memfd"));
  await until("one memory file is left", () => memory().length === 1);
  expect(memory()).toEqual(["/memfd:libubi.so (deleted)"]);
});

test("SIGUSR2 upgrades as well", async () => {
  await using disk = new UpgradableDisk({ diskBytes: 4 * MIB });
  const backend = await disk.start();
  process.kill(disk.pid, "SIGUSR2");
  await until("the new process tells", () => disk.log().includes("upgradedFrom="));
  await until("the old one has ended", () => !backend.isRunning());
  expect(await backend.stop()).toBe(0);
  disk.adopt(Number(/upgraded: .* pid=(\d+)/.exec(disk.log())?.[1]));
  writeSector(disk, 0, 0x22);
  expect(sectorOf(disk, 0)).toBe(0x22);
});

test("SIGUSR2 ends no stripe server: it says that this is not for it", async () => {
  using folder = new DiskToArchive({ stripeShift: 11, flags: [3] });
  const danger = "[danger_zone]\nenabled = true\nallow_unencrypted_connection = true\n";
  folder.write("server.toml", `[server]\nunix_socket = "s.sock"\n${danger}`);
  const flags = ["-f", "disk.toml", "--listen-config", "server.toml"];
  await using server = await startStripeServer(folder.folder, flags);
  process.kill(server.pid, "SIGUSR2");
  await until("it says so", () => server.log().includes("SIGUSR2 is for ubiblk vhost alone"));
  expect(server.isRunning()).toBe(true);
});

test("SIGUSR2 ends no command: from the first moment on it is of no account", async () => {
  // Waits for the writer of a pipe, as long as anybody likes.
  using folder = new DiskToArchive({ stripeShift: 11, flags: [0] });
  Bun.spawnSync(["mkfifo", "-m", "600", folder.file("fifo")]);
  const child = Bun.spawn([EXECUTABLE, "config", "check", "-f", "fifo"], {
    cwd: folder.folder,
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, UBIBLK_LOG: "info" },
  });
  await until("the signal is listened to", () => catches(child.pid, SIGUSR2));
  child.kill("SIGUSR2");
  await Bun.sleep(100);
  expect(child.signalCode ?? child.exitCode).toBeNull();
  child.kill("SIGKILL");
  await child.exited;
});

test("who has the disk is told by name, also when the process that locked it has ended long ago", async () => {
  await using disk = new UpgradableDisk({ diskBytes: 4 * MIB });
  await disk.start();
  const before = disk.pid;
  await disk.upgrade();
  await until("the old process has ended", () => !isRunning(before));
  disk.configure((text) => text.replace("vhost.sock", "other.sock").replace("rpc.sock", "r.sock"));
  const { exitCode, stderr } = await runCommand([EXECUTABLE, "vhost", "-f", "disk.toml"], {
    cwd: disk.folder,
    timeoutMs: 30_000,
  });
  expect(exitCode).toBe(1);
  expect(stderr).toContain(`is in use by process ${disk.pid};`);
});

// --- internal ---

const SIGUSR2 = 12;

function catches(pid: number, signal: number): boolean {
  const mask = /^SigCgt:\s*(\w+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
  return ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}

interface Source extends Disposable {
  readonly sections: string;
  readonly content: Uint8Array;
}

function imageSource(bytesPerSecond = RATE): Source {
  const folder = new DiskToArchive({ stripeShift: 11, flags: new Array(STRIPES).fill(0) });
  return {
    sections: `[stripe_source]\ntype = "raw"\nimage_path = "${folder.file("disk.raw")}"\nautofetch = true\nbackground_bytes_per_second = ${bytesPerSecond}`,
    content: folder.bytesOf("disk.raw"),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

async function archiveSource(): Promise<Source> {
  const folder = new DiskToArchive({
    stripeShift: 11,
    flags: new Array(STRIPES).fill(3),
    hasKek: true,
  });
  expect((await folder.archive()).exitCode).toBe(0);
  const lines = [
    `[stripe_source]\ntype = "archive"\nstorage = "filesystem"\npath = "${folder.archivePath}"`,
    `autofetch = true\nbackground_bytes_per_second = ${RATE}\narchive_kek.ref = "kek"`,
    `[secrets.kek]\nsource.file = "${folder.file("kek")}"`,
  ];
  return {
    sections: lines.join("\n"),
    content: folder.bytesOf("disk.raw"),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

async function init(disk: UpgradableDisk): Promise<void> {
  disk.configure((text) =>
    text.replace("enabled = true", "enabled = true\nallow_secret_over_regular_file = true"),
  );
  const { exitCode, stderr } = await runCommand([EXECUTABLE, "init-metadata", "-f", "disk.toml"], {
    cwd: disk.folder,
    timeoutMs: 20_000,
    env: { ...process.env, UBIBLK_LOG: "error" },
  });
  expect(`${exitCode}${stderr}`).toBe("0");
}

async function fetched(disk: UpgradableDisk): Promise<number> {
  const answer = await disk.command({ command: "status" });
  return (answer as { status: { stripes: { fetched: number } } }).status.stripes.fetched; // as rpc.md has it
}

function writeSector(disk: UpgradableDisk, offset: number, value: number): void {
  using client = HostileClient.attach(disk.socketPath);
  client.bytes.fill(value, DATA, DATA + 512);
  const data = { address: at(DATA), length: 512, flags: 0 };
  client.submit([client.header(0, REQUEST_TYPE.OUT, offset / 512), data, client.statusByte(0)]);
  expect(client.status(0)).toBe(0);
}

function sectorOf(disk: UpgradableDisk, offset: number): number | undefined {
  using client = HostileClient.attach(disk.socketPath);
  const data = { address: at(DATA), length: 512, flags: WRITE };
  client.submit([client.header(0, REQUEST_TYPE.IN, offset / 512), data, client.statusByte(0)]);
  expect(client.status(0)).toBe(0);
  return client.bytes[DATA];
}
