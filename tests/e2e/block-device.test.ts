/** Disks on real block devices, with sectors of 512 and of 4096 bytes, and who may use a disk at once. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { decodeConfigPart, encodeConfigPart, REQUEST } from "../../src/formats/vhost-user.ts";
import {
  decodeBlockConfig,
  encodeRangeSegment,
  FEATURE,
  REQUEST_TYPE,
} from "../../src/formats/virtio-blk.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { at, DATA, HostileClient, WRITE } from "../support/hostile-client.ts";
import {
  attachLoopDevice,
  type LoopDevice,
  MountedDevice,
  missingLoopDevices,
  missingMounts,
} from "../support/loop-device.ts";
import { skipUnless } from "../support/requires.ts";

const DISK_BYTES = 16 * 2 ** 20;
const LIMIT_MS = 60_000;
const { DISCARD, WRITE_ZEROES, OUT, IN } = REQUEST_TYPE;

const missing = missingLoopDevices();
const testLoop = skipUnless(missing ?? "", missing === undefined);

const noMounts = missingMounts();
const testMount = skipUnless(noMounts ?? "", noMounts === undefined);

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-block-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

describe.each([
  { sectorBytes: 512, isEncrypted: false },
  { sectorBytes: 512, isEncrypted: true },
  { sectorBytes: 4096, isEncrypted: false },
  { sectorBytes: 4096, isEncrypted: true },
])("block device %j", ({ sectorBytes, isEncrypted }) => {
  testLoop(
    "every byte comes back, of whole blocks and of single sectors",
    async () => {
      using device = attach(sectorBytes);
      const disk = writeDiskConfig({ folder, isEncrypted, dataPath: device.path });
      await using backend = await startUbiblk(disk);
      for (const flags of ["--block-size=64K --queues=1", "--block-size=512 --size=512K"]) {
        expect(await verify(backend, ...flags.split(" "))).toBe("");
      }
      expect(await backend.stop()).toBe(0);
    },
    LIMIT_MS,
  );

  testLoop("the guest is told its size and its physical block", async () => {
    using device = attach(sectorBytes);
    const disk = writeDiskConfig({ folder, isEncrypted, dataPath: device.path });
    await using _backend = await startUbiblk(disk);
    using client = HostileClient.attach(disk.socketPath);
    const part = encodeConfigPart({ offset: 0, flags: 0, bytes: new Uint8Array(60) });
    const config = decodeBlockConfig(decodeConfigPart(client.ask(REQUEST.GET_CONFIG, part)).bytes);
    expect(config.capacitySectors).toBe(DISK_BYTES / 512);
    expect(config.blockSize).toBe(512);
    expect(512 * 2 ** config.physicalBlockExponent).toBe(sectorBytes);
  });

  testLoop(
    "sectors, zeros and discards, alone and across blocks, leave their neighbours",
    async () => {
      using device = attach(sectorBytes);
      const disk = writeDiskConfig({ folder, isEncrypted, dataPath: device.path });
      await using _backend = await startUbiblk(disk);
      using client = attachWithRanges(disk);
      write(client, 0, new Uint8Array(64 * 512).fill(0x61));
      write(client, 3, new Uint8Array(512).fill(0x62));
      range(client, WRITE_ZEROES, 5, 14);
      range(client, DISCARD, 33, 6); // less than a block of 4096: stays as it is there
      expect(letters(client, 0, 33)).toBe(`aaaba${"0".repeat(14)}${"a".repeat(14)}`);
      expect(letters(client, 39, 25)).toBe("a".repeat(25));
    },
  );
});

testMount(
  "a file on a file system of 4096-byte blocks is served, in single sectors as well",
  async () => {
    using device = attach(4096);
    using mount = new MountedDevice(device, folder);
    const disk = writeDiskConfig({ folder, isEncrypted: true, dataPath: mount.file(2 ** 20) });
    await using backend = await startUbiblk(disk);
    expect(await verify(backend, "--block-size=512")).toBe("");
    expect(await backend.stop()).toBe(0);
  },
);

testMount(
  "a file whose last block is only half there is refused on such a file system",
  async () => {
    using device = attach(4096);
    using mount = new MountedDevice(device, folder);
    const dataPath = mount.file(2 ** 20 + 512);
    const disk = writeDiskConfig({ folder, isEncrypted: true, dataPath });
    expect(await refusal(disk)).toContain("1049088 bytes, which is not a multiple of 4096");
  },
);

testLoop("an encrypted block device deciphers to what was written", async () => {
  using device = attach(4096);
  const disk = writeDiskConfig({ folder, isEncrypted: true, dataPath: device.path });
  await using backend = await startUbiblk(disk);
  {
    using client = HostileClient.attach(disk.socketPath);
    write(client, 9, new Uint8Array(512).fill(0x77));
  }
  expect(await backend.stop()).toBe(0);
  const output = join(folder, "plain");
  const words = ["xts", "--config", disk.configPath, "--start=8", "--len=8", device.path, output];
  expect(await runCommand([EXECUTABLE, ...words])).toMatchObject({ exitCode: 0 });
  const sector = new Uint8Array(512).fill(0x77);
  expect(new Uint8Array(readFileSync(output).subarray(512, 1024))).toEqual(sector);
  expect(readFileSync(device.backingPath).includes(Buffer.from(sector))).toBe(false);
});

testLoop("a discard on a block device reaches what is behind it", async () => {
  using device = attach(512);
  const disk = writeDiskConfig({ folder, isEncrypted: true, dataPath: device.path });
  await using backend = await startUbiblk(disk);
  expect(await verify(backend, "--block-size=64K", "--size=8M")).toBe("");
  const before = statSync(device.backingPath).blocks * 512;
  using client = attachWithRanges(disk);
  range(client, DISCARD, 0, (8 * 2 ** 20) / 512);
  const after = statSync(device.backingPath).blocks * 512;
  expect(before - after).toBeGreaterThan(7 * 2 ** 20);
});

describe.each([{ isEncrypted: false }, { isEncrypted: true }])("file %j", ({ isEncrypted }) => {
  test("a discard frees the file's blocks", async () => {
    const disk = makeFile(isEncrypted);
    await using backend = await startUbiblk(disk);
    expect(await verify(backend, "--block-size=64K", "--size=8M")).toBe("");
    const before = statSync(disk.dataPath).blocks * 512;
    using client = attachWithRanges(disk);
    range(client, DISCARD, 0, (8 * 2 ** 20) / 512);
    const after = statSync(disk.dataPath).blocks * 512;
    expect(before - after).toBeGreaterThan(7 * 2 ** 20);
  });

  test("with discards off none is offered and none is done", async () => {
    const disk = makeFile(isEncrypted, "[tuning]\ndisable_discard = true\n");
    await using backend = await startUbiblk(disk);
    expect(await verify(backend, "--block-size=64K", "--size=1M")).toBe("");
    const before = statSync(disk.dataPath).blocks;
    using client = HostileClient.attach(disk.socketPath, { features: [FEATURE.BLK_WRITE_ZEROES] });
    expect(rangeStatus(client, DISCARD, { sector: 0, sectorCount: 2048, flags: 0 })).toBe(2);
    expect(rangeStatus(client, WRITE_ZEROES, { sector: 0, sectorCount: 2048, flags: 1 })).toBe(0);
    expect(statSync(disk.dataPath).blocks).toBeGreaterThanOrEqual(before);
    expect(letters(client, 0, 4)).toBe("0000");
  });
});

test("a second backend on the same file is refused, and named the first one's pid", async () => {
  const disk = makeFile(false);
  await using backend = await startUbiblk(disk);
  expect(await refusal(disk)).toContain(`is in use by process ${backend.pid}`);
  expect(backend.isRunning()).toBe(true);
});

testLoop(
  "a second backend on the same block device is refused, and named the first one's pid",
  async () => {
    using device = attach(512);
    const disk = writeDiskConfig({ folder, isEncrypted: true, dataPath: device.path });
    await using backend = await startUbiblk(disk);
    expect(await refusal(disk)).toContain(`is in use by process ${backend.pid}`);
  },
);

testMount(
  "a mounted block device is refused, and one that is served cannot be mounted",
  async () => {
    using device = attach(512);
    const disk = writeDiskConfig({ folder, isEncrypted: true, dataPath: device.path });
    {
      using _mount = new MountedDevice(device, folder);
      expect(await refusal(disk)).toContain("is mounted");
    }
    await using backend = await startUbiblk(disk);
    const mounted = await runCommand(["mount", device.path, join(folder, "mount")], {
      timeoutMs: LIMIT_MS,
    });
    expect(mounted.exitCode).not.toBe(0);
    expect(await verify(backend, "--block-size=64K", "--size=8M")).toBe("");
  },
);

test("two backends may read one disk, but none may write meanwhile", async () => {
  const reader = makeFile(false, "read_only = true\n");
  await using _first = await startUbiblk(reader);
  const other = copyOf(reader, "other", true);
  await using _second = await startUbiblk(other);
  expect(await refusal(copyOf(reader, "writer", false))).toContain("is in use by process");
});

// --- internal ---

function attach(sectorBytes: number): LoopDevice {
  const backingPath = join(folder, "backing.img");
  return attachLoopDevice({ backingPath, sizeBytes: DISK_BYTES, sectorBytes });
}

/** `deviceConfig` begins with keys of [device]. */
function makeFile(isEncrypted: boolean, deviceConfig = ""): DiskFiles {
  const disk = writeDiskConfig({ folder, isEncrypted, moreConfig: deviceConfig });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, DISK_BYTES);
  return disk;
}

