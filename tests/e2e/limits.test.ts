/** Limits of a disk served by the executable: what a front end gets, changes while it runs, ends while it waits. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { encodeU64, REQUEST } from "../../src/formats/vhost-user.ts";
import {
  encodeRangeSegment,
  FEATURE,
  REQUEST_TYPE,
  SECTOR_BYTES,
} from "../../src/formats/virtio-blk.ts";
import {
  type Backend,
  type DiskFiles,
  EXECUTABLE,
  startUbiblk,
  writeDiskConfig,
} from "../support/backend.ts";
import { at, DATA, HostileClient, WRITE } from "../support/hostile-client.ts";
import { ask, converse } from "../support/rpc-client.ts";
import { belowOnce, until } from "../support/until.ts";

const MIB = 2 ** 20;
const DISK_BYTES = 64 * MIB;
const QUEUES = 2;
const LIMIT_MS = 60_000;

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-limits-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

describe.each(["io_uring", "sync"])("%s", (engine) => {
  test.each([1, QUEUES])(
    "operations: %d queues get what the limit gives, all together",
    async (queues) => {
      const disk = makeDisk("iops = 1000", engine);
      await using _backend = await startUbiblk(disk);
      const load = ["--workload=randread", "--queue-depth=32", `--queues=${queues}`];
      const missingIops = async () => {
        const { iops } = await bench(disk, ...load, "--time=2");
        expect(iops).toBeLessThan(1060); // a burst that was gathered by a late machine
        return 1000 - iops;
      };
      // A machine that stands still for more than a burst loses it.
      expect(await belowOnce(150, missingIops)).toBeLessThan(150);
    },
    LIMIT_MS,
  );

  test(
    "bytes, of writes alone: they get no more, reads are as fast as ever",
    async () => {
      const disk = makeDisk(`write_bytes_per_second = ${20 * MIB}`, engine);
      await using _backend = await startUbiblk(disk);
      const load = ["--block-size=64K", "--queue-depth=32"];
      const missingBytes = async () => {
        const writes = await bench(disk, "--workload=randwrite", ...load, "--time=2");
        expect(writes.bytesPerSecond).toBeLessThan(21.5 * MIB); // a burst that was gathered by a late machine
        return 20 * MIB - writes.bytesPerSecond;
      };
      expect(await belowOnce(4 * MIB, missingBytes)).toBeLessThan(4 * MIB);
      const reads = await bench(disk, "--workload=randread", ...load, "--time=1");
      expect(reads.bytesPerSecond).toBeGreaterThan(30 * MIB);
    },
    LIMIT_MS,
  );

  test(
    "every byte comes back, also when requests are larger than the bucket",
    async () => {
      const limits = `iops = 2000\nbytes_per_second = ${64 * MIB}\nbytes_burst = 67109`;
      const disk = makeDisk(limits, engine);
      await using _backend = await startUbiblk(disk);
      const flags = ["--workload=verify", "--block-size=256K", "--size=8M", "--queues=2"];
      const report = await bench(disk, ...flags);
      expect(report.verified).toContain("all as expected");
    },
    LIMIT_MS,
  );
});

test("a request that waits: it is not in flight and has no age, and nearly no CPU is used", async () => {
  const disk = makeDisk("read_iops = 1\nread_iops_burst = 1");
  await using backend = await startUbiblk(disk);
  using client = HostileClient.attach(disk.socketPath);
  offerReads(client, 4);
  await until("the first read has ended", () => client.usedIndex() === 1);
  await until("the second one waits", async () => (await waits(disk)).reads_throttled === 1);
  const before = cpuSeconds(backend);
  const waited = (await waits(disk)).read_throttled_ns;
  await Bun.sleep(500);
  expect(cpuSeconds(backend) - before).toBeLessThan(0.1);
  expect((await waits(disk)).read_throttled_ns - waited).toBeGreaterThan(0.3e9);
  const { statistics } = recordOf(await ask(rpcOf(disk), "statistics"));
  const [queue] = listOf(recordOf(statistics).queues).map(recordOf);
  expect(queue).toMatchObject({ in_flight: 0, oldest_in_flight_ns: null });
});

test("set_limits: lifts, tightens and is seen by a queue that waits; what is refused changes nothing", async () => {
  const disk = makeDisk("read_iops = 1\nread_iops_burst = 1");
  await using _backend = await startUbiblk(disk);
  const client = HostileClient.attach(disk.socketPath);
  offerReads(client, 4);
  await until("the first read has ended", () => client.usedIndex() === 1);
  const refused = await command(disk, { read_iops: null, iops: 0 });
  expect(refused).toMatchObject({ code: "E_RPC_REQUEST" });
  expect(client.usedIndex()).toBe(1);
  const begin = performance.now();
  const lifted = recordOf((await command(disk, { read_iops: null })).limits);
  await until("all reads have ended", () => client.usedIndex() === 4);
  expect(performance.now() - begin).toBeLessThan(900); // the limit would have taken three seconds
  expect(lifted).toMatchObject({ read_iops: null, read_iops_burst: null, iops: null });
  client[Symbol.dispose]();
  await command(disk, { iops: 500, iops_burst: 10 });
  const report = await bench(disk, "--workload=randread", "--time=1");
  expect(report.iops).toBeLessThan(530);
});

test("rings that are stopped while requests wait: at once, the rest starts later; nothing is lost or done twice", async () => {
  const disk = makeDisk("read_iops = 1\nread_iops_burst = 3");
  await using backend = await startUbiblk(disk);
  using client = HostileClient.attach(disk.socketPath);
  offerReads(client, 8);
  await until("the burst has ended", () => client.usedIndex() === 3);
  const begin = performance.now();
  const base = client.stopRing();
  expect(performance.now() - begin).toBeLessThan(900);
  expect(base).toBe(client.usedIndex());
  await command(disk, { read_iops: null });
  client.command(REQUEST.SET_VRING_KICK, encodeU64(0n), [client.kickFd]);
  client.kick();
  await until("all reads have ended", () => client.usedIndex() === 8);
  await command(disk, { read_iops: 1, read_iops_burst: 1 });
  offerReads(client, 8);
  await until("one more has ended", () => client.usedIndex() === 9);
  const stopBegin = performance.now();
  expect(await backend.stop()).toBe(0);
  expect(performance.now() - stopBegin).toBeLessThan(3_000);
  expect(client.usedIndex()).toBeLessThan(12);
});

test(
  "write zeroes: their bytes are paid for afterwards; a discard costs none",
  async () => {
    const disk = makeDisk(`write_bytes_per_second = ${MIB}`);
    await using _backend = await startUbiblk(disk);
    using client = HostileClient.attach(disk.socketPath, {
      features: [FEATURE.BLK_DISCARD, FEATURE.BLK_WRITE_ZEROES],
    });
    expect(submitRange(client, REQUEST_TYPE.DISCARD, 32 * MIB)).toBe(0);
    expect(submitRange(client, REQUEST_TYPE.WRITE_ZEROES, 2 * MIB)).toBe(0);
    const begin = performance.now();
    expect(submitRange(client, REQUEST_TYPE.WRITE_ZEROES, SECTOR_BYTES)).toBe(0);
    const write = [client.header(0, REQUEST_TYPE.OUT, 0), data(4096, 0), client.statusByte(0)];
    client.submit(write);
    expect(performance.now() - begin).toBeGreaterThan(1_500);
    expect((await waits(disk)).writes_throttled).toBe(1);
  },
  LIMIT_MS,
);

test(
  "top: the limits, and that they hold the disk back",
  async () => {
    const disk = makeDisk("iops = 2000\nwrite_bytes_per_second = 10485760");
    await using _backend = await startUbiblk(disk);
    const load = bench(disk, "--workload=randread", "--time=6");
    await until("reads wait", async () => (await waits(disk)).reads_throttled > 0);
    const top = [EXECUTABLE, "top", rpcOf(disk), "--once", "--interval", "1"];
    const [text, json] = await Promise.all([runCommand(top), runCommand([...top, "--json"])]);
    await load;
    expect(text.stdout).toMatch(
      /^limits 2000 iops {2}write 10\.0 MiB\/s {2}throttled \d+% of the time$/m,
    );
    const [sample] = listOf(recordOf(JSON.parse(json.stdout)).disks).map(recordOf);
    expect(sample?.limits).toEqual({ iops: 2000, write_bytes_per_second: 10_485_760 });
    const total = recordOf(sample?.total);
    expect(total.throttled_per_second).toBeGreaterThan(100);
    expect(total.throttled_ns_per_second).toBeGreaterThan(0.1e9);
  },
  LIMIT_MS,
);

test("limits that are none: the start fails, and all of them are told with their lines", async () => {
  const disk = makeDisk("iops = 0\nwrite_iop = 5");
  const result = await runCommand([EXECUTABLE, "vhost", "--config", disk.configPath]);
  expect(result.exitCode).toBe(1);
  const lines = result.stderr.split("\n").filter((line) => line.includes("limits."));
  expect(lines.map((line) => /: error (\S+) .*?: (limits\.\S+): /.exec(line)?.slice(1))).toEqual([
    ["E_CONFIG_VALUE:", "limits.iops"],
    ["E_CONFIG_KEY:", "limits.write_iop"],
  ]);
});

// --- internal ---

function makeDisk(limits: string, engine = "io_uring"): DiskFiles {
  const disk = writeDiskConfig({
    folder,
    isEncrypted: true,
    moreConfig:
      'rpc_socket = "rpc.sock"\n' +
      `[tuning]\nio_engine = "${engine}"\nnum_queues = ${QUEUES}\n[limits]\n${limits}\n`,
  });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, DISK_BYTES);
  return disk;
}

function rpcOf(disk: DiskFiles): string {
  return join(disk.configPath, "../rpc.sock");
}

async function command(disk: DiskFiles, members: Readonly<Record<string, unknown>>) {
  const line = `${JSON.stringify({ command: "set_limits", ...members })}\n`;
  return recordOf(JSON.parse(await converse(rpcOf(disk), line)));
}

/** What the first queue has waited. */
async function waits(disk: DiskFiles) {
  const { limits } = recordOf(await ask(rpcOf(disk), "limits"));
  const [queue] = listOf(recordOf(limits).queues).map(recordOf);
  return {
    reads_throttled: Number(queue?.reads_throttled),
    writes_throttled: Number(queue?.writes_throttled),
    read_throttled_ns: Number(queue?.read_throttled_ns),
  };
}

