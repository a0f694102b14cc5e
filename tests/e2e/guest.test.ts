/**
 * A Linux guest lives on our disk: it makes a file system, writes, flushes, discards, restarts, and finds
 * its data again. Nothing on that side is ours: firmware, kernel, driver, file system and checker.
 *
 * `UBIBLK_TEST_CONTROL=1` runs the same guest on qemu-storage-daemon with an unencrypted file, to tell a
 * fault of the test from one of the backend.
 */
import { expect } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import {
  type Backend,
  type DiskFiles,
  type DiskOptions,
  startStorageDaemon,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import {
  type GuestOptions,
  type GuestResult,
  missingForGuest,
  runGuest,
  valuesOf,
} from "../support/guest.ts";
import { hasGuestKernel } from "../support/guest-kernel.ts";
import { skipUnless } from "../support/requires.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 512 * MIB;
const BUILD_FOLDER = resolve(import.meta.dir, "..", "..", "build");
const IS_CONTROL = process.env.UBIBLK_TEST_CONTROL === "1";
const missing = missingForGuest(hasGuestKernel());
const testWithGuest = skipUnless(missing ?? "", missing === undefined);

/** Stands in a file of the guest; whoever reads the host's file must not find it there. */
const MARKER = "a sentence that only the guest may read";

const FILL = `
echo "write_cache=$(cat /sys/block/vda/queue/write_cache)"
echo "discard_bytes=$(cat /sys/block/vda/queue/discard_max_bytes)"
printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk /dev/vda >/dev/null
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/vda1
mount -t ext4 /dev/vda1 /mnt
mkdir /mnt/small
for i in $(seq 300); do head -c $((i * 61)) /dev/urandom >/mnt/small/$i; done
yes "${MARKER}" | head -c 2000000 >/mnt/marker
dd if=/dev/urandom of=/mnt/large bs=1M count=64 2>/dev/null
sync
cd /mnt && find small marker large -type f | sort | xargs sha256sum >sums && cd /
sync
echo 3 >/proc/sys/vm/drop_caches
cd /mnt && sha256sum -c -s sums && cd /
echo "sums=$(sha256sum </mnt/sums)"
umount /mnt
e2fsck -fn /dev/vda1
`;

const CHECK_AND_DISCARD = `
e2fsck -fn /dev/vda1
mount -t ext4 /dev/vda1 /mnt
echo "sums=$(sha256sum </mnt/sums)"
cd /mnt && sha256sum -c -s sums && cd /
rm /mnt/large
sync
fstrim /mnt
echo 3 >/proc/sys/vm/drop_caches
cd /mnt && grep -v large sums | sha256sum -c -s && cd /
umount /mnt
e2fsck -fn /dev/vda1
`;

for (const kind of ["encrypted", "plain"] as const) {
  testWithGuest(
    `guest with one queue, ${kind} disk: its file system outlives a restart, discard frees blocks`,
    async () => {
      using disk = makeDisk({ isEncrypted: kind === "encrypted" });
      await using backend = await serve(disk.files, 1);
      const filled = await succeeds({ ...guestOf(backend), script: FILL });
      expect(valuesOf(filled).write_cache).toBe(IS_CONTROL ? "write through" : "write back");
      expect(Number(valuesOf(filled).discard_bytes)).toBeGreaterThan(0);
      const filledBytes = allocatedBytes(disk.files);
      expect(filledBytes).toBeGreaterThan(64 * MIB);
      const isReadableOnHost = readFileSync(disk.files.dataPath).includes(MARKER);
      expect(isReadableOnHost).toBe(IS_CONTROL || kind === "plain");

      const checked = await succeeds({ ...guestOf(backend), script: CHECK_AND_DISCARD });
      expect(valuesOf(checked).sums).toBe(valuesOf(filled).sums ?? "no sums");
      expect(allocatedBytes(disk.files)).toBeLessThan(filledBytes - 60 * MIB);
      expect(await backend.stop()).toBe(0);
    },
    300_000,
  );
}

testWithGuest(
  "guest on a backend that was restarted: the data is what was flushed before",
  async () => {
    using disk = makeDisk({ isEncrypted: true });
    await using first = await serve(disk.files, 1);
    const written = await succeeds({
      ...guestOf(first),
      script: `dd if=/dev/urandom of=/dev/vda bs=1M count=16 conv=fsync 2>/dev/null
echo "sum=$(head -c 16777216 /dev/vda | sha256sum)"`,
    });
    expect(await first.stop()).toBe(0);
    await using second = await serve(disk.files, 1);
    const read = await succeeds({
      ...guestOf(second),
      script: `echo "sum=$(head -c 16777216 /dev/vda | sha256sum)"`,
    });
    expect(valuesOf(read).sum).toBe(valuesOf(written).sum ?? "no sum");
  },
  200_000,
);

/** Two writers, each on a processor and so on a queue of its own, then zeroes and discard of the whole. */
const TWO_QUEUES = `
echo "queues=$(ls /sys/block/vda/mq | wc -l)"
mkfs.ext4 -q -F -E nodiscard /dev/vda
mount -t ext4 /dev/vda /mnt
write() {
  mkdir /mnt/$1
  for i in $(seq 100); do head -c $((i * 700)) /dev/urandom >/mnt/$1/$i; done
  dd if=/dev/urandom of=/mnt/$1/large bs=256k count=80 conv=fsync 2>/dev/null
}
taskset -p 1 $$ >/dev/null; write one & first=$!
taskset -p 2 $$ >/dev/null; write two
wait $first
cd /mnt && find one two -type f | sort | xargs sha256sum >/tmp/sums && cd /
sync
echo 3 >/proc/sys/vm/drop_caches
cd /mnt && sha256sum -c -s /tmp/sums && cd /
for queue in 0 1; do
  interrupts=$(grep "req.$queue$" /proc/interrupts | awk '{ print $2 + $3 }')
  echo "interrupts_$([ $queue = 0 ] && echo first || echo second)=$interrupts"
done
umount /mnt
e2fsck -fn /dev/vda
dd if=/dev/urandom of=/dev/vda bs=1M count=8 conv=fsync 2>/dev/null
/sbin/blkdiscard -z -o 1048576 -l 4194304 /dev/vda
echo 3 >/proc/sys/vm/drop_caches
echo "zeroes=$(dd if=/dev/vda bs=1M skip=1 count=4 2>/dev/null | tr -d '\\000' | wc -c)"
echo "beside=$(dd if=/dev/vda bs=1M skip=5 count=1 2>/dev/null | tr -d '\\000' | wc -c)"
/sbin/blkdiscard -f /dev/vda
`;

testWithGuest(
  "guest with two queues: both carry data, zeroes are zeroes, a discarded disk is empty",
  async () => {
    using disk = makeDisk({ isEncrypted: true, moreConfig: "[tuning]\nnum_queues = 2\n" });
    await using backend = await serve(disk.files, 2);
    const options = { ...guestOf(backend), queueCount: 2, cpuCount: 2 };
    const result = await succeeds({ ...options, script: TWO_QUEUES });
    expect(valuesOf(result).queues).toBe("2");
    expect(Number(valuesOf(result).interrupts_first)).toBeGreaterThan(20);
    expect(Number(valuesOf(result).interrupts_second)).toBeGreaterThan(20);
    expect(valuesOf(result).zeroes).toBe("0");
    expect(Number(valuesOf(result).beside)).toBeGreaterThan(MIB * 0.99);
    expect(allocatedBytes(disk.files)).toBeLessThan(MIB);
  },
  300_000,
);

testWithGuest(
  "guest with packed rings: two queues carry data, zeroes are zeroes, a discarded disk is empty",
  async () => {
    using disk = makeDisk({ isEncrypted: false, moreConfig: "[tuning]\nnum_queues = 2\n" });
    await using backend = await serve(disk.files, 2);
    const options = { ...guestOf(backend), queueCount: 2, cpuCount: 2, isPacked: true };
    // Characters of `features` are bits, from bit 0 on: the one behind 34 others says whether rings are packed.
    const packed = 'echo "packed=$(cut -c35 /sys/block/vda/device/features)"';
    const result = await succeeds({ ...options, script: `${packed}\n${TWO_QUEUES}` });
    expect(valuesOf(result).packed).toBe("1");
    expect(valuesOf(result).queues).toBe("2");
    expect(Number(valuesOf(result).interrupts_first)).toBeGreaterThan(20);
    expect(Number(valuesOf(result).interrupts_second)).toBeGreaterThan(20);
    expect(valuesOf(result).zeroes).toBe("0");
    expect(Number(valuesOf(result).beside)).toBeGreaterThan(MIB * 0.99);
    expect(allocatedBytes(disk.files)).toBeLessThan(MIB);
  },
  300_000,
);

// --- internal ---

interface Disk extends Disposable {
  readonly files: DiskFiles;
}

/** An empty disk in a folder of its own, on a real file system: direct I/O and discard need one. */
function makeDisk(options: Omit<DiskOptions, "folder">): Disk {
  mkdirSync(BUILD_FOLDER, { recursive: true });
  const folder = mkdtempSync(join(BUILD_FOLDER, "guest-disk-"));
  const files = writeDiskConfig({ folder, ...options });
  writeFileSync(files.dataPath, "", { mode: 0o600 });
  truncateSync(files.dataPath, DISK_BYTES);
  return { files, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

function serve(files: DiskFiles, queueCount: number): Promise<Backend> {
  return IS_CONTROL ? startStorageDaemon(files, queueCount) : startUbiblk(files);
}

function guestOf(backend: Backend): Pick<GuestOptions, "socketPath"> {
  return { socketPath: backend.socketPath };
}

/** Runs a script that must end well; what the guest said is shown when it does not. */
async function succeeds(options: GuestOptions): Promise<GuestResult> {
  const result = await runGuest(options);
  const story = `${result.console}\n${result.output}`;
  expect(result.exitCode === 0 ? "" : story).toBe("");
  expect(result.console).not.toMatch(/I\/O error|EXT4-fs error|Call Trace|blk_update_request/);
  return result;
}

function allocatedBytes(files: DiskFiles): number {
  return statSync(files.dataPath).blocks * 512;
}
