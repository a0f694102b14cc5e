/**
 * The machine loses its power while the block device is used. Its disk is a loop device through the page cache:
 * what was written and not flushed is gone with the memory, as with a disk's own cache. What the kernel was told is
 * durable, by a flush or by a write that forces its data through, has to be there at the next start, and the file
 * system has to be whole.
 */
import { expect } from "bun:test";
import { valuesOf } from "../support/guest.ts";
import { UblkDisk } from "../support/ublk-disk.ts";
import { runUblkGuest } from "../support/ublk-guest.ts";
import { succeeds, testIn, withFunctions } from "../support/ublk-script.ts";

/** The lower half of the disk has the file system of the image, the upper half is written block by block. */
const SIZE_MIB = 64;
const FIRST_BLOCK = (SIZE_MIB / 2) * 256;
const UNFLUSHED = 64;

/**
 * A file system overwrites blocks of a file through the cache (FUA) without a flush; a block device's own file flushes
 * behind whatever it writes.
 */
const FORCE = "force_blocks";
const FLUSH = `write_blocks ${FIRST_BLOCK + 200} nonblock fsync`;

/**
 * Nothing in the guest makes anything durable by itself, however long it takes until the power goes: the kernel writes
 * no dirty page because of its age, and a file system commits its journal only when asked.
 */
const HOLD_BACK = `
echo 0 >/proc/sys/vm/dirty_writeback_centisecs
mount -o remount,commit=3600 /data
`;
const MOUNT = "mount -t ext4 -o commit=3600";

/** A block tells its number, over and over. */
const COMMON = `
losetup /dev/loop0 /data/disk.raw
block() { yes "this is block $1" | head -c 4096; }
`;

/** Setting a terminal waits for what was written to it: a reset takes what the kernel still holds of it. */
const DRAIN = "stty -F /dev/ttyS1 -opost";

/**
 * Told over the serial line, which needs no disk: a line is out before the next write begins. Three write at the same
 * time, then one alone: nothing helps its last writes but what they ask for themselves.
 */
const losePower = (last: string) => `
${HOLD_BACK}
${COMMON}
ubiblk init-metadata --config /data/disk.toml 2>/dev/null
begin
node=/dev/$(device)
${MOUNT} $link /mnt
write_blocks() {
  for block in $(seq $1 2 $(($1 + 59))); do
    block $block | dd of=$node bs=4k seek=$block oflag=direct,$2 conv=notrunc,nocreat,$3 iflag=fullblock 2>/dev/null
    echo "durable $block"
  done
}
force_blocks() {
  for block in $(seq 0 15); do
    block $block | dd of=/mnt/forced bs=4k seek=$block oflag=direct,dsync conv=notrunc,nocreat iflag=fullblock 2>/dev/null
    echo "forced $block"
  done
}
write_files() {
  for file in $(seq 15); do
    head -c $((file * 2777)) /dev/urandom >/tmp/file
    dd if=/tmp/file of=/mnt/new-$file conv=fsync 2>/dev/null
    echo "file new-$file $(sha256sum </tmp/file)"
  done
}
dd if=/dev/urandom of=/mnt/forced bs=4k count=16 conv=fsync 2>/dev/null
write_blocks ${FIRST_BLOCK} dsync notrunc & forced=$!
write_blocks ${FIRST_BLOCK + 1} nonblock fsync & flushed=$!
write_files & files=$!
wait $forced
wait $flushed
wait $files
${last}
for block in $(seq ${FIRST_BLOCK + 1000} ${FIRST_BLOCK + 1000 + UNFLUSHED - 1}); do block $block; done >/tmp/unflushed
dd if=/tmp/unflushed of=$node bs=4k seek=${FIRST_BLOCK + 1000} oflag=direct conv=notrunc,nocreat 2>/dev/null
echo "written unflushed"
${DRAIN}
echo b >/proc/sysrq-trigger
sleep 60
`;

const LOOK = `
${COMMON}
begin
node=/dev/$(device)
for block in $(cat /tmp/files/durable); do
  block $block >/tmp/expected
  dd if=$node of=/tmp/found bs=4k skip=$block count=1 iflag=direct 2>/dev/null
  cmp /tmp/expected /tmp/found
done
mount -t ext4 $link /mnt
for block in $(cat /tmp/files/forced); do
  block $block >/tmp/expected
  cmp -n 4096 -i 0:$((block * 4096)) /tmp/expected /mnt/forced
done
cd /mnt
sha256sum -c --quiet /tmp/files/sums
sha256sum -c --quiet sums
cd /tmp
umount /mnt
e2fsck -fn $link
dd if=$node of=/tmp/unflushed bs=4k skip=${FIRST_BLOCK + 1000} count=${UNFLUSHED} iflag=direct 2>/dev/null
echo "survived_unflushed=$(grep -ac 'this is block' /tmp/unflushed || true)"
end
losetup -d /dev/loop0
`;

for (const [suite, kind, last] of [
  ["trixie", "encrypted", FORCE],
  ["sid", "plain", FLUSH],
] as const) {
  testIn(
    suite,
    `${kind} disk, lazily fetched, loses its power: what was flushed is there`,
    async () => {
      using disk = await UblkDisk.make({
        kind,
        sizeMiB: SIZE_MIB,
        imageFileBytes: [4096, 100_000, 3_000_000],
        dataPath: "/dev/loop0",
      });
      const script = withFunctions(losePower(last));
      const { output, console } = await runUblkGuest({ suite, script, dataDisk: disk.path });
      expect(output.includes("written unflushed") ? "" : `${output}${console}`).toBe("");
      const told = (what: string) =>
        [...output.matchAll(new RegExp(`^${what} (\\d+)$`, "gm"))].map(([, block]) => block);
      const [durable, forced] = [told("durable"), told("forced")];
      const files = [...output.matchAll(/^file (\S+) (\w+) {2}-$/gm)];
      expect(durable.length).toBe(last === FLUSH ? 90 : 60);
      expect(forced.length).toBe(last === FORCE ? 16 : 0);
      expect(files.length).toBe(15);
      const sums = files.map(([, name, sum]) => `${sum}  ${name}\n`).join("");
      const result = await succeeds({
        suite,
        script: LOOK,
        dataDisk: disk.path,
        files: { durable: durable.join("\n"), forced: forced.join("\n"), sums },
      });
      // Else nothing was lost, and the rest proves nothing.
      expect(Number(valuesOf(result).survived_unflushed)).toBe(0);
    },
  );
}
