/** Upgrades that fail, each in its way: the disk stays where it is, the guest keeps its connection, the reason is told. */
import { expect, test } from "bun:test";
import { chmodSync, chownSync, rmSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { attachLoopDevice, MountedDevice, missingMounts } from "../support/loop-device.ts";
import { SeededRandom } from "../support/random.ts";
import { skipUnless } from "../support/requires.ts";
import { converse } from "../support/rpc-client.ts";
import { until } from "../support/until.ts";
import { UpgradableDisk, type UpgradableOptions } from "../support/upgradable-disk.ts";
import { GUEST_DISK_BYTES, VerifyingGuest } from "../support/verifying-guest.ts";

const OPTIONS: UpgradableOptions = {
  diskBytes: GUEST_DISK_BYTES,
  device: 'metrics_socket = "metrics.sock"\n',
  sections: "[tuning]\nnum_queues = 2",
};
const WORK = 100;
const UPGRADE = '{"command":"upgrade"}\n';
/** Below any time that something is waited for in vain. */
const PROMPT_MS = 4_000;
const noMounts = missingMounts();
const testMount = skipUnless(noMounts ?? "", noMounts === undefined);
const asRoot = skipUnless("not root", process.getuid?.() === 0);

/** Exchanges the program for a script that ends as `scripted-successor.ts` is told. */
const successor = (words: string) => (disk: UpgradableDisk) =>
  disk.install(
    `exec ${process.execPath} ${resolve(import.meta.dir, "../support/scripted-successor.ts")} ${words}`,
  );

const edit = (from: string, to: string) => (disk: UpgradableDisk) =>
  disk.configure((text) => text.replace(from, to));

interface Failure {
  readonly name: string;
  readonly arrange: (disk: UpgradableDisk) => void;
  readonly why: string;
  readonly seconds?: number;
}

const PROGRAMS: readonly Failure[] = [
  { name: "is missing", arrange: (disk) => rmSync(disk.file("ubiblk")), why: "cannot start" },
  {
    name: "is no program",
    arrange: (disk) => {
      disk.install("exit 0");
      chmodSync(disk.file("ubiblk"), 0o644);
    },
    why: "it is no program",
  },
  {
    name: "may be written by others",
    arrange: (disk) => {
      disk.install("exit 0");
      chmodSync(disk.file("ubiblk"), 0o757);
    },
    why: "others may write to it",
  },
  { name: "ends at once", arrange: (disk) => disk.install("exit 3"), why: "has ended" },
  {
    name: "dies of a signal",
    arrange: (disk) => disk.install("kill -SEGV $$"),
    why: "has ended",
  },
  {
    name: "hangs",
    arrange: (disk) => disk.install("exec sleep 60"),
    why: "in vain for 1 s",
    seconds: 1,
  },
];

const STEPS: readonly Failure[] = [
  { name: "dies of the offer", arrange: successor("offer"), why: "has ended" },
  { name: "dies when it is prepared", arrange: successor("prepared"), why: "has ended" },
  { name: "dies with the disk in its hands", arrange: successor("yours"), why: "has ended" },
  { name: "refuses the disk", arrange: successor("refuse"), why: "there is no room" },
  { name: "says something else", arrange: successor("strange"), why: "does not say what" },
  {
    name: "is silent behind the offer",
    arrange: successor("offer sleep"),
    why: "in vain for 2 s",
    seconds: 2,
  },
];

const CONFIGS: readonly Failure[] = [
  {
    name: "is broken",
    arrange: (disk) => writeFileSync(disk.file("disk.toml"), "[device\n", { mode: 0o600 }),
    why: "E_CONFIG_SYNTAX",
  },
  { name: "has another socket", arrange: edit("vhost.sock", "other.sock"), why: "vhost_socket" },
  { name: "has no RPC any more", arrange: edit('rpc_socket = "rpc.sock"', ""), why: "rpc_socket" },
  { name: "has other metrics", arrange: edit("metrics.sock", "m.sock"), why: "metrics_socket" },
  {
    name: "has another disk",
    arrange: (disk) => {
      writeFileSync(disk.file("other.raw"), new Uint8Array(GUEST_DISK_BYTES), { mode: 0o600 });
      edit("disk.raw", "other.raw")(disk);
    },
    why: "another file than the one that is served",
  },
  {
    name: "makes it read-only",
    arrange: edit("[device]", "[device]\nread_only = true"),
    why: "restart",
  },
  {
    name: "has metadata",
    arrange: edit("[device]", '[device]\nmetadata_path = "m"'),
    why: "metadata_path",
  },
  { name: "has fewer queues", arrange: edit("num_queues = 2", "num_queues = 1"), why: "2 queues" },
  {
    name: "takes a feature from the guest",
    arrange: edit("num_queues = 2", "num_queues = 2\ndisable_discard = true"),
    why: "features",
  },
  {
    name: "needs a key that was never read",
    arrange: edit(
      "[danger_zone]",
      '[encryption]\nxts_key.ref = "k"\n[secrets.k]\nsource.file = "pipe"\n[danger_zone]',
    ),
    why: 'no secret \\"k\\"',
  },
];

for (const [subject, failures] of [
  ["the program", PROGRAMS],
  ["the new process", STEPS],
  ["the configuration", CONFIGS],
] as const) {
  test.each(failures)(`${subject} $name`, async ({ arrange, why, seconds }) => {
    await using disk = new UpgradableDisk(OPTIONS);
    await disk.start();
    using guest = new VerifyingGuest(disk.socketPath, new SeededRandom(7));
    await guest.work(WORK);
    const open = disk.openFiles();
    const { pid } = disk;
    arrange(disk);
    const members = seconds === undefined ? {} : { timeout_seconds: seconds };
    const answer = await guest.during(disk.upgrade(members));
    expect(JSON.stringify(answer)).toContain(why);
    expect(answer.code).toBe("E_UPGRADE");
    expect(disk.log()).toContain("upgrade failed: the disk is served as before");
    await guest.work(WORK);
    expect(guest.connections).toBe(1);
    await guest.during(disk.untilOpen(open));
    disk.install();
    disk.configure();
    await guest.during(disk.upgrade());
    expect(disk.pid).not.toBe(pid);
    await guest.work(WORK);
    await guest.verifyAll();
  });
}

asRoot("the program belongs to somebody else", async () => {
  await using disk = new UpgradableDisk(OPTIONS);
  await disk.start();
  disk.install("exit 0");
  chownSync(disk.file("ubiblk"), 12_345, 12_345);
  expect((await disk.upgrade()).error).toContain("it belongs to user 12345");
});

testMount("a disk that does not answer: its requests are waited for, and all goes on", async () => {
  await using disk = new UpgradableDisk(OPTIONS);
  using device = attachLoopDevice({
    backingPath: disk.file("backing.img"),
    sizeBytes: 64 * 2 ** 20,
    sectorBytes: 512,
  });
  using mount = new MountedDevice(device, disk.folder);
  const path = mount.file(GUEST_DISK_BYTES);
  disk.configure((text) => text.replace("disk.raw", path));
  await disk.start();
  using guest = new VerifyingGuest(disk.socketPath, new SeededRandom(7));
  await guest.fill();
  mount.freeze();
  guest.step();
  const answer = await guest.during(disk.upgrade());
  mount.thaw();
  expect(answer.error).toContain("requests under way do not end");
  await guest.work(WORK);
  expect(guest.connections).toBe(1);
  await guest.during(disk.upgrade());
  await guest.work(WORK);
  await guest.verifyAll();
  await disk.stop();
});

test("the new process dies when the disk is its own: this one ends as well, with an error", async () => {
  await using disk = new UpgradableDisk(OPTIONS);
  const backend = await disk.start();
  using guest = new VerifyingGuest(disk.socketPath, new SeededRandom(7));
  await guest.work(WORK);
  successor("go")(disk);
  await disk.upgrade().catch(() => {}); // whether its answer gets out is chance
  await until("the process ends", () => !backend.isRunning());
  expect(await backend.stop()).toBe(1);
  expect(disk.log()).toContain("upgrade failed: the disk was given away");
  await disk.stop();
  disk.install();
  await disk.start();
  guest.startAnew();
  await guest.work(WORK);
  await guest.verifyAll();
});

test("a stop in the middle of an upgrade: a clean end", async () => {
  await using disk = new UpgradableDisk(OPTIONS);
  const backend = await disk.start();
  disk.install("exec sleep 60");
  const answer = disk.upgrade();
  await until("the upgrade has begun", () => disk.log().includes("upgrade begins"));
  process.kill(disk.pid, "SIGTERM");
  const startMs = performance.now();
  expect(await backend.stop()).toBe(0);
  expect(performance.now() - startMs).toBeLessThan(PROMPT_MS);
  expect((await answer).error).toContain("the disk is being stopped");
  expect(disk.log()).toContain("[INFO ] stopped");
});

test("one upgrade at a time, and none with a wrong time limit", async () => {
  await using disk = new UpgradableDisk(OPTIONS);
  await disk.start();
  disk.install("exec sleep 60");
  const first = disk.upgrade({ timeout_seconds: 4 });
  await until("the upgrade has begun", () => disk.log().includes("upgrade begins"));
  expect((await disk.upgrade()).error).toBe("an upgrade is under way already");
  expect((await first).code).toBe("E_UPGRADE");
  expect((await disk.upgrade({ timeout_seconds: "soon" })).code).toBe("E_RPC_REQUEST");
});

test("asked for twice in one breath: the process that gave the disk away gives nothing away again", async () => {
  await using disk = new UpgradableDisk(OPTIONS);
  const backend = await disk.start();
  const answers = (await converse(disk.rpcPath, UPGRADE.repeat(2))).trim().split("\n");
  expect(answers).toHaveLength(2);
  disk.adopt(JSON.parse(answers[0] ?? "").upgrade.pid);
  expect(answers[1]).toContain("another process serves the disk by now");
  await until("the old process ends", () => !backend.isRunning());
  expect(disk.log().split("upgrade begins")).toHaveLength(2);
});

test("asked for without end: each is answered, and the log stays short", async () => {
  await using disk = new UpgradableDisk(OPTIONS);
  await disk.start();
  rmSync(disk.file("ubiblk"));
  const answers = (await converse(disk.rpcPath, UPGRADE.repeat(500))).trim().split("\n");
  expect(answers.filter((answer) => answer.includes("cannot start"))).toHaveLength(500);
  expect(disk.log().split("upgrade failed").length).toBeLessThan(100);
});

test("a configuration that has lost its encryption: the guest would read what it never wrote", async () => {
  await using disk = new UpgradableDisk({ ...OPTIONS, isEncrypted: true });
  await disk.start();
  const danger = "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n[tuning]";
  disk.configure((text) => text.replace(/\[encryption\].*\[tuning\]/s, danger));
  expect((await disk.upgrade()).error).toContain("was served with another key");
  disk.configure();
  expect((await disk.upgrade()).upgrade?.pid).toBe(disk.pid);
});

test("a secret that is declared in another way by now: it is not taken for the old one", async () => {
  await using disk = new UpgradableDisk({ ...OPTIONS, isEncrypted: true });
  await disk.start();
  disk.configure((text) => text.replace('source.file = "key"', 'source.file = "key2"'));
  expect((await disk.upgrade()).error).toContain('secret "key" is declared in another way');
  disk.configure();
  expect((await disk.upgrade()).upgrade?.pid).toBe(disk.pid);
});
