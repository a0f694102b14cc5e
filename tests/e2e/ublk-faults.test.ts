/**
 * The block device when things go wrong: a backend that is killed, a disk that fails,
 * a driver that is not there. What waits ends at once and with an error, or waits because it was told to.
 */
import { expect } from "bun:test";
import { rounds } from "../support/requires.ts";
import { testsInOneGuest } from "../support/ublk-script.ts";
import { NOW, ON_MAPPER, SECOND } from "../support/ublk-slow-disk.ts";

const KILLS = rounds(3, 12);

/** fio checks every block that it was told is written, those around the kills included. */
const RECOVER = `
begin --recoverable
id=$(device | tr -d a-z)
fio --name=verify --filename=/dev/$(device) --size=${KILLS * 5}m --rw=randwrite --bsrange=4k-64k \\
  --direct=1 --ioengine=io_uring --iodepth=16 --verify=crc32c --do_verify=1 --rate=2m >/tmp/fio 2>&1 &
load=$!
for kill in $(seq ${KILLS}); do
  sleep 1.$kill
  kill -9 $backend
  wait $backend 2>/dev/null || true
  ubiblk ublk --list --json | grep '"orphan": true'
  kill -0 $load
  begin --recoverable --recover $id
done
wait $load || { cat /tmp/fio; false; }
end
`;

/**
 * A backend dies again and again in the middle of its start: as soon as its queues are there, when they may have fetched,
 * or only one of them; and as soon as it mapped what the driver remembers it by.
 */
const RECOVER_AGAIN = `
begin --recoverable
id=$(device | tr -d a-z)
kill -9 $backend
wait $backend 2>/dev/null || true
dd if=/dev/urandom of=/tmp/block bs=4k count=1 2>/dev/null
dd if=/tmp/block of=/dev/$(device) seek=7 bs=4k oflag=direct conv=nocreat 2>/dev/null & writer=$!
for kill in $(seq ${rounds(6, 20)}); do
  launch --recoverable --recover $id
  if [ $((kill % 2)) = 0 ]; then
    while ! grep -qs ublk-queue /proc/$backend/task/*/comm; do kill -0 $backend; done
  else
    while ! grep -qs /dev/ublkc /proc/$backend/maps; do kill -0 $backend; done
  fi
  kill -9 $backend
  wait $backend 2>/dev/null || true
done
kill -0 $writer
begin --recover $id
wait $writer
cmp -n 4096 -i 0:28672 /tmp/block /dev/$(device)
end
`;

/** Who takes over a device must see its disk as the one before did, or it would be garbled. */
const RECOVER_WRONGLY = `
cp /data/disk.toml /data/right.toml
sed -i '/^\\[tuning\\]/a write_through = true' /data/disk.toml
begin --recoverable
id=$(device | tr -d a-z)
kill -9 $backend
wait $backend || true
recover() { refuses timeout 30 ubiblk ublk --config /data/wrong.toml --recover $id; }
cp /data/right.toml /data/wrong.toml
recover
grep tuning.write_through /tmp/refusal
head -c 64 /dev/urandom >/data/other-key
sed 's/key"$/other-key"/' /data/disk.toml >/data/wrong.toml
recover
grep 'another key' /tmp/refusal
sed '/data_path/a read_only = true' /data/disk.toml >/data/wrong.toml
recover
grep device.read_only /tmp/refusal
begin --recover $id
end
cp /data/right.toml /data/disk.toml
`;

/**
 * Every request that the queue has is on a slow disk when the backend dies: 6.12 has nobody to tell of that. fio
 * notes its end itself: the next backend starts meanwhile.
 */
const DEATH_OF_ALL = `${NOW}
${ON_MAPPER}
echo "0 $(blockdev --getsz /dev/loop0) delay /dev/loop0 0 300" | dmsetup create slow
diskIs /dev/mapper/slow
begin
{
  code=0
  fio --name=load --filename=/dev/$(device) --rw=randwrite --bs=4k --direct=1 --ioengine=io_uring --iodepth=128 \
    --time_based --runtime=120 >/dev/null 2>&1 || code=$?
  now >/tmp/ended
  exit $code
} &
load=$!
await '[ $(cat /sys/block/$(device)/inflight | tr -s " " | cut -d" " -f3) -ge 64 ]'
sleep 1
kill -9 $backend
wait $backend || true
died=$(now)
begin
await '! kill -0 $load 2>/dev/null'
echo "waited=$(($(cat /tmp/ended) - died))"
fails wait $load
end
dmsetup remove --retry slow
losetup -d /dev/loop0
diskIs /data/disk.raw
`;