/** Another config for the same data. */
function copyOf(disk: DiskFiles, name: string, isReadOnly: boolean): DiskFiles {
  return writeDiskConfig({
    folder: join(folder, name),
    isEncrypted: false,
    dataPath: disk.dataPath,
    moreConfig: isReadOnly ? "read_only = true\n" : "",
  });
}

async function verify(backend: Backend, ...flags: readonly string[]): Promise<string> {
  const words = ["bench", `--socket=${backend.socketPath}`, "--workload=verify", ...flags];
  const result = await runCommand([EXECUTABLE, ...words], { timeoutMs: LIMIT_MS });
  return result.exitCode === 0 ? "" : `${result.stdout}${result.stderr}${backend.log()}`;
}

/** What a backend says that must not start. */
async function refusal(disk: DiskFiles): Promise<string> {
  const command = [EXECUTABLE, "vhost", "--config", disk.configPath];
  const result = await runCommand(command, { timeoutMs: LIMIT_MS });
  expect(result.exitCode).not.toBe(0);
  return result.stderr;
}

function attachWithRanges(disk: DiskFiles): HostileClient {
  const features = [FEATURE.BLK_DISCARD, FEATURE.BLK_WRITE_ZEROES];
  return HostileClient.attach(disk.socketPath, { features });
}

