/** `ubiblk doctor` where there is a ublk driver: what it can do, a device that is served, and one that nobody serves. */
import { expect } from "bun:test";
import { UblkDisk } from "../support/ublk-disk.ts";
import { succeeds, testIn } from "../support/ublk-script.ts";

const EXAMINE = `
begin --recoverable
ubiblk doctor -f /data/disk.toml >/tmp/served
kill -9 $backend
wait $backend 2>/dev/null || true
await 'ubiblk ublk --list --json | grep -q "\\"orphan\\": true"'
ubiblk doctor -f /data/disk.toml >/tmp/orphaned
echo "--- served"; cat /tmp/served
echo "--- orphaned"; cat /tmp/orphaned
`;

testIn("trixie", "doctor: the driver, its devices, and the disk behind one", async () => {
  using disk = await UblkDisk.make({ kind: "encrypted", sizeMiB: 16 });
  const { output } = await succeeds({ suite: "trixie", script: EXAMINE, dataDisk: disk.path });
  const [, served = "", orphaned = ""] = output.split(/^--- .*$/m);
  expect(served).toMatch(/^ {2}ok {4}driver +devices can be recovered, no zero copy/m);
  expect(served).toMatch(/^ {2}ok {4}devices +1, all served$/m);
  expect(served).toMatch(/^ {2}ok {4}lock +locked by process \d+ \(ubiblk\)$/m);
  expect(orphaned).toMatch(/^ {2}warn {2}devices +\/dev\/ublkb0 is quiesced: nobody serves it$/m);
  expect(orphaned).toMatch(/-> ubiblk ublk --recover 0, or --delete 0$/m);
});
