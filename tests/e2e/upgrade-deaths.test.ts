/** Processes that die in the middle of an upgrade: the disk has one writer or none, and nothing that was acknowledged is lost. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  ftruncateSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { DataFile } from "../../src/disk/data-file.ts";
import { closeDescriptor, pairOfSockets } from "../../src/ffi/socket.ts";
import { ListeningSocket } from "../../src/ffi/socket-file.ts";
import { HAND_OVER_FORMAT, HandOver } from "../../src/upgrade/hand-over.ts";
import { SecretMemory } from "../../src/upgrade/secret-memory.ts";
import { type DiskFiles, EXECUTABLE, writeDiskConfig } from "../support/backend.ts";
import { addFigures } from "../support/figures.ts";
import { HostileClient } from "../support/hostile-client.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";
import { until } from "../support/until.ts";
import { isRunning, UpgradableDisk } from "../support/upgradable-disk.ts";
import { GUEST_DISK_BYTES, VerifyingGuest } from "../support/verifying-guest.ts";

const DISK_BYTES = 4 * 2 ** 20;
const KILLS = rounds(8, 100);
const WORK = 100;
/** An upgrade takes less, from the command to the end of the old process, unless the machine is loaded. */
const KILL_MS_MAX = 160;
const TIMES = { timeoutMs: 30_000 };

let folder: string;
let disk: DiskFiles;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-death-"));
  disk = writeDiskConfig({ folder, isEncrypted: false });
  writeFileSync(disk.dataPath, new Uint8Array(DISK_BYTES).fill(0x77), { mode: 0o600 });
});

afterEach(() => rmSync(folder, { recursive: true }));

test.each(["before the offer", "offer", "prepared", "yours", "built"])(
  "the old process dies when it has come to: %s. The new one ends, and has written nothing",
  async (step) => {
    await using successor = new Successor();
    await successor.goThrough(step);
    successor.die();
    expect(await successor.process.exited).toBe(1);
    expect(successor.log).toContain("E_UPGRADE: the process that hands the disk over has ended");
    expect(readFileSync(disk.dataPath).every((byte) => byte === 0x77)).toBe(true);
    await until("the disk is free, once the kernel has closed the dead one's rings", isFree);
  },
);

test.each(["go", "serving"])(
  "the old process dies when it has come to: %s. The new one serves",
  async (step) => {
    await using successor = new Successor();
    await successor.goThrough(step);
    successor.die();
    using client = HostileClient.attach(disk.socketPath);
    expect(client.isServed()).toBe(true);
    successor.process.kill("SIGTERM");
    expect(await successor.process.exited).toBe(0);
  },
);

test("the memory of secrets cannot be resized, and is all zeros once it was read", async () => {
  await using successor = new Successor();
  await successor.goThrough("prepared");
  const bytes = readFileSync(`/proc/self/fd/${successor.secretsFd}`);
  expect(bytes.length).toBeGreaterThan(0);
  expect(bytes.every((byte) => byte === 0)).toBe(true);
  expect(() => ftruncateSync(successor.secretsFd, 0)).toThrow("EPERM");
  successor.die();
  await successor.process.exited;
});

test("killed by chance, old and new: who serves then has all that was acknowledged", async () => {
  const seed = Date.now() % 1_000_000;
  const random = new SeededRandom(seed);
  await using upgradable = new UpgradableDisk({ diskBytes: GUEST_DISK_BYTES });
  await upgradable.start();
  using guest = new VerifyingGuest(upgradable.socketPath, random);
  const outcomes = { served: 0, ended: 0 };
  for (let round = 0; round < KILLS; round++) {
    await guest.work(WORK);
    const answer = upgradable.upgrade().catch(() => undefined);
    await Bun.sleep(random.between(0, KILL_MS_MAX));
    const living = processesIn(upgradable.folder); // the old one, both, or the new one
    const [first = upgradable.pid] = living;
    killIfThere(random.pick([first, living.at(-1) ?? first]));
    await answer;
    const alive = await settled(upgradable);
    outcomes[alive === undefined ? "ended" : "served"] += 1;
    if (alive === undefined) {
      await upgradable.stop();
      await upgradable.start();
    } else {
      upgradable.adopt(alive);
    }
    guest.startAnew();
    await guest.verifyAll();
    expect(`${processesIn(upgradable.folder).length} processes, seed ${seed}`).toStartWith("1 ");
  }
  console.info(`after ${KILLS} kills: ${JSON.stringify(outcomes)}`);
  addFigures("upgrade-deaths", { kills: KILLS, ...outcomes });
}, 240_000);

