/**
 * The block device when it is stopped: under load, on a slow disk or one that hangs, before it is there, and with a process that
 * dies meanwhile. The process always ends, and what is left can be taken over or cleared away.
 */
import { expect } from "bun:test";
import { valuesOf } from "../support/guest.ts";
import { rounds } from "../support/requires.ts";
import { UblkDisk } from "../support/ublk-disk.ts";
import { succeeds, testIn, testsInOneGuest } from "../support/ublk-script.ts";
import { NOW, ON_SLOW_DISK, SECOND } from "../support/ublk-slow-disk.ts";

/** From the signal to stop until the death, in seconds. */
const STOP_PAUSES = Array.from({ length: rounds(3, 12) }, (_, i) => (0.1 + i / 4).toFixed(2));

const STOP = `
for signal in TERM INT; do
  begin
  fio --name=load --filename=/dev/$(device) --rw=randrw --bs=4k --direct=1 --ioengine=io_uring --iodepth=32 \\
    --time_based --runtime=60 >/dev/null 2>&1 &
  load=$!
  sleep 1
  kill -0 $load
  kill -$signal $backend
  wait $backend
  [ -z "$(left)" ]
  await '! kill -0 $load 2>/dev/null'
  fails wait $load
done
`;

/** Who dies in the middle of a stop is gone soon; what is left of the device can be taken over or cleared away. */
const DIE_IN_STOP = `${ON_SLOW_DISK}
for pause in ${STOP_PAUSES.join(" ")}; do
  begin --recoverable
  id=$(device | tr -d a-z)
  become 400
  dd if=/dev/zero of=/dev/$(device) bs=1M count=8 conv=nocreat 2>/dev/null
  kill -TERM $backend
  sleep $pause
  kill -9 $backend 2>/dev/null || true
  await '! kill -0 $backend 2>/dev/null'
  wait $backend || true
  become 0
  if begin --recover $id; then
    end
  else
    grep -E 'E_UBLK_DEVICE.*(was stopped|there is no)' /tmp/log
  fi
done
begin
end
dmsetup remove --retry slow
losetup -d /dev/loop0
diskIs /data/disk.raw
`;

/**
 * While the kernel stops a device under load, a second signal and death end its process as soon as its own I/O has ended.
 * The disk holds writes back, however long it takes to see the kernel wait for them.
 */
const DIE_UNDER_STOP = `${ON_SLOW_DISK}
die() {
  signal=$1
  shift
  : >/tmp/log
  begin "$@"
  become "0 /dev/loop0 0 600000 /dev/loop0 0 0"
  fio --name=load --filename=/dev/$(device) --rw=randwrite --bs=4k --direct=1 --ioengine=io_uring --iodepth=32 \\
    --time_based --runtime=60 >/dev/null 2>&1 & load=$!
  await '[ $(cat /sys/block/$(device)/inflight | tr -s " " | cut -d" " -f3) -ge 16 ]'
  kill -TERM $backend
  await 'cat /proc/[0-9]*/task/*/stack 2>/dev/null | grep -q ublk_stop_dev'
  kill -$signal $backend
  become 0
  await '! kill -0 $backend 2>/dev/null'
  fails wait $backend
  fails grep 'INFO . stopped' /tmp/log
  await '! pidof ubiblk'
  await '! kill -0 $load 2>/dev/null'
  fails wait $load
  begin
  grep 'deleted a device whose server had died' /tmp/log
  end
}
die INT
die KILL --recoverable
${rounds("", "die KILL; die INT --recoverable")}
dmsetup remove --retry slow
losetup -d /dev/loop0
diskIs /data/disk.raw
`;

/** The disk below answers no write for longer than the kernel is given to stop the device: said, and it ends. */
const STOP_IN_VAIN = `${ON_SLOW_DISK}
begin
become "0 /dev/loop0 0 600000 /dev/loop0 0 0"
dd if=/dev/zero of=/dev/$(device) bs=4k count=1 oflag=direct conv=nocreat 2>/dev/null & writer=$!
await '[ $(cat /sys/block/$(device)/inflight | tr -s " " | cut -d" " -f3) -ge 1 ]'
kill -TERM $backend
for wait in 1 2 3 4; do
  ! await "grep 'E_UBLK_DEVICE: cannot stop ublk device .*: the kernel did not end it in time' /tmp/log" || break
done
grep 'did not end it in time' /tmp/log
become 0
fails wait $backend
fails wait $writer
await '! pidof ubiblk'
dmsetup remove --retry slow
losetup -d /dev/loop0
diskIs /data/disk.raw
`;

const TWO_QUEUES = "[tuning]\nnum_queues = 2";

testsInOneGuest({
  suite: "trixie",
  disk: { kind: "encrypted", sizeMiB: 40, sections: TWO_QUEUES },
  parts: [
    { name: "stopped under load by either signal: nothing is left", script: STOP },
    { name: "recoverable disk of two queues, killed while it stops", script: DIE_IN_STOP },
    { name: "disk of two queues, that dies while it stops under load", script: DIE_UNDER_STOP },
    ...rounds(
      [],
      [{ name: "stopped while its disk hangs: said, and it ends", script: STOP_IN_VAIN }],
    ),
  ],
});

testsInOneGuest({
  suite: "sid",
  disk: { kind: "plain", sizeMiB: 40, sections: TWO_QUEUES },
  parts: [
    {
      name: "plain disk of two queues, that dies while it stops under load",
      script: DIE_UNDER_STOP,
    },
  ],
});

/**
 * The kernel reads the partition table of a disk whose source has fallen silent. Before that a backend whose source
 * answers shows how long a start and a stop take here.
 */
const SILENT_SOURCE = `${NOW}
ifconfig lo up
truncate -s 16M /data/image.raw
cat >/data/source.toml <<END
[device]
data_path = "/data/image.raw"
[danger_zone]
enabled = true
allow_unencrypted_disk = true
END
cat >/data/server.toml <<END
[server]
address = "127.0.0.1:7777"
[danger_zone]
enabled = true
allow_unencrypted_connection = true
END
cat >>/data/disk.toml <<END
allow_unencrypted_connection = true
[stripe_source]
type = "remote"
address = "127.0.0.1:7777"
END
ubiblk stripe-server -f /data/source.toml --listen-config /data/server.toml >/tmp/server 2>&1 &
server=$!
await 'grep -q "listening on" /tmp/server'
initialize() {
  rm -f /data/metadata
  ubiblk init-metadata --config /data/disk.toml 2>/dev/null
}
initialize
began=$(now)
begin
kill $backend
wait $backend
echo "life=$(($(now) - began))"
initialize
launch
while [ ! -e /dev/ublkc0 ]; do kill -0 $backend; done
kill -STOP $server
await '[ -e /dev/ublkb0 ]'
sleep 1
asked=$(now)
kill $backend
wait $backend
echo "waited=$(($(now) - asked))"
kill -KILL $server
wait $server 2>/dev/null || true
[ -z "$(left)" ]
`;

testIn("trixie", "stopped while it starts, with a source that does not answer", async () => {
  using disk = await UblkDisk.make({
    kind: "plain",
    sizeMiB: 16,
    device: `metadata_path = "/data/metadata"`,
  });
  const result = await succeeds({ suite: "trixie", script: SILENT_SOURCE, dataDisk: disk.path });
  const { life, waited } = valuesOf(result);
  // The patience of 5 s is over at any speed; the kernel's command would wait for two minutes.
  expect(Number(waited) - 5 * SECOND).toBeLessThan(3 * Number(life));
});
