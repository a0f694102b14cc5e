/**
 * A Linux guest whose disk grows under it: QEMU's front end is told over its back channel, and the guest's driver sees
 * the new size while it writes. The disk is encrypted, tracked, and filled from an image meanwhile.
 */
import { expect } from "bun:test";
import { truncateSync } from "node:fs";
import { missingForGuest, runGuest, valuesOf } from "../support/guest.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { LazyDisk, MIB } from "../support/lazy-disk.ts";
import { skipUnless } from "../support/requires.ts";
import { ask } from "../support/rpc-client.ts";
import { until } from "../support/until.ts";

const IMAGE_BYTES = 48 * MIB;
const DISK_MIB = 64;
const GROWN_MIB = 96;
const missing = missingForGuest(hasGuestKernel());
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

/** Of what lies behind the old end, as the medium has it. */
const SUM_BEYOND = `
echo 3 >/proc/sys/vm/drop_caches
echo "sum=$(dd if=/dev/vda bs=1M skip=66 2>/dev/null | sha256sum)"
`;

/** Writes until the disk has grown, then all of the new part. */
const GROWING = `
before=$(cat /sys/block/vda/size)
echo "before=$before"
mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/vda
mount -t ext4 /dev/vda /mnt
yes "a line" | head -c 3000000 >/mnt/kept
kept=$(sha256sum </mnt/kept)
tries=0
while [ "$(cat /sys/block/vda/size)" = "$before" ]; do
  head -c 300000 /dev/urandom >/mnt/busy
  sync
  tries=$((tries + 1))
  [ $tries -lt 2000 ]
done
echo "after=$(cat /sys/block/vda/size)"
head -c 300000 /dev/urandom >/mnt/busy
sync
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum </mnt/kept)" = "$kept" ]
umount /mnt
e2fsck -fn /dev/vda
dd if=/dev/urandom of=/dev/vda bs=1M seek=66 count=30 conv=fsync 2>/dev/null
${SUM_BEYOND}
`;

const AGAIN = `
echo "after=$(cat /sys/block/vda/size)"
${SUM_BEYOND}
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/vda
e2fsck -fn /dev/vda
`;

testWithGuest(
  "a guest writes while its disk grows, sees the new size, uses it, and finds it after a restart",
  async () => {
    await using disk = new LazyDisk({
      diskBytes: DISK_MIB * MIB + 4096,
      imageBytes: IMAGE_BYTES,
      isEncrypted: true,
      source: `autofetch = true\nbackground_bytes_per_second = ${MIB / 8}`,
      device: "track_written = true",
    });
    await disk.init();
    await disk.start();
    const running = runGuest({ socketPath: disk.socketPath, script: GROWING });
    await until("the guest writes", async () => (await writesOf(disk)) > 300);
    truncateSync(disk.files.file("disk.raw"), GROWN_MIB * MIB);
    const answer = await disk.command({ command: "resize" });
    expect(answer).toMatchObject({ resize: { bytes: GROWN_MIB * MIB, guest: "told" } });
    const { status } = await disk.status();
    expect(status.stripes.total).toBe(GROWN_MIB);
    expect(status.fetch?.unfetched).toBeGreaterThan(0);
    const first = await running;
    expect(first.exitCode === 0 ? "" : `${first.console}${first.output}`).toBe("");
    const values = valuesOf(first);
    expect(values.before).toBe(`${DISK_MIB * 2048 + 8}`);
    expect(values.after).toBe(`${GROWN_MIB * 2048}`);
    await disk.stop();
    await disk.start();
    const second = await runGuest({ socketPath: disk.socketPath, script: AGAIN });
    expect(second.exitCode === 0 ? "" : `${second.console}${second.output}`).toBe("");
    expect(valuesOf(second)).toMatchObject({ after: `${GROWN_MIB * 2048}`, sum: values.sum });
  },
  400_000,
);

// --- internal ---

async function writesOf(disk: LazyDisk): Promise<number> {
  const text = JSON.stringify(await ask(disk.rpcPath, "stats"));
  return Number(/"write_ops":(\d+)/.exec(text)?.[1] ?? 0);
}
