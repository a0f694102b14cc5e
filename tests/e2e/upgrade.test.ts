/** Upgrades under a guest that works: the disk goes from process to process, and every byte is right. */
import { expect, test } from "bun:test";
import { lstatSync } from "node:fs";
import { benchThatOutlives } from "../support/killed-backend.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";
import { until } from "../support/until.ts";
import { isRunning, UpgradableDisk } from "../support/upgradable-disk.ts";
import { GUEST_DISK_BYTES, VerifyingGuest } from "../support/verifying-guest.ts";

const UPGRADES = rounds(20, 200);
const WORK = 200;
const BENCH_SECONDS = rounds(3, 60);
/** For the front end to come back, and to do something. */
const BETWEEN_MS = 300;

test.each([
  { name: "a plain disk", isEncrypted: false },
  { name: "an enciphered disk, whose key came once through a pipe", isEncrypted: true },
])("$name: upgraded again and again under load", async ({ isEncrypted }) => {
  const seed = Date.now() % 1_000_000;
  const device = 'metrics_address = "127.0.0.1:0"\nmetrics_socket = "metrics.sock"\n';
  const options = { diskBytes: GUEST_DISK_BYTES, isEncrypted, device };
  await using disk = new UpgradableDisk(options);
  await disk.start();
  using guest = new VerifyingGuest(disk.socketPath, new SeededRandom(seed));
  await guest.fill();
  const inode = lstatSync(disk.socketPath).ino;
  const pauses: number[] = [];
  let early: readonly string[] = [];
  for (let round = 0; round < UPGRADES; round++) {
    await guest.work(WORK);
    guest.restartClock();
    const before = disk.pid;
    const answer = await guest.during(disk.upgrade());
    expect(`${JSON.stringify(answer)} seed ${seed}`).toContain(`"pid":${disk.pid}`);
    expect(disk.pid).not.toBe(before);
    await guest.during(until("the old process has ended", () => !isRunning(before)));
    await guest.work(WORK);
    pauses.push(guest.gapMs);
    early = round === 1 ? disk.openFiles() : early;
  }
  await guest.verifyAll();
  expect(guest.connections).toBe(UPGRADES + 1);
  await disk.untilOpen(early);
  expect(lstatSync(disk.socketPath).ino).toBe(inode);
  expect(await disk.command({ command: "version" })).toHaveProperty("version");
  pauses.sort((a, b) => a - b);
  const median = pauses[Math.floor(pauses.length / 2)] ?? 0;
  console.info(
    `pause of the guest: median ${Math.round(median)} ms, longest ${Math.round(pauses.at(-1) ?? 0)} ms`,
  );
  await disk.stop();
  expect(disk.log()).not.toContain("ERROR");
  expect(disk.log().match(/^\[INFO \] stopped/gm)).toHaveLength(1);
});

test.each([
  ["split rings", []],
  ["packed rings", ["--packed"]],
])("two queues of %s, and a front end that keeps track of its requests", async (_, flags) => {
  await using disk = new UpgradableDisk({
    diskBytes: 16 * 2 ** 20,
    sections: "[tuning]\nnum_queues = 2",
  });
  await disk.start();
  const time = `--time=${BENCH_SECONDS}`;
  let isOver = false;
  const running = benchThatOutlives(
    disk.socketPath,
    "--workload=verify",
    "--queues=2",
    time,
    ...flags,
  ).finally(() => {
    isOver = true;
  });
  let upgrades = 0;
  while (!isOver) {
    expect((await disk.upgrade()).upgrade?.pid).toBe(disk.pid);
    upgrades += 1;
    await Promise.race([running, Bun.sleep(BETWEEN_MS)]);
  }
  expect((await running).reconnects).toBeGreaterThan(0);
  expect(upgrades).toBeGreaterThan(1);
  await disk.stop();
});
