/**
 * The backend is killed with -9 under a Linux guest that writes and checks files, again and again. QEMU keeps the rings
 * and the notes of requests in flight; the guest waits meanwhile, and sees no error.
 */
import { expect } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { missingForGuest, runGuest, valuesOf } from "../support/guest.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { KilledBackend } from "../support/killed-backend.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds, skipUnless } from "../support/requires.ts";
import { until } from "../support/until.ts";

const MIB = 1024 * 1024;
const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
const SPLIT = { name: "guest", isPacked: false, kills: rounds(10, 40) };
const PACKED = { name: "guest with packed rings", isPacked: true, kills: rounds(3, 40) };
const TIMEOUT_MS = rounds(600_000, 1_800_000);
const missing = missingForGuest(hasGuestKernel());
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

/** Writes files and reads earlier ones back until the second disk says that it is enough. */
const WORKLOAD = `
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0,nodiscard /dev/vda
mount -t ext4 /dev/vda /mnt
mkdir /tmp/sums
reader() { while [ ! -e /tmp/enough ]; do cat /dev/vda >/dev/null; done; }
reader & reading=$!
i=0
while :; do
  i=$((i + 1))
  name=$((i % 16))
  dd if=/dev/urandom of=/mnt/$name bs=64k count=8 conv=fsync 2>/dev/null
  sha256sum /mnt/$name >/tmp/sums/$name
  echo 1 >/proc/sys/vm/drop_caches
  cat /tmp/sums/* | sha256sum -c -s
  blockdev --flushbufs /dev/vdb
  if head -c 6 /dev/vdb | grep -q enough; then break; fi
done
touch /tmp/enough
wait $reading
sync
echo 3 >/proc/sys/vm/drop_caches
cat /tmp/sums/* | sha256sum -c -s
umount /mnt
e2fsck -fn /dev/vda
echo "packed=$(cut -c35 /sys/block/vda/device/features)"
echo "rounds=$i"
`;

for (const { name, isPacked, kills } of [SPLIT, PACKED]) {
  testWithGuest(
    `${name} whose backend is killed ${kills} times: no error, and all that was written is there`,
    async () => {
      mkdirSync(BUILD_FOLDER, { recursive: true });
      const folder = mkdtempSync(join(BUILD_FOLDER, "guest-restart-"));
      try {
        const moreConfig = "[tuning]\nnum_queues = 2\n";
        const files = writeDiskConfig({ folder, isEncrypted: true, moreConfig });
        writeFileSync(files.dataPath, "", { mode: 0o600 });
        truncateSync(files.dataPath, 64 * MIB);
        const signPath = join(folder, "sign");
        writeFileSync(signPath, Buffer.alloc(MIB));
        await using backend = new KilledBackend(() => startUbiblk(files));
        await backend.begin();
        let isOver = false;
        const guest = runGuest({
          socketPath: files.socketPath,
          script: WORKLOAD,
          isReconnecting: true,
          isPacked,
          queueCount: 2,
          cpuCount: 2,
          moreDevices: ["-drive", `file=${signPath},format=raw,if=virtio`],
          timeoutMs: TIMEOUT_MS - 60_000,
        }).finally(() => {
          isOver = true;
        });
        guest.catch(() => {}); // it is awaited below
        const seed = Date.now() % 2 ** 31;
        console.log(`seed ${seed}`);
        const random = new SeededRandom(seed);
        const writtenBytes = () => statSync(files.dataPath).blocks * 512;
        await until("the guest writes files", () => isOver || writtenBytes() > 8 * MIB, 300_000);
        // A guest that waits for nothing at the moment of a death shows less: some deaths must meet requests.
        const isEnough = () => backend.kills >= kills && backend.resumed > 0;
        while (!isEnough() && (await backend.isInUse(() => isOver))) {
          await Bun.sleep(random.between(50, 700));
          await backend.kill();
        }
        writeFileSync(signPath, "enough");
        truncateSync(signPath, MIB);

        const result = await guest;
        const story = `${result.console}\n${result.output}`;
        expect(result.exitCode === 0 ? "" : story).toBe("");
        expect(result.console).not.toMatch(/I\/O error|EXT4-fs error|Call Trace|not a head/);
        expect(valuesOf(result).packed).toBe(isPacked ? "1" : "0");
        expect(backend.kills).toBeGreaterThanOrEqual(kills);
        expect(Number(valuesOf(result).rounds)).toBeGreaterThan(0);
        expect(backend.resumed).toBeGreaterThan(0);
        console.log(`${backend.kills} kills, ${backend.resumed} with requests in flight`);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    TIMEOUT_MS,
  );
}