async function bench(disk: DiskFiles, ...flags: string[]) {
  const command = [EXECUTABLE, "bench", "--socket", disk.socketPath, "--json", ...flags];
  const result = await runCommand(command, { timeoutMs: LIMIT_MS });
  if (result.exitCode !== 0) {
    throw new Error(result.stderr);
  }
  const { iops, bytesPerSecond, verified } = recordOf(JSON.parse(result.stdout));
  return { iops: Number(iops), bytesPerSecond: Number(bytesPerSecond), verified };
}

/** Reads of 4 KiB, each a chain of three descriptors. */
function offerReads(client: HostileClient, count: number): void {
  const heads = Array.from({ length: count }, (_, i) => i * 3);
  for (const head of heads) {
    const header = client.header(head, REQUEST_TYPE.IN, 8);
    client.setChain(head, [header, data(4096, WRITE), client.statusByte(head)]);
  }
  client.offer(...heads);
  client.kick();
}

/** Submits a request with one range at the start of the disk; its status. */
function submitRange(client: HostileClient, type: number, bytes: number): number {
  const range = encodeRangeSegment({ sector: 0, sectorCount: bytes / SECTOR_BYTES, flags: 0 });
  client.bytes.set(range, DATA);
  client.submit([client.header(0, type, 0), data(range.length, 0), client.statusByte(0)]);
  return client.status(0);
}

function data(length: number, flags: number) {
  return { address: at(DATA), length, flags };
}

function cpuSeconds({ pid }: Backend): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  const ticks = Number(fields[11]) + Number(fields[12]);
  return ticks / 100;
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) {
    throw new Error(`${JSON.stringify(value)} is no object`);
  }
  return { ...value };
}

function listOf(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new Error(`${JSON.stringify(value)} is no array`);
  }
  return value;
}
