/**
 * A running guest is moved from one QEMU to another and back, each with a backend of its own on storage that both share.
 * The guest reads files again and again and compares what then lies in its memory: a page that the backend wrote and did
 * not mark as dirty would be another one behind the move.
 */
import { expect } from "bun:test";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Backend, type DiskFiles, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { missingForGuest } from "../support/guest.ts";
import { BUILD_FOLDER } from "../support/guest-boot.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { LiveGuest } from "../support/live-guest.ts";
import {
  attachLoopDevice,
  attachSharedLoopDevice,
  missingLoopDevices,
} from "../support/loop-device.ts";
import { rounds, skipUnless } from "../support/requires.ts";
import { until } from "../support/until.ts";

const MIB = 2 ** 20;
const MEMORY_MIB = 224;
const MOVES = rounds(2, 8);
const MOVE_MS = 240_000;
const missing = missingForGuest(hasGuestKernel()) ?? missingLoopDevices();
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

/**
 * Each round reads other files than the one before into the same memory, and compares what is there, again and again: most
 * of the time memory holds what the backend wrote last. A file is written anew as well.
 */
const LOAD = `
mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/vda
mount -t ext4 /dev/vda /mnt
cd /mnt
for i in 0 1 2 3 4 5; do
  for j in 0 1; do head -c 3000000 /dev/urandom >/mnt/$i.$j; done
  sha256sum $i.0 $i.1 >/tmp/sums.$i
done
round=0
while true; do
  head -c $((round % 5 * 70000 + 4321)) /dev/urandom >/mnt/new
  sha256sum new >/tmp/sums.new
  sync
  echo 3 >/proc/sys/vm/drop_caches
  for again in 1 2 3 4 5; do
    sha256sum -c -s /tmp/sums.$((round % 6)) || echo "wrong in round $round"
  done
  sha256sum -c -s /tmp/sums.new || echo "wrong in round $round"
  round=$((round + 1))
  echo "round $round"
done
`;

testWithGuest(
  `a guest under load is moved ${MOVES} times between two backends, and every byte is right`,
  async () => {
    using storage = new SharedStorage();
    await using first = await startUbiblk(storage.disks[0]);
    await using second = await startUbiblk(storage.disks[1]);
    const backends: readonly Backend[] = [first, second];
    let guest = await LiveGuest.start(optionsOf(first));
    try {
      await guest.untilPrinted(/^round 2$/m, MOVE_MS);
      for (let move = 1; move <= MOVES; move++) {
        const target = backends[move % 2] ?? first;
        const next = await moved(guest, target);
        await guest[Symbol.asyncDispose]();
        guest = next;
        await guest.untilPrinted(/^round \d+\n(.*\n)*round \d+\n(.*\n)*round \d+$/m, MOVE_MS);
        expect(guest.output()).not.toContain("wrong");
        expect(guest.console()).not.toMatch(/I\/O error|EXT4-fs error|Call Trace/);
      }
    } finally {
      await guest[Symbol.asyncDispose]();
    }
    expect(await first.stop()).toBe(0);
    expect(await second.stop()).toBe(0);
  },
  MOVE_MS * (MOVES + 1),
);

// --- internal ---

function optionsOf(backend: Backend) {
  return { socketPath: backend.socketPath, script: LOAD, memoryMiB: MEMORY_MIB };
}

/** Moves the guest to another QEMU with another backend; it runs there when this returns. */
async function moved(guest: LiveGuest, backend: Backend): Promise<LiveGuest> {
  const place = `unix:${guest.file("migration")}`;
  const more = ["-incoming", place];
  const next = await LiveGuest.start({ ...optionsOf(backend), more, isMoved: true });
  // So slow that memory is looked through several times while the guest changes it.
  await guest.ask("migrate-set-parameters", {
    "max-bandwidth": 32 * MIB,
    "downtime-limit": 700,
  });
  await guest.ask("migrate", { uri: place });
  await until(
    "the guest has moved",
    async () => {
      const info = JSON.stringify(await guest.ask("query-migrate"));
      expect(info).not.toContain('"failed"');
      return info.includes('"completed"');
    },
    MOVE_MS,
  );
  await until("the guest runs", async () =>
    JSON.stringify(await next.ask("query-status")).includes('"running"'),
  );
  const counts = JSON.stringify(await guest.ask("query-migrate"));
  expect(Number(/"dirty-sync-count": ?(\d+)/.exec(counts)?.[1])).toBeGreaterThan(2);
  expect(guest.output()).not.toContain("wrong");
  return next;
}

/** One file, seen as two block devices: neither backend's lock is in the other one's way. */
class SharedStorage implements Disposable {
  readonly #folder: string;
  readonly #devices: readonly Disposable[];
  readonly disks: readonly [DiskFiles, DiskFiles];

  constructor() {
    mkdirSync(BUILD_FOLDER, { recursive: true });
    this.#folder = mkdtempSync(join(BUILD_FOLDER, "migration-"));
    const backingPath = join(this.#folder, "disk.raw");
    const first = attachLoopDevice({ backingPath, sizeBytes: 96 * MIB, sectorBytes: 512 });
    const second = attachSharedLoopDevice(first);
    this.#devices = [first, second];
    const [one, two] = [first, second].map(({ path }, i) =>
      writeDiskConfig({
        folder: join(this.#folder, `${i}`),
        dataPath: path,
        isEncrypted: true,
      }),
    );
    if (one === undefined || two === undefined) {
      throw new Error("there are two hosts");
    }
    this.disks = [one, two];
    copyFileSync(join(this.#folder, "0", "key"), join(this.#folder, "1", "key"));
  }

  [Symbol.dispose](): void {
    this.#devices.forEach((device) => {
      device[Symbol.dispose]();
    });
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