function write(client: HostileClient, sector: number, bytes: Uint8Array): void {
  client.bytes.set(bytes, DATA);
  const data = { address: at(DATA), length: bytes.length, flags: 0 };
  client.submit([client.header(0, OUT, sector), data, client.statusByte(0)]);
  expect(client.status(0)).toBe(0);
}

/** The first byte of each sector as a letter; "0" for zeros, "?" for a sector of several bytes. */
function letters(client: HostileClient, sector: number, count: number): string {
  const data = { address: at(DATA), length: count * 512, flags: WRITE };
  client.submit([client.header(0, IN, sector), data, client.statusByte(0)]);
  expect(client.status(0)).toBe(0);
  const names = Array.from({ length: count }, (_, i) => {
    const bytes = client.bytes.subarray(DATA + i * 512, DATA + (i + 1) * 512);
    const [first = 0] = bytes;
    const isUniform = bytes.every((byte) => byte === first);
    return isUniform ? String.fromCharCode(first || 48) : "?";
  });
  return names.join("");
}

function range(client: HostileClient, type: number, sector: number, sectorCount: number): void {
  expect(rangeStatus(client, type, { sector, sectorCount, flags: 0 })).toBe(0);
}

function rangeStatus(
  client: HostileClient,
  type: number,
  segment: { readonly sector: number; readonly sectorCount: number; readonly flags: number },
): number {
  client.bytes.set(encodeRangeSegment(segment), DATA);
  const data = { address: at(DATA), length: 16, flags: 0 };
  client.submit([client.header(0, type, 0), data, client.statusByte(0)]);
  return client.status(0);
}
