/** Requests that take too long, on disks and sources that hang: told by RPC and log, with what they wait for. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { type Backend, type DiskFiles, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { at, DATA, HostileClient, WRITE } from "../support/hostile-client.ts";
import { LazyDisk, MIB } from "../support/lazy-disk.ts";
import { skipUnless } from "../support/requires.ts";
import { ask, converse } from "../support/rpc-client.ts";
import { until } from "../support/until.ts";

const DISK_BYTES = 4 * MIB;
const THRESHOLD = "[tuning]\noverdue_request_ms = 300";
const NO_OVERDUE = { count: 0, requests: [], silent_threads: [], threshold_ns: 300_000_000 };
const noFuse = missingFuse();
const testFuse = skipUnless(noFuse ?? "", noFuse === undefined);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-overdue-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

testFuse(
  "a disk that hangs: beside the status, in the log once, and gone when it goes on",
  async () => {
    const disk = makeDisk("io_uring");
    await using image = hangingImage(disk);
    await using backend = await startUbiblk(disk);
    using client = HostileClient.attach(disk.socketPath);
    image.halt();
    beginRead(client, 2048);
    const [request] = (await overdueOf(disk, 1)).requests;
    expect(request).toMatchObject({
      operation: "read",
      queue: 0,
      sector: 2048,
      sectors: 1,
      waits_for: "disk",
    });
    await until("it is told", () => linesOf(backend, "takes too long").length > 0);
    const [later] = (await overdueOf(disk, 1)).requests;
    expect(later?.age_ns).toBeGreaterThan(request?.age_ns ?? Number.POSITIVE_INFINITY);
    expect(await converse(rpcOf(disk), '["status"]\n')).toEndWith(',"status":null}\n');
    image.goOn();
    await until("its end is told", () => linesOf(backend, "has ended").length > 0);
    expect(linesOf(backend, "takes too long")).toEqual([
      expect.stringMatching(
        /queue=0 operation=read sector=2048 sectors=1 seconds=\d+\.\d waitsFor=disk$/,
      ),
    ]);
    expect(linesOf(backend, "has ended")).toHaveLength(1);
    expect(await converse(rpcOf(disk), '["status"]\n')).toBe('{"status":null}\n');
    expect(await ask(rpcOf(disk), "overdue")).toEqual({ overdue: NO_OVERDUE });
  },
);

testFuse("a queue that is stuck in its disk: the thread is named as well", async () => {
  const disk = makeDisk("sync");
  await using image = hangingImage(disk);
  await using backend = await startUbiblk(disk);
  using client = HostileClient.attach(disk.socketPath);
  image.halt();
  beginRead(client, 2048);
  await overdueOf(disk, 1);
  await until("the thread is silent", async () => (await overdue(disk)).silent_threads.length > 0);
  expect((await overdue(disk)).silent_threads).toEqual(["queue 0"]);
  image.goOn();
  await until("it answers", () => linesOf(backend, "threads answer again").length > 0);
  expect(linesOf(backend, "threads do not answer")).toEqual([
    expect.stringContaining('threads="queue 0"'),
  ]);
  expect(await ask(rpcOf(disk), "overdue")).toEqual({ overdue: NO_OVERDUE });
});

testFuse("a source that hangs: which stripe is waited for", async () => {
  await using disk = new LazyDisk({
    diskBytes: 4 * MIB,
    imageBytes: 4 * MIB,
    isEncrypted: false,
    source: "copy_on_read = true",
    sections: THRESHOLD,
  });
  await disk.init();
  renameSync(disk.files.file("image.raw"), disk.files.file("real.raw"));
  await using image = new FuseImage(disk.files.file("real.raw"), disk.files.file("image.raw"));
  await disk.start();
  using client = HostileClient.attach(disk.socketPath);
  image.halt();
  beginWrite(client, 3 * 2048);
  await until("it takes too long", async () => (await overdue(disk)).count === 1);
  expect((await overdue(disk)).requests).toMatchObject([
    { operation: "write", waits_for: "stripe", stripe: 3, stripe_step: "fetch" },
  ]);
  expect(await disk.status()).toMatchObject({ overdue: { count: 1 }, status: { stripes: {} } });
  image.goOn();
  await until("it has ended", async () => (await overdue(disk)).count === 0);
  expect(client.status(0)).toBe(0);
});

test("a source that fails: how often that was tried", async () => {
  const stripes = 8;
  await using disk = new LazyDisk({
    diskBytes: stripes * MIB,
    imageBytes: stripes * MIB,
    isEncrypted: false,
    source: "copy_on_read = true",
    sections: "[tuning]\noverdue_request_ms = 1",
  });
  await disk.init();
  await disk.start();
  truncateSync(disk.files.file("image.raw"), MIB);
  using client = HostileClient.attach(disk.socketPath);
  // A fetch is given up after 700 ms: where the machine was too busy to look before that, another stripe is written.
  let isTold = false;
  for (let stripe = 1; stripe < stripes && !isTold; stripe++) {
    beginWrite(client, stripe * 2048);
    await until("a try has failed, or all have", async () => {
      isTold = (await overdue(disk)).requests.some(
        (request) => request.stripe === stripe && (request.stripe_failed_tries ?? 0) > 0,
      );
      return isTold || client.status(0) === 1;
    });
    await until("the guest is told", () => client.status(0) === 1);
    client.waitUsed();
  }
  expect(isTold).toBe(true);
  expect((await overdue(disk)).count).toBe(0);
});

// --- internal ---

interface Overdue {
  readonly count: number;
  readonly requests: readonly {
    readonly age_ns: number;
    readonly stripe?: number;
    readonly stripe_failed_tries?: number;
  }[];
  readonly silent_threads: readonly string[];
}

function makeDisk(ioEngine: string): DiskFiles {
  const tuning = `${THRESHOLD}\nio_engine = "${ioEngine}"\n`;
  const moreConfig = `rpc_socket = "rpc.sock"\nread_only = true\n${tuning}`;
  const disk = writeDiskConfig({ folder, isEncrypted: false, moreConfig });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, DISK_BYTES);
  return disk;
}

/** In the place of the disk. */
function hangingImage({ dataPath }: DiskFiles): FuseImage {
  renameSync(dataPath, join(folder, "real.img"));
  return new FuseImage(join(folder, "real.img"), dataPath);
}