/** Four writers note each block after the kernel said that it is written, and when it said that one is not. */
const DEATH = `${NOW}
dd if=/dev/urandom of=/tmp/blocks bs=4k count=2000 2>/dev/null
: >/tmp/journal
write() {
  block=$1
  while dd if=/tmp/blocks of=$node bs=4k skip=$block seek=$block count=1 oflag=direct \\
    conv=notrunc,nocreat 2>/dev/null; do
    echo $block >>/tmp/journal
    block=$((block + 4))
  done
  now >/tmp/ended$1
}
begin
node=/dev/$(device)
lanes=
for lane in 0 1 2 3; do
  write $lane &
  lanes="$lanes $!"
done
await '[ $(wc -l </tmp/journal) -gt 100 ]'
kill -9 $backend
died=$(now)
wait $lanes
echo "waited=$(($(cat /tmp/ended* | sort -n | tail -n 1) - died))"
wait $backend || true
await '[ ! -e $node ]'
ubiblk ublk --list --json >/tmp/list
grep '"state": "dead"' /tmp/list
id=$(sed -n 's/.*"id": \\([0-9]*\\).*/\\1/p' /tmp/list)
ubiblk ublk --delete $id
[ "$(left)" = $link ]
begin
dd if=$link of=/tmp/found bs=64k count=125 iflag=direct 2>/dev/null
for block in $(cat /tmp/journal); do
  cmp -n 4096 -i $((block * 4096)) /tmp/blocks /tmp/found
done
kill -9 $backend
wait $backend || true
begin
end
`;

const ORPHAN = `
begin --recoverable
id=$(device | tr -d a-z)
node=/dev/$(device)
refuses ubiblk ublk --delete $id
grep E_UBLK_DEVICE /tmp/refusal
kill -9 $backend
wait $backend || true
dd if=/dev/zero of=$node bs=4k count=1 oflag=direct conv=nocreat 2>/dev/null & writer=$!
sleep 1
kill -0 $writer
refuses ubiblk ublk --config /data/disk.toml
grep -- "--recover $id" /tmp/refusal
ubiblk ublk --delete $id
fails wait $writer
[ "$(left)" = $link ]
refuses ubiblk ublk --delete $id
grep E_UBLK_DEVICE /tmp/refusal
`;

/** The device below the disk's file: whole, with a hole at 32 MiB, or nothing but errors. */
const BROKEN = `
${ON_MAPPER}
size=$(blockdev --getsz /dev/loop0)
become() {
  dmsetup suspend --nolockfs broken
  echo "$1" | dmsetup load broken
  dmsetup resume broken
}
dmsetup create broken <<END
0 65536 linear /dev/loop0 0
65536 2048 error
67584 $((size - 67584)) linear /dev/loop0 67584
END
diskIs /dev/mapper/broken
begin
reading() { within 5 dd if=$link of=/dev/null iflag=direct "$@"; }
writing() { within 5 dd if=/dev/urandom of=$link "$@"; }
echo "read_in_hole=$(reading bs=4k skip=8192 count=1)"
echo "read_across=$(reading bs=768k skip=42 count=1)"
echo "read_beside=$(reading bs=4k skip=8191 count=1)"
echo "write_in_hole=$(writing bs=4k seek=8200 count=1 oflag=direct)"
echo "write_beside=$(writing bs=4k seek=8448 count=1 oflag=direct)"
become "0 $size error"
echo "read_dead=$(reading bs=1M count=4)"
echo "write_dead=$(writing bs=1M count=4 oflag=direct)"
echo "flush_dead=$(writing bs=64k count=1 conv=fsync)"
become "0 $size linear /dev/loop0 0"
echo "read_healed=$(reading bs=1M skip=30 count=4)"
echo "write_healed=$(writing bs=1M seek=30 count=4 oflag=direct)"
end
dmsetup remove --retry broken
losetup -d /dev/loop0
diskIs /data/disk.raw
`;