// --- internal ---

/** The executable, started to take over from this process, which hands over step by step. */
class Successor implements AsyncDisposable {
  readonly #data = DataFile.open({ path: disk.dataPath, what: "data", isReadOnly: false });
  readonly #socket = ListeningSocket.open(disk.socketPath);
  readonly #secrets = SecretMemory.holding([
    { kind: "secret", name: "k", declaration: "d", bytes: Uint8Array.of(1, 2, 3) },
  ]);
  readonly #channel: HandOver;
  readonly #logPath = join(folder, "log");
  readonly process: Bun.Subprocess;
  readonly secretsFd = this.#secrets.fd;

  constructor() {
    const [own, given] = pairOfSockets();
    this.#channel = new HandOver(own, "the new process");
    this.process = Bun.spawn([EXECUTABLE, "vhost", "--config", disk.configPath], {
      stdio: ["ignore", "ignore", Bun.file(this.#logPath), given],
      env: { ...process.env, UBIBLK_LOG: "info", UBIBLK_UPGRADE_FD: "3" },
    });
    closeDescriptor(given);
  }

  get log(): string {
    return readFileSync(this.#logPath, "utf8");
  }

  /** Hands over as far as that step. */
  async goThrough(last: string): Promise<void> {
    const state = { isWriteback: true };
    const steps: readonly (readonly [string, () => unknown])[] = [
      ["before the offer", () => {}],
      ["offer", () => this.#offer()],
      ["prepared", () => this.#channel.expect("prepared", TIMES)],
      ["yours", () => this.#channel.send({ kind: "yours", state })],
      ["built", () => this.#channel.expect("built", TIMES)],
      ["go", () => this.#channel.send({ kind: "go" })],
      ["serving", () => this.#channel.expect("serving", TIMES)],
    ];
    for (const [name, act] of steps) {
      await act();
      if (name === last) {
        return;
      }
    }
  }

  /** What the kernel does when a process dies. */
  die(): void {
    this.#channel[Symbol.dispose]();
    this.#data[Symbol.dispose]();
    closeDescriptor(this.#socket.fd);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
    closeDescriptor(this.#secrets.fd);
  }

  #offer(): void {
    const { isDirect, isReadOnly } = this.#data.handed;
    this.#channel.send(
      {
        kind: "offer",
        format: HAND_OVER_FORMAT,
        version: packageJson.version,
        descriptors: ["data", "vhost_socket", "secrets"],
        data: { isDirect, isReadOnly },
        sockets: { vhost_socket: { path: disk.socketPath, isFileOurs: true } },
        features: "0x0",
        protocolFeatures: "0x0",
        queues: 1,
        sectors: DISK_BYTES / 512,
      },
      [this.#data.fd, this.#socket.fd, this.#secrets.fd],
    );
  }
}

/** The lock was this process's own, so that nobody would wait for its end by himself. */
function isFree(): boolean {
  try {
    using free = DataFile.open({ path: disk.dataPath, what: "data", isReadOnly: false });
    expect(free.sectors).toBe(DISK_BYTES / 512);
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: "E_DISK_LOCKED" });
    return false;
  }
}

/** By start. */
function processesIn(path: string): readonly number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && workingFolderOf(name) === path)
    .map(Number)
    .filter(isRunning)
    .sort((a, b) => a - b);
}

/** One that ends by itself in this moment is as dead. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    expect(error).toMatchObject({ code: "ESRCH" });
  }
}

function workingFolderOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return ""; // it has ended
  }
}

/** The process that serves when all is over; undefined when none does. */
async function settled(upgradable: UpgradableDisk): Promise<number | undefined> {
  let alive: readonly number[] = [];
  await until("at most one process is left, and it serves", async () => {
    alive = processesIn(upgradable.folder);
    return alive.length === 0 || (alive.length === 1 && (await isAnswering(upgradable, alive[0])));
  });
  return alive[0];
}

async function isAnswering(upgradable: UpgradableDisk, pid: number | undefined): Promise<boolean> {
  try {
    const answer = await upgradable.command({ command: "process" });
    return (answer as { process: { pid: number } }).process.pid === pid; // as rpc.md has it
  } catch {
    return false; // nobody is there, or goes
  }
}
