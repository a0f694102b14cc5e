/**
 * Memory is plugged into a Linux guest while its disk works, used by it, and taken away again: QEMU tells the backend of
 * every change under load.
 */
import { expect } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { missingForGuest } from "../support/guest.ts";
import { BUILD_FOLDER } from "../support/guest-boot.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { LiveGuest } from "../support/live-guest.ts";
import { skipUnless } from "../support/requires.ts";
import { until } from "../support/until.ts";

const MIB = 2 ** 20;
const MEMORY_MIB = 192;
const PLUGGED_MIB = 128;
/** Rounds of the load that must end well behind each change. */
const ROUNDS = 2;
const ROUND_MS = 240_000;
const missing = missingForGuest(hasGuestKernel());
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

/**
 * Writes and reads files as large as the plugged memory, which a guest uses first for what it can move; another process
 * brings memory that comes into use, and gives it back when the load has gone on with it for some rounds.
 */
const LOAD = `
mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/vda
mount -t ext4 /dev/vda /mnt
cd /mnt
blocks() { ls -d /sys/devices/system/memory/memory* | sort >/tmp/now; }
blocks; cp /tmp/now /tmp/first
round=0
while true; do
  for i in 0 1 2 3; do head -c 2500000 /dev/urandom >/mnt/$i; done
  sha256sum 0 1 2 3 >/tmp/sums
  sync
  echo 3 >/proc/sys/vm/drop_caches
  sha256sum -c -s /tmp/sums || echo "wrong in round $round"
  round=$((round + 1))
  blocks
  for block in $(grep -vxFf /tmp/first /tmp/now); do
    [ "$(cat $block/state)" = online ] || echo online_movable >$block/state
  done
  echo "round $round memory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
done
`;

testWithGuest(
  "memory is plugged into a guest under load, carries its I/O, and is taken away again",
  async () => {
    mkdirSync(BUILD_FOLDER, { recursive: true });
    const folder = mkdtempSync(join(BUILD_FOLDER, "plug-"));
    try {
      const files = writeDiskConfig({ folder, isEncrypted: false });
      writeFileSync(files.dataPath, "", { mode: 0o600 });
      truncateSync(files.dataPath, 128 * MIB);
      await using backend = await startUbiblk(files);
      await using guest = await LiveGuest.start({
        socketPath: backend.socketPath,
        script: LOAD,
        memoryMiB: MEMORY_MIB,
        more: ["-m", "slots=4,maxmem=1G"],
      });
      await roundsEnd(guest, 1);
      const small = memoryOf(guest);
      const sizeBytes = PLUGGED_MIB * MIB;
      const object = {
        "qom-type": "memory-backend-memfd",
        id: "more",
        size: sizeBytes,
        share: true,
      };
      await guest.ask("object-add", object);
      await guest.ask("device_add", { driver: "pc-dimm", id: "dimm", memdev: "more" });
      await until("the backend maps it", () => mappedMiB(backend.pid).includes(PLUGGED_MIB));
      await until("the guest uses it", () => memoryOf(guest) > small + 64, ROUND_MS);
      await roundsEnd(guest, ROUNDS);
      await guest.ask("device_del", { id: "dimm" });
      await until("the guest gave it back", () => memoryOf(guest) < small + 16, ROUND_MS);
      await until("it is unmapped", () => !mappedMiB(backend.pid).includes(PLUGGED_MIB));
      await roundsEnd(guest, ROUNDS);
      expect(guest.output()).not.toContain("wrong");
      expect(guest.console()).not.toMatch(/I\/O error|EXT4-fs error|Call Trace/);
      await guest[Symbol.asyncDispose]();
      expect(await backend.stop()).toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  4 * ROUND_MS,
);

// --- internal ---

async function roundsEnd(guest: LiveGuest, count: number): Promise<void> {
  const wanted = roundOf(guest) + count;
  await until(`round ${wanted} ends`, () => roundOf(guest) >= wanted, ROUND_MS).catch((error) => {
    throw new Error(`${error}\n${guest.console()}\n${guest.output()}`);
  });
}

function roundOf(guest: LiveGuest): number {
  return Number([...guest.output().matchAll(/^round (\d+)/gm)].at(-1)?.[1] ?? 0);
}

/** MiB that the guest says it has. */
function memoryOf(guest: LiveGuest): number {
  return Number([...guest.output().matchAll(/memory=(\d+)/g)].at(-1)?.[1] ?? 0);
}

/** Sizes of the shared mappings of a process. */
function mappedMiB(pid: number): number[] {
  const lines = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
  return lines
    .filter((line) => line.includes("/memfd:memory-backend-memfd"))
    .map((line) => {
      const [from = "", to = ""] = (line.split(" ")[0] ?? "").split("-");
      return (Number.parseInt(to, 16) - Number.parseInt(from, 16)) / MIB;
    });
}
