/** Upgrades under a Linux guest in QEMU, which writes and reads back all the time: no error, and every byte is right. */
import { expect } from "bun:test";
import { missingForGuest, runGuest } from "../support/guest.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { rounds, skipUnless } from "../support/requires.ts";
import { until } from "../support/until.ts";
import { UpgradableDisk } from "../support/upgradable-disk.ts";

const MIB = 2 ** 20;
const SECONDS = rounds(12, 120);
/** For the front end to connect again, for which it waits a second, and the guest to go on. */
const BETWEEN_MS = 1_600;
const missing = missingForGuest(hasGuestKernel());
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

/** Each round tells how long it took, in hundredths of a second. */
const WORK = `
now() { read up idle </proc/uptime; echo "\${up%.*}\${up#*.}"; }
mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/vda
mount -t ext4 /dev/vda /mnt
i=0
end=$(($(now) + ${SECONDS} * 100))
while [ $(now) -lt $end ]; do
  before=$(now)
  file=/mnt/f$((i % 20))
  dd if=/dev/urandom of=$file bs=64k count=2 conv=fsync 2>/dev/null
  sha256sum $file >$file.sum
  sync
  echo 3 >/proc/sys/vm/drop_caches
  sha256sum -c -s $file.sum
  echo "took=$(($(now) - before))"
  i=$((i + 1))
done
sha256sum -c -s /mnt/*.sum
umount /mnt
e2fsck -fn /dev/vda >/dev/null
echo "errors=$(dmesg | grep -c 'I/O error')"
`;

testWithGuest(
  "a guest writes and reads back while its backend is upgraded again and again",
  async () => {
    const options = {
      diskBytes: 64 * MIB,
      isEncrypted: true,
      sections: "[tuning]\nnum_queues = 2",
    };
    await using disk = new UpgradableDisk(options);
    await disk.start();
    let isOver = false;
    const running = runGuest({
      socketPath: disk.socketPath,
      script: WORK,
      queueCount: 2,
      cpuCount: 2,
      isReconnecting: true,
    }).finally(() => {
      isOver = true;
    });
    await until("the guest writes", async () => isOver || (await writesOf(disk)) > 200, 240_000);
    let upgrades = 0;
    while (!isOver) {
      expect((await disk.upgrade()).upgrade?.pid).toBe(disk.pid);
      upgrades += 1;
      await Promise.race([running, Bun.sleep(BETWEEN_MS)]);
    }
    const { exitCode, output, console: text } = await running;
    expect(exitCode === 0 ? "" : `${text}${output}${disk.log()}`).toBe("");
    expect(output).toContain("errors=0");
    expect(upgrades).toBeGreaterThan(2);
    const took = [...output.matchAll(/^took=(\d+)$/gm)].map(([, value]) => Number(value) * 10);
    took.sort((a, b) => b - a);
    const [usual, paused] = [took[Math.floor(took.length / 2)], took[Math.floor(upgrades / 2)]];
    console.info(
      `${upgrades} upgrades; a round of the guest: ${usual} ms, with an upgrade: ${paused} ms`,
    );
  },
  400_000,
);

// --- internal ---

async function writesOf(disk: UpgradableDisk): Promise<number> {
  const text = JSON.stringify(await disk.command({ command: "stats" }));
  return [...text.matchAll(/"write_ops":(\d+)/g)].reduce(
    (sum, [, count]) => sum + Number(count),
    0,
  );
}
