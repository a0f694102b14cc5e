/**
 * Backends in a guest whose kernel makes faults: a drive that fails writes, and one that forgets them, below the disk of
 * a backend; a network that delays and loses, between a backend and its stripe server.
 */
import { testsInOneGuest } from "../support/ublk-script.ts";

/** `bench` writes with a journal or checks against it; \`become TABLE\` makes another drive of the device. */
const FLAKY = `
export DM_DISABLE_UDEV=1
losetup --direct-io=on /dev/loop0 /data/disk.raw
size=$(blockdev --getsz /dev/loop0)
whole="0 $size linear /dev/loop0 0"
become() {
  dmsetup suspend --nolockfs flaky
  echo "$1" | dmsetup load flaky
  dmsetup resume flaky
}
dmsetup create flaky --table "$whole"
sed 's|"/data/disk.raw"|"/dev/mapper/flaky"\\nvhost_socket = "/tmp/vhost.sock"|' /data/disk.toml >/data/flaky.toml
chmod 600 /data/flaky.toml
ubiblk vhost --config /data/flaky.toml >/tmp/log 2>&1 &
backend=$!
await '[ -S /tmp/vhost.sock ]'
bench() { ubiblk bench --socket /tmp/vhost.sock "$@"; }
load() {
  bench --workload randwrite --block-size 16K --queue-depth 8 --flush-every 16 --warmup 0 --journal /tmp/journal "$@" >/dev/null
}
check() { bench --check /tmp/journal; }
load --time 1 2>/dev/null
check >/dev/null 2>&1
`;

/** Of each two seconds one is good: the load meets the bad one. */
const ERROR_WRITES = `${FLAKY}
become "0 $size flakey /dev/loop0 0 1 1 1 error_writes"
refuses load --time 20
grep 'the disk failed a request.*operation=write.*cause="EIO' /tmp/log
become "$whole"
check >/dev/null 2>&1
load --time 1 2>/dev/null
check >/dev/null 2>&1
kill -0 $backend
kill -TERM $backend
wait $backend
dmsetup remove --retry flaky
losetup -d /dev/loop0
`;

/** What is promised ends where a drive acknowledges what it forgets; and the journal is a witness that sees it. */
const DROP_WRITES = `${FLAKY}
become "0 $size flakey /dev/loop0 0 0 60 1 drop_writes"
load --time 1 2>/dev/null
become "$whole"
refuses check
grep E_VERIFY /tmp/refusal
kill -TERM $backend
wait $backend
dmsetup remove --retry flaky
losetup -d /dev/loop0
`;

/** A twentieth of all packets is lost. Only what is read is fetched, so that the server is killed with most of it to come. */
const LOSSY = `
ip link set lo up 2>/dev/null || ifconfig lo up
tc qdisc add dev lo root netem delay 15ms 10ms loss 5%
dd if=/dev/urandom of=/data/image.raw bs=1M count=12 2>/dev/null
mkdir -p /data/lossy
cat >/data/lossy/source.toml <<END
[device]
data_path = "/data/image.raw"
[danger_zone]
enabled = true
allow_unencrypted_disk = true
END
cat >/data/lossy/server.toml <<END
[server]
address = "127.0.0.1:7777"
[danger_zone]
enabled = true
allow_unencrypted_connection = true
END
sed 's|^\\[encryption\\]|metadata_path = "/data/lossy/metadata"\\n[stripe_source]\\ntype = "remote"\\naddress = "127.0.0.1:7777"\\n[encryption]|; s|^\\[danger_zone\\]|[danger_zone]\\nallow_unencrypted_connection = true|' \\
  /data/disk.toml >/data/lossy/disk.toml
sed -i 's|"/data/disk.raw"|"/data/lossy/disk.raw"|' /data/lossy/disk.toml
truncate -s 12M /data/lossy/disk.raw
chmod 600 /data/lossy/*
serve() {
  ubiblk stripe-server -f /data/lossy/source.toml --listen-config /data/lossy/server.toml >/tmp/server 2>&1 &
  server=$!
  await 'grep -q "listening on" /tmp/server'
}
serve
ubiblk init-metadata --config /data/lossy/disk.toml 2>/dev/null
ubiblk ublk --config /data/lossy/disk.toml --device-symlink $link >>/tmp/log 2>&1 &
backend=$!
await '[ -b $link ]'
dd if=$link of=/tmp/first bs=64k count=3 2>/dev/null
kill -9 $server
wait $server 2>/dev/null || true
sha256sum <$link >/tmp/read & reader=$!
sleep 1
kill -0 $reader
serve
wait $reader
[ "$(cat /tmp/read)" = "$(sha256sum </data/image.raw)" ]
tc -s qdisc show dev lo | grep -E 'dropped [1-9]'
kill -TERM $backend
wait $backend
kill -TERM $server
wait $server
tc qdisc del dev lo root
rm -r /data/lossy /data/image.raw
`;

testsInOneGuest({
  suite: "trixie",
  disk: { kind: "encrypted", sizeMiB: 32 },
  parts: [
    {
      name: "a drive that fails writes for a second: they are told, and nothing acknowledged is lost",
      script: ERROR_WRITES,
    },
    {
      name: "a drive that forgets writes: nobody can tell but who knows what was written",
      script: DROP_WRITES,
    },
    {
      name: "packets late and lost, a stripe server killed and started again: every byte is right",
      script: LOSSY,
    },
  ],
});
