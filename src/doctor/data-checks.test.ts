import { expect, test } from "bun:test";
import { blockDeviceFindings } from "./block-device.ts";
import { modeFinding, sizeFinding, spaceFinding } from "./data-checks.ts";
import { fileSystemFinding } from "./file-system.ts";

const GIB = 2 ** 30;
const GEOMETRY = {
  sizeBytes: GIB,
  isBlockDevice: false,
  logicalBlockBytes: 512,
  physicalBlockBytes: 4096,
  optimalIoBytes: 0,
  memoryAlignBytes: 512,
  isDirectIoSupported: true,
  discardUnitBytes: 4096,
};

test.each([
  { mode: 0o600, isEncrypted: false, verdict: "ok" },
  { mode: 0o644, isEncrypted: true, verdict: "ok" },
  { mode: 0o644, isEncrypted: false, verdict: "warn" },
  { mode: 0o666, isEncrypted: true, verdict: "warn" },
])("mode %j", ({ mode, isEncrypted, verdict }) => {
  const stats = { mode: BigInt(0o100000 | mode), uid: 0n, gid: 6n, isFile: () => true };
  const finding = modeFinding("/d", stats, isEncrypted);
  expect<string>(finding.verdict).toBe(verdict);
  expect(finding.found).toStartWith("file /d, owner 0:6, mode 0");
});

test.each([
  { sizeBytes: GIB, block: 512, verdict: "ok" },
  { sizeBytes: 0, block: 512, verdict: "fail" },
  { sizeBytes: GIB + 512, block: 4096, verdict: "fail" },
  { sizeBytes: 511, block: 512, verdict: "fail" },
])("size %j", ({ sizeBytes, block, verdict }) => {
  const finding = sizeFinding({ ...GEOMETRY, sizeBytes, logicalBlockBytes: block });
  expect<string>(finding.verdict).toBe(verdict);
});

test.each([
  { allocatedBytes: 2 * GIB, freeBytes: 0, verdict: "ok" },
  { allocatedBytes: GIB, freeBytes: 2 * GIB, verdict: "ok" },
  { allocatedBytes: 0, freeBytes: GIB, verdict: "warn" },
])("space %j", ({ allocatedBytes, freeBytes, verdict }) => {
  const finding = spaceFinding({ sizeBytes: 2 * GIB, allocatedBytes, freeBytes });
  expect<string>(finding.verdict).toBe(verdict);
});

test.each([
  { type: 0xef53, verdict: "ok", found: "ext4" },
  { type: 0x01021994, verdict: "warn", found: "tmpfs" },
  { type: 0x6969, verdict: "warn", found: "nfs" },
  { type: 0x9123683e, verdict: "warn", found: "btrfs" },
  { type: 0x12345, verdict: "ok", found: "number 0x12345" },
])("file system $found: $verdict", ({ type, verdict, found }) => {
  const finding = fileSystemFinding({ type });
  expect<string>(finding.verdict).toBe(verdict);
  expect(finding.found).toStartWith(found);
});

test("block device: one that is mounted or read-only cannot be served for writing", () => {
  const device = { isReadOnly: true, discardBytesMax: 0, users: ["mounted at /srv"] };
  const findings = [...blockDeviceFindings(device, true)];
  expect(findings.map(({ check, verdict }) => `${check} ${verdict}`)).toEqual([
    "device fail",
    "other users fail",
  ]);
  const forReading = [...blockDeviceFindings(device, false)];
  expect(forReading.map(({ verdict }) => verdict)).toEqual(["warn"]);
});
