/**
 * The disk as a Linux block device: the compiled executable in a guest whose kernel has the ublk driver,
 * used by that kernel, its file system and its tools. The machine's own kernel needs nothing.
 */
import { expect } from "bun:test";
import { valuesOf } from "../support/guest.ts";
import { rounds } from "../support/requires.ts";
import { UblkDisk } from "../support/ublk-disk.ts";
import { succeeds, testIn } from "../support/ublk-script.ts";

const MIB = 2 ** 20;
const VERIFY_MIB = rounds(8, 64);

/** A file system over all of the disk outlives a restart, with checksums of two makers; zeroes are zeroes. */
const LIFE = `
name=$(device)
echo "write_cache=$(cat /sys/block/$name/queue/write_cache)"
echo "discard_bytes=$(cat /sys/block/$name/queue/discard_max_bytes)"
echo "largest_kib=$(cat /sys/block/$name/queue/max_hw_sectors_kb)"
echo "sectors=$(cat /sys/block/$name/size)"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 $link
mount -t ext4 $link /mnt
for i in $(seq 60); do head -c $((i * 611)) /dev/urandom >/mnt/$i; done
dd if=/dev/urandom of=/mnt/large bs=1M count=16 conv=fsync 2>/dev/null
cd /mnt && find * -type f | xargs sha256sum >/data/sums && cd /tmp
fio --name=verify --filename=/mnt/fio --size=${VERIFY_MIB}m --rw=randwrite --bsrange=4k-64k \\
  --direct=1 --ioengine=io_uring --iodepth=16 --verify=crc32c --do_verify=1 --minimal >/dev/null
sync
filled=$(du -k /data/disk.raw | cut -f1)
rm /mnt/fio
sync # what the journal has not committed yet is not trimmed
fstrim /mnt
echo "freed_kib=$((filled - $(du -k /data/disk.raw | cut -f1)))"
umount /mnt
e2fsck -fn $link
end
begin
e2fsck -fn $link
mount -t ext4 $link /mnt
cd /mnt && sha256sum -c --quiet /data/sums && cd /tmp
umount /mnt
dd if=/dev/urandom of=$link bs=1M count=8 oflag=direct 2>/dev/null
blkdiscard -z -o 1048576 -l 2097152 $link
echo "beside=$(dd if=$link bs=1M skip=3 count=1 iflag=direct 2>/dev/null | tr -d '\\000' | wc -c)"
echo "zeroed=$(dd if=$link bs=1M skip=1 count=2 iflag=direct 2>/dev/null | tr -d '\\000' | wc -c)"
`;

function expectLife(values: Readonly<Record<string, string>>, sizeMiB: number): void {
  expect(values.write_cache).toBe("write back");
  expect(values.largest_kib).toBe("1024");
  expect(values.sectors).toBe(`${sizeMiB * 2048}`);
  expect(Number(values.discard_bytes)).toBeGreaterThan(0);
  expect(Number(values.freed_kib)).toBeGreaterThan(VERIFY_MIB * 1000);
  expect(values.zeroed).toBe("0");
  expect(Number(values.beside)).toBeGreaterThan(MIB * 0.99);
}

testIn("trixie", "encrypted disk, fetched from an image: a file system lives on it", async () => {
  const sizeMiB = 192;
  using disk = await UblkDisk.make({
    kind: "encrypted",
    sizeMiB,
    imageFileBytes: [5, 4096, 3 * MIB + 17, 12 * MIB],
  });
  const script = `
ubiblk init-metadata --config /data/disk.toml 2>/dev/null
begin
mount -t ext4 -o ro,noload $link /mnt
cd /mnt && sha256sum -c --quiet sums && cd /tmp
umount /mnt
${LIFE}
end
`;
  expectLife(valuesOf(await succeeds({ suite: "trixie", script, dataDisk: disk.path })), sizeMiB);
});

testIn("sid", "plain disk without copying: the file behind it holds what it shows", async () => {
  const sizeMiB = 96;
  using disk = await UblkDisk.make({ kind: "plain", sizeMiB });
  const script = `
begin
ubiblk ublk --list --json | grep '"zero_copy": true'
${LIFE}
cmp $link /data/disk.raw
end
begin --copy
ubiblk ublk --list --json | grep '"zero_copy": false'
cmp $link /data/disk.raw
fio --name=verify --filename=/dev/$(device) --size=${VERIFY_MIB}m --rw=randwrite --bsrange=4k-64k \\
  --direct=1 --ioengine=io_uring --iodepth=16 --verify=crc32c --do_verify=1 --minimal >/dev/null
end
`;
  expectLife(valuesOf(await succeeds({ suite: "sid", script, dataDisk: disk.path })), sizeMiB);
});

const TWO_QUEUES = `
begin
echo "queues=$(ls /sys/block/$(device)/mq | wc -l)"
echo "zero_copy=$(sed -n 's/.* zeroCopy=\\([^ ]*\\).*/\\1/p' /tmp/log)"
load() {
  taskset $1 fio --name=verify$1 --filename=/dev/$(device) --offset=$(($1 * 16))m --size=${VERIFY_MIB}m \\
    --rw=randwrite --bsrange=4k-256k --direct=1 --ioengine=io_uring --iodepth=16 \\
    --verify=crc32c --do_verify=1 --minimal >/dev/null
}
load 1 & first=$!
load 2
wait $first
ubiblk top --once --json --socket /run/rpc
ip link set lo up
wget -q -O - http://127.0.0.1:9464/metrics | grep -e '^ubiblk_info' -e '^ubiblk_transferred.*write'
end
`;

/** An enciphered disk takes the same way on both kernels: the second one is for the long tests. */
const TWO_QUEUE_DISKS = [
  ["trixie", "encrypted", "false"],
  ["sid", "plain", "true"],
  ["sid", "encrypted", "false"],
] as const;

for (const [suite, kind, zeroCopy] of TWO_QUEUE_DISKS.slice(0, rounds(2, 3))) {
  testIn(suite, `${kind} disk with two queues: both carry data`, async () => {
    using disk = await UblkDisk.make({
      kind,
      sizeMiB: 64 + 2 * VERIFY_MIB,
      device: `rpc_socket = "/run/rpc"\nmetrics_address = "127.0.0.1:9464"`,
      sections: "[tuning]\nnum_queues = 2",
    });
    const result = await succeeds({ suite, script: TWO_QUEUES, dataDisk: disk.path });
    expect(valuesOf(result)).toMatchObject({ queues: "2", zero_copy: zeroCopy });
    const written = [...result.output.matchAll(/"bytes_written":(\d+)/g)].map(([, bytes]) => bytes);
    const perQueue = `${VERIFY_MIB * MIB}`;
    expect(written.slice(0, 2)).toEqual([perQueue, perQueue]);
    const scraped = [...result.output.matchAll(/^ubiblk_transferred.*,queue="\d".* (\d+)\r?$/gm)];
    expect(scraped.map(([, bytes]) => bytes)).toEqual([perQueue, perQueue]);
    expect(result.output).toContain('role="ublk"');
  });
}
