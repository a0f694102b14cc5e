/** Limits of a block device: what its programs get, and an end that waits for none of them. */
import { expect } from "bun:test";
import { valuesOf } from "../support/guest.ts";
import { UblkDisk } from "../support/ublk-disk.ts";
import { succeeds, testIn } from "../support/ublk-script.ts";

/** The device gets 200 operations a second; then 1, with 64 writes under way when it is told to end. */
const LIMITED = `
load() {
  fio --name=load --filename=/dev/$(device) --bs=4k --direct=1 --ioengine=io_uring --time_based "$@"
}
begin
load --rw=randread --iodepth=32 --runtime=4 --output-format=json >/tmp/fio.json
echo "reads=$(jq '.jobs[0].read.total_ios' /tmp/fio.json)"
echo "runtime_ms=$(jq '.jobs[0].read.runtime' /tmp/fio.json)"
end
sed -i 's/^iops = .*/iops = 1/' /data/disk.toml
begin
load --rw=randwrite --iodepth=64 --runtime=60 >/dev/null 2>&1 &
load=$!
sleep 2
stopped=$(date +%s)
kill -TERM $backend
wait $backend
echo "stop_seconds=$(($(date +%s) - stopped))"
[ -z "$(left)" ]
await '! kill -0 $load 2>/dev/null'
`;

testIn("trixie", "limits of a device: kept, and lifted at its end", async () => {
  const sections = "[limits]\niops = 200";
  using disk = await UblkDisk.make({ kind: "encrypted", sizeMiB: 16, sections });
  const result = await succeeds({ suite: "trixie", script: LIMITED, dataDisk: disk.path });
  const { reads, runtime_ms: runtimeMs, stop_seconds: stopSeconds } = valuesOf(result);
  const seconds = Number(runtimeMs) / 1000;
  expect(Number(reads)).toBeWithin(160 * seconds, 200 * seconds + 60);
  expect(Number(stopSeconds)).toBeWithin(0, 20); // under its limit it would take a minute
});
