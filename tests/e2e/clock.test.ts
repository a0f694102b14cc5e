/** Somebody sets the clock of the machine, by years, there and back, while a disk is served: no interval is measured by it. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { EXECUTABLE, startBackend, writeDiskConfig } from "../support/backend.ts";
import { bucketDisk } from "../support/bucket-disk.ts";
import { JumpingClock } from "../support/jumping-clock.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { fillFrom, serveImage } from "../support/remote-disk.ts";
import { rounds } from "../support/requires.ts";
import { ask } from "../support/rpc-client.ts";
import { S3Server } from "../support/s3-server.ts";

const DAY = 86_400;
const JUMPS = [400 * DAY, -400 * DAY, 3600, 0] as const;
const BETWEEN_MS = 300;
const BYTES = 8 * MIB;
/** What S3 bears. */
const SKEW_MS_MAX = 15 * 60_000;

test("a disk with limits under load: served as before, at its rate, and the log has the time that the clock tells", async () => {
  using place = new Place();
  using clock = await JumpingClock.make(place.path);
  const limits = "[limits]\nwrite_iops = 2000\n";
  const moreConfig = `rpc_socket = "rpc.sock"\n[tuning]\nnum_queues = 2\n${limits}`;
  const disk = writeDiskConfig({ folder: place.path, isEncrypted: true, moreConfig });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, BYTES);
  const command = [EXECUTABLE, "vhost", "--config", disk.configPath, "--log-format", "json"];
  await using backend = await startBackend({
    command,
    socketPath: disk.socketPath,
    logPath: join(place.path, "log"),
    env: { ...process.env, UBIBLK_LOG: "info", ...clock.env },
  });
  const seconds = (JUMPS.length * BETWEEN_MS * rounds(4, 10)) / 1000;
  const bench = [EXECUTABLE, "bench", `--socket=${disk.socketPath}`, "--queues=2", "--json"];
  const journal = `--journal=${join(place.path, "journal")}`;
  const load = ["--workload=randwrite", "--flush-every=16", `--time=${seconds}`, "--warmup=0"];
  const running = runCommand([...bench, ...load, journal], { timeoutMs: 60_000 });
  let jumps = 0;
  while (await isStillRunning(running, BETWEEN_MS)) {
    clock.set(JUMPS[jumps % JUMPS.length] ?? 0);
    jumps += 1;
    expect(await ask(join(place.path, "rpc.sock"), "status")).toHaveProperty("status");
  }
  const { stderr, stdout, exitCode } = await running;
  expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
  expect(jumps).toBeGreaterThanOrEqual(JUMPS.length);
  expect(JSON.parse(stdout).latency.write.count / seconds).toBeLessThan(2000 * 1.5);
  const check = ["--check", join(place.path, "journal")];
  expect((await runCommand([...bench, ...check])).stderr).toBe("");
  clock.set(400 * DAY);
  expect(await backend.stop()).toBe(0);
  const last = backend.log().trim().split("\n").at(-1) ?? "";
  const aheadDays = (Date.parse(JSON.parse(last).time) - Date.now()) / 1000 / DAY;
  expect(aheadDays).toBeWithin(399, 401); // else the clock did not reach the process, and the rest proves nothing
});

test("a stripe server and its client, of other years: TLS with a key of both asks no clock", async () => {
  using place = new Place();
  using clock = await JumpingClock.make(place.path);
  const disk = new LazyDisk({ diskBytes: BYTES, imageBytes: BYTES, isEncrypted: true });
  await using _ = disk;
  await using server = await serveImage(disk);
  fillFrom(disk, server.port, { source: "autofetch = true" });
  await disk.init();
  clock.set(-3000 * DAY);
  await disk.start(clock.env);
  await disk.until(({ status }) => status.stripes.fetched === status.stripes.source);
  using guest = new LazyGuest(disk);
  expectSame(guest.read(0, BYTES), disk.expected());
  await disk.stop();
});

test("a bucket that finds the clock wrong: said with what to do, and all is fetched when it is right again", async () => {
  using place = new Place();
  using clock = await JumpingClock.make(place.path);
  using server = new S3Server();
  server.fault = () => {
    const told = server.seen.at(-1)?.headers.get("x-amz-date") ?? "";
    const isSkewed = Math.abs(timeOf(told) - Date.now()) > SKEW_MS_MAX;
    return isSkewed ? { status: 403, code: "RequestTimeTooSkewed" } : undefined;
  };
  const shape = { server, bytes: BYTES, stripeSectors: 2048 };
  await using disk = await bucketDisk({
    ...shape,
    source: "autofetch = true\nbackground_bytes_per_second = 1",
  });
  await disk.init();
  const backend = await disk.start(clock.env);
  clock.set(DAY);
  await disk.command({ command: "set_fetch_rate", bytes_per_second: null });
  await disk.until(({ status }) => Number(status.fetch?.failed) > 0);
  expect(backend.log()).toContain("RequestTimeTooSkewed");
  expect(backend.log()).toContain("set the clock of this machine");
  clock.set(0);
  await disk.untilFetched(30_000);
  using guest = new LazyGuest(disk);
  expectSame(guest.read(0, BYTES), disk.expected());
  await disk.stop();
});

// --- internal ---

class Place implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "ubiblk-clock-"));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

async function isStillRunning(work: Promise<unknown>, ms: number): Promise<boolean> {
  const isOver = await Promise.race([work.then(() => true), Bun.sleep(ms).then(() => false)]);
  return !isOver;
}

/** Of `20260301T120000Z`. */
function timeOf(stamp: string): number {
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(stamp) ?? [];
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}
