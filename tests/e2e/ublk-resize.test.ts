/** A block device of ublk that grows while it is used, in guests whose kernels can change its size, and cannot. */
import { expect } from "bun:test";
import { valuesOf } from "../support/guest.ts";
import { UblkDisk } from "../support/ublk-disk.ts";
import { succeeds, testIn } from "../support/ublk-script.ts";

const SIZE_MIB = 64;

/** Reads and writes the old part meanwhile, then fills the new one, and finds both after a restart. */
const GROWING = `
begin
name=$(device)
echo "before=$(cat /sys/block/$name/size)"
dd if=/dev/urandom of=$link bs=1M count=8 oflag=direct 2>/dev/null
old=$(dd if=$link bs=1M count=8 iflag=direct 2>/dev/null | sha256sum)
fio --name=load --filename=/dev/$name --offset=16m --size=8m --rw=randwrite --bsrange=4k-64k --direct=1 \\
  --ioengine=io_uring --iodepth=16 --verify=crc32c --do_verify=1 --minimal >/dev/null &
load=$!
fails dd if=/dev/zero of=$link bs=1M seek=${SIZE_MIB} count=1 oflag=direct 2>/dev/null
truncate -s 96M /data/disk.raw
ubiblk rpc /run/rpc resize
echo "after=$(cat /sys/block/$name/size)"
wait $load
dd if=/dev/urandom of=$link bs=1M seek=60 count=36 oflag=direct 2>/dev/null
new=$(dd if=$link bs=1M skip=60 iflag=direct 2>/dev/null | sha256sum)
blkdiscard -z -o 68157440 -l 1048576 $link
zeroed=$(dd if=$link bs=1M skip=60 iflag=direct 2>/dev/null | sha256sum)
[ "$new" != "$zeroed" ]
end
begin
echo "again=$(cat /sys/block/$(device)/size)"
[ "$old" = "$(dd if=$link bs=1M count=8 iflag=direct 2>/dev/null | sha256sum)" ]
[ "$zeroed" = "$(dd if=$link bs=1M skip=60 iflag=direct 2>/dev/null | sha256sum)" ]
end
`;

/** The backend is killed when the file has grown and the device has not: another one takes it over, and tells it. */
const RECOVERED = `
begin --recoverable
id=$(device | tr -dc 0-9)
truncate -s 128M /data/disk.raw
kill -9 $backend
wait $backend || true
await 'ubiblk ublk --list | grep -q quiesced'
begin --recoverable --recover $id
[ "$old" = "$(dd if=$link bs=1M count=8 iflag=direct 2>/dev/null | sha256sum)" ]
echo "recovered=$(cat /sys/block/$(device)/size)"
ubiblk rpc /run/rpc resize
echo "told=$(cat /sys/block/$(device)/size)"
dd if=/dev/urandom of=$link bs=1M seek=127 count=1 oflag=direct 2>/dev/null
end
`;

for (const kind of ["plain", "encrypted"] as const) {
  testIn(
    "sid",
    `${kind} disk: the device grows under load, and a restart finds it so`,
    async () => {
      using disk = await UblkDisk.make({
        kind,
        sizeMiB: SIZE_MIB,
        device: `rpc_socket = "/run/rpc"`,
        ...(kind === "encrypted" ? { imageFileBytes: [5, 4096, 3_000_000] } : {}),
      });
      const init = kind === "encrypted" ? "ubiblk init-metadata --config /data/disk.toml" : "true";
      const script = `${init}\n${GROWING}\n${kind === "plain" ? RECOVERED : ""}`;
      const result = await succeeds({ suite: "sid", script, dataDisk: disk.path });
      const before = SIZE_MIB * 2048;
      expect(valuesOf(result)).toMatchObject({
        before: `${before}`,
        after: `${96 * 2048}`,
        again: `${96 * 2048}`,
      });
      if (kind === "plain") {
        const sizes = { recovered: `${96 * 2048}`, told: `${128 * 2048}` };
        expect(valuesOf(result)).toMatchObject(sizes);
      }
      const bytes = `"bytes":100663296,"bytes_before":${before * 512}`;
      expect(result.output).toContain(`{"resize":{${bytes},"guest":"told"}}`);
    },
  );
}

testIn(
  "trixie",
  "a kernel that cannot: refused, as an upgrade is; nothing changes, and a restart has the size",
  async () => {
    using disk = await UblkDisk.make({
      kind: "plain",
      sizeMiB: SIZE_MIB,
      device: `rpc_socket = "/run/rpc"`,
    });
    const script = `
begin
truncate -s 96M /data/disk.raw
refuses ubiblk rpc /run/rpc resize
kill -USR2 $backend
refuses ubiblk rpc /run/rpc upgrade
kill -0 $backend
echo "after=$(cat /sys/block/$(device)/size)"
end
begin
echo "again=$(cat /sys/block/$(device)/size)"
end
`;
    const result = await succeeds({ suite: "trixie", script, dataDisk: disk.path });
    expect(result.output).toContain(
      "E_UBLK_DRIVER: the kernel's ublk driver cannot change the size",
    );
    expect(result.output).toContain("E_UPGRADE: a block device is not handed over");
    expect(valuesOf(result)).toMatchObject({ after: `${64 * 2048}`, again: `${96 * 2048}` });
  },
);