/** The device below the disk's file takes requests and answers none for a while. */
const HANG = `
${ON_MAPPER}
echo "0 $(blockdev --getsz /dev/loop0) linear /dev/loop0 0" | dmsetup create hanging
diskIs /dev/mapper/hanging
cp /data/disk.toml /tmp/disk.toml
echo "[tuning]
overdue_request_ms = 500" >>/data/disk.toml
begin
dmsetup suspend --noflush --nolockfs hanging
dd if=$link of=/dev/null bs=4k skip=100 count=1 iflag=direct 2>/dev/null & reader=$!
await 'grep -q "a request takes too long" /tmp/log'
grep 'takes too long queue=0 operation=read sector=800 sectors=8 .* waitsFor=disk' /tmp/log
dmsetup resume hanging
wait $reader
await 'grep -q "a request that took too long has ended" /tmp/log'
end
dmsetup remove --retry hanging
losetup -d /dev/loop0
cp /tmp/disk.toml /data/disk.toml
diskIs /data/disk.raw
`;

const EDGES = `
mkdir -p /run/ubiblk
ln -s /dev/null $link
begin
[ $(readlink $link) = /dev/$(device) ]
end
echo content >$link
launch
fails wait $backend
grep E_UBLK_LINK /tmp/log
[ $(cat $link) = content ]
rm $link
[ -z "$(left)" ]
refuses setpriv --reuid=65534 --regid=65534 --clear-groups ubiblk ublk --list
grep E_UBLK_DRIVER /tmp/refusal
refuses env UBIBLK_UBLK_STOP=0:$(($$ + 1)) ubiblk ublk --list
grep 'E_USAGE: UBIBLK_UBLK_STOP is set' /tmp/refusal
rmmod ublk_drv
: >/tmp/log
launch
fails wait $backend
grep 'E_UBLK_DRIVER.*modprobe ublk_drv' /tmp/log
`;

const TWO_QUEUES = "[tuning]\nnum_queues = 2";

testsInOneGuest({
  suite: "trixie",
  disk: { kind: "encrypted", sizeMiB: KILLS * 8 + 16, sections: TWO_QUEUES },
  parts: [
    {
      name: "recoverable disk of two queues, killed under load: who writes waits",
      script: RECOVER,
    },
    { name: "recoverable disk of two queues, whose recoveries are killed", script: RECOVER_AGAIN },
    { name: "recoverable disk without a backend, deleted: who waited fails", script: ORPHAN },
    {
      name: "recoverable disk, taken over by the wrong configuration: refused",
      script: RECOVER_WRONGLY,
    },
  ],
});

/** What BROKEN prints: exit codes. */
const BROKEN_CODES = {
  read_in_hole: "1",
  read_across: "1",
  read_beside: "0",
  write_in_hole: "1",
  write_beside: "0",
  read_dead: "1",
  write_dead: "1",
  flush_dead: "1",
  read_healed: "0",
  write_healed: "0",
};

testsInOneGuest({
  suite: "trixie",
  disk: { kind: "encrypted", sizeMiB: 64 },
  parts: [
    {
      name: "killed with all requests in its hands: they fail, the next one starts",
      script: DEATH_OF_ALL,
      // By itself the kernel would look after 30 s.
      check: ({ waited }) => expect(Number(waited)).toBeLessThan(15 * SECOND),
    },
    {
      name: "killed disk: writers fail at once, and what was written is there",
      script: DEATH,
      check: ({ waited }) => expect(Number(waited)).toBeLessThan(5 * SECOND),
    },
    {
      name: "encrypted disk on a device that fails: errors arrive at once, and pass",
      script: BROKEN,
      check: (values) => expect(values).toEqual(BROKEN_CODES),
    },
    { name: "disk on a device that hangs: told, and that it goes on", script: HANG },
    { name: "links, users and kernels that will not do: said in one line", script: EDGES },
  ],
});

testsInOneGuest({
  suite: "sid",
  disk: { kind: "plain", sizeMiB: KILLS * 8 + 64, sections: TWO_QUEUES },
  parts: [
    {
      name: "plain recoverable disk of two queues, killed under load: who writes waits",
      script: RECOVER,
    },
    {
      name: "plain disk on a device that fails: errors arrive at once, and pass",
      script: BROKEN,
      check: (values) => expect(values).toEqual(BROKEN_CODES),
    },
  ],
});