function rpcOf(disk: DiskFiles | LazyDisk): string {
  return disk instanceof LazyDisk ? disk.rpcPath : join(folder, "rpc.sock");
}

async function overdue(disk: DiskFiles | LazyDisk): Promise<Overdue> {
  const answer = (await ask(rpcOf(disk), "overdue")) as { readonly overdue: Overdue }; // what it has is checked where it is used
  return answer.overdue;
}

async function overdueOf(disk: DiskFiles, count: number): Promise<Overdue> {
  await until("requests take too long", async () => (await overdue(disk)).count === count);
  return await overdue(disk);
}

/** Nobody waits for its end. */
function beginRead(client: HostileClient, sector: number): void {
  const data = { address: at(DATA), length: 512, flags: WRITE };
  client.setChain(0, [client.header(0, REQUEST_TYPE.IN, sector), data, client.statusByte(0)]);
  client.offer(0);
  client.kick();
}

function beginWrite(client: HostileClient, sector: number): void {
  const data = { address: at(DATA), length: 512, flags: 0 };
  client.setChain(0, [client.header(0, REQUEST_TYPE.OUT, sector), data, client.statusByte(0)]);
  client.offer(0);
  client.kick();
}

function linesOf(backend: Backend, text: string): readonly string[] {
  return backend
    .log()
    .split("\n")
    .filter((line) => line.includes(text));
}
