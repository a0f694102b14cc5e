/** Disks that are filled from archives while they are served, by the compiled executable. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openStore } from "../../src/archive/open-store.ts";
import { REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { type ArchiveToBuild, buildArchive } from "../support/archive-builder.ts";
import { bucketDisk } from "../support/bucket-disk.ts";
import { at, DATA, HostileClient, WRITE } from "../support/hostile-client.ts";
import {
  expectSame,
  LazyDisk,
  type LazyDiskOptions,
  LazyGuest,
  MIB,
} from "../support/lazy-disk.ts";
import { S3Server } from "../support/s3-server.ts";
import { until } from "../support/until.ts";

const KEK = new Uint8Array(32).fill(0x4b);
/** Neither the disk nor its archive is whole stripes. */
const BYTES = 12 * MIB + 4096;
const STRIPES = 13;
const STRIPE_SECTORS = 2048;
const IO_ERROR = 1;
const FOLDER = 'type = "archive"\nstorage = "filesystem"\npath = "archive"';
const KEK_LINES = 'archive_kek.ref = "kek"';
const KEK_SECTION = '[secrets.kek]\nsource.file = "kek"';

const KINDS = [
  { isEncrypted: true, archive: { isEncrypted: true, compression: { kind: "zstd", level: 3 } } },
  { isEncrypted: false, archive: { compression: { kind: "zstd", level: 1 } } },
  { isEncrypted: true, archive: {} },
] as const;

describe.each(KINDS)("a disk, encrypted: $isEncrypted, from $archive", (kind) => {
  test("is what was archived, stripe by stripe as it is asked for, and for good", async () => {
    const { disk } = await archivedDisk(kind);
    await using _ = disk;
    await disk.init();
    await disk.start();
    using guest = new LazyGuest(disk);
    const expected = disk.expected();
    const middle = 5 * MIB + 512;
    expectSame(guest.read(middle, 4096), expected.slice(middle, middle + 4096));
    const { status } = await disk.until(({ status }) => status.stripes.fetched === 1);
    expect(status.stripes).toEqual({ fetched: 1, source: STRIPES, total: STRIPES });
    expect(status.fetch?.source_state).toBe("open");
    expectSame(guest.read(0, BYTES), expected);
    await disk.until(({ status }) => status.fetch?.source_state === "closed");
    rmSync(disk.files.file("archive"), { recursive: true });
    expectSame(guest.read(0, BYTES), expected);
    await disk.stop();
    disk.configure({ origin: "", source: "none" });
    await disk.start();
    using next = new LazyGuest(disk);
    expectSame(next.read(0, BYTES), expected);
  });
});

test("once all is fetched the threads of the source are gone", async () => {
  const { disk } = await archivedDisk({ isEncrypted: true });
  await using _ = disk;
  await disk.init();
  const backend = await disk.start();
  const hasSourceThread = () => threadsOf(backend.pid).includes("archive");
  await until("a thread of the source", hasSourceThread); // it names itself when it runs
  using guest = new LazyGuest(disk);
  guest.read(0, BYTES);
  await disk.until(({ status }) => status.fetch?.source_state === "closed");
  await until("no thread of the source", () => !hasSourceThread());
  expect(backend.log()).toContain("all stripes are fetched");
});

test("killed again and again while it is fetched and written, nothing is lost", async () => {
  const { disk } = await archivedDisk({
    isEncrypted: true,
    source: "autofetch = true\nbackground_bytes_per_second = 4194304",
  });
  await using _ = disk;
  await disk.init();
  const expected = disk.expected();
  for (let round = 0; round < 4; round++) {
    const backend = await disk.start();
    using guest = new LazyGuest(disk);
    const news = new Uint8Array(8192).fill(0x80 + round);
    const place = (11 - round) * MIB + 512;
    guest.write(place, news);
    expected.set(news, place);
    guest.flush();
    await Bun.sleep(round * 100);
    process.kill(backend.pid, "SIGKILL");
    await backend.stop();
  }
  await disk.start();
  using guest = new LazyGuest(disk);
  expectSame(guest.read(0, BYTES), expected);
  await disk.until(({ status }) => status.stripes.fetched === status.stripes.source);
  expectSame(guest.read(0, BYTES), expected);
});

test("a damaged object: reads of its stripe fail and no others; once it is back they are asked again", async () => {
  const archive = { isEncrypted: true }; // no two stripes share an object
  const { disk, objects } = await archivedDisk({ isEncrypted: true, archive });
  await using _ = disk;
  const file = join(disk.files.file("archive"), objects[3] ?? "");
  const bytes = readFileSync(file);
  writeFileSync(
    file,
    bytes.map((byte, i) => (i === 7 ? byte ^ 0x20 : byte)),
  );
  await disk.init();
  const backend = await disk.start();
  using guest = new LazyGuest(disk);
  expect(guest.statusOf(3 * MIB)).toBe(IO_ERROR);
  expect(guest.statusOf(4 * MIB - 512)).toBe(IO_ERROR);
  expectSame(guest.read(4 * MIB, MIB), disk.expected().slice(4 * MIB, 5 * MIB));
  expect(guest.statusOf(3 * MIB - 512)).toBe(0);
  const { status } = await disk.status();
  expect(status.fetch).toMatchObject({ failed: 1, failed_stripes: [3] });
  expect(backend.log()).toContain("hash mismatch");
  writeFileSync(file, bytes);
  expectSame(guest.read(0, BYTES), disk.expected());
});

describe("what cannot be filled from the archive is refused, with advice", () => {
  test("metadata with stripes of another size, at init-metadata and at the start", async () => {
    const { disk } = await archivedDisk({ isEncrypted: true });
    await using _ = disk;
    const refused = await disk.files.run("init-metadata", "-s", "9");
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain("E_STRIPE_SOURCE");
    expect(refused.stderr).toContain("init-metadata -s 11, or the disk with init --stripe-size 1M");
    renameSync(disk.files.file("archive"), disk.files.file("kept"));
    await makeArchive(disk, { stripeSectors: 512, isEncrypted: false });
    await disk.init();
    rmSync(disk.files.file("archive"), { recursive: true });
    renameSync(disk.files.file("kept"), disk.files.file("archive"));
    expect(await failedStart(disk)).toContain("init-metadata -s 11");
  });

  test("a disk that is smaller by stripes, an archive that lacks stripes, the wrong key", async () => {
    const { disk } = await archivedDisk({ isEncrypted: true });
    await using _ = disk;
    await disk.init();
    rmSync(disk.files.file("archive"), { recursive: true });
    await makeArchive(disk, { absent: [3, 7] });
    expect(await failedStart(disk)).toContain("lacks 2 of the stripes");
    rmSync(disk.files.file("archive"), { recursive: true });
    await makeArchive(disk, { image: new Uint8Array(STRIPES * MIB + 512).fill(1) });
    expect(await failedStart(disk)).toContain("14 stripes, the disk only has 13");
    rmSync(disk.files.file("archive"), { recursive: true });
    await makeArchive(disk, { kek: new Uint8Array(32) });
    expect(await failedStart(disk)).toContain("E_ARCHIVE_KEY");
  });
});

test("a bucket that does not answer: a guest that waits for it gets an error, and the stop is clean", async () => {
  using server = new S3Server();
  const disk = await diskOfBucket(server);
  await using _ = disk;
  await disk.init();
  const backend = await disk.start();
  server.fault = (what) => (what.includes("data/") ? { delayMs: 60_000 } : undefined);
  using client = HostileClient.attach(disk.socketPath);
  client.setChain(0, [
    client.header(0, REQUEST_TYPE.IN, 0),
    { address: at(DATA), length: 512, flags: WRITE },
    client.statusByte(0),
  ]);
  client.offer(0);
  client.kick();
  await disk.until(({ status }) => status.fetch?.in_flight === 1);
  const begunMs = performance.now();
  await disk.stop();
  expect(performance.now() - begunMs).toBeLessThan(9_000);
  expect(client.status(0)).toBe(IO_ERROR);
  expect(backend.log()).toContain("wait for the stripe source fail");
}, 30_000);

test("a bucket that fails for a while: told as retrying, then all is fetched", async () => {
  using server = new S3Server();
  const disk = await diskOfBucket(server, "autofetch = true\nmax_attempts = 1");
  await using _ = disk;
  await disk.init();
  let isAway = true;
  server.fault = (what) => (isAway && what.includes("data/") ? { status: 503 } : undefined);
  await disk.start();
  await disk.until(
    ({ status }) => status.fetch?.source_state === "retrying" && Number(status.fetch.retries) > 0,
  );
  isAway = false;
  await disk.command({ command: "resume_fetch" });
  await disk.command({ command: "retry_failed" });
  await disk.until(({ status }) => status.fetch?.source_state === "closed");
  using guest = new LazyGuest(disk);
  expectSame(guest.read(0, BYTES), disk.expected());
}, 40_000);

// --- internal ---

interface Archived {
  readonly disk: LazyDisk;
  /** By stripe. */
  readonly objects: readonly (string | undefined)[];
}

async function archivedDisk(
  options: Pick<LazyDiskOptions, "isEncrypted" | "source"> & {
    readonly archive?: Partial<ArchiveToBuild>;
  },
): Promise<Archived> {
  const { isEncrypted, source = "", archive = {} } = options;
  const isProtected = isEncrypted;
  const disk = new LazyDisk({
    diskBytes: BYTES,
    imageBytes: BYTES,
    isEncrypted,
    origin: FOLDER,
    source: isProtected ? `${KEK_LINES}\n${source}` : source,
    sections: isProtected ? KEK_SECTION : "",
    zeroStripes: [8],
  });
  disk.files.write("kek", KEK);
  const objects = await makeArchive(disk, isProtected ? archive : { ...archive, kek: undefined });
  disk.moveImage(); // nothing comes from there
  return { disk, objects };
}

async function makeArchive(
  disk: LazyDisk,
  archive: Partial<Omit<ArchiveToBuild, "kek">> & { readonly kek?: Uint8Array | undefined },
): Promise<readonly (string | undefined)[]> {
  const path = disk.files.file("archive");
  await using store = await openStore({ kind: "filesystem", path, role: "write" });
  const { kek, ...rest } = { kek: KEK, ...archive };
  const keys = kek === undefined ? {} : { kek };
  const built = { stripeSectors: STRIPE_SECTORS, image: disk.image, ...rest, ...keys };
  return await buildArchive(store, built); // before the store is closed
}

function diskOfBucket(server: S3Server, source = ""): Promise<LazyDisk> {
  return bucketDisk({ server, bytes: BYTES, stripeSectors: STRIPE_SECTORS, source });
}

/** What the executable says when it does not serve the disk. */
async function failedStart(disk: LazyDisk): Promise<string> {
  const { exitCode, stderr } = await disk.files.run("vhost");
  expect(exitCode).toBe(1);
  return stderr;
}

function threadsOf(pid: number): readonly string[] {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).flatMap((id) => {
    try {
      return [readFileSync(`${tasks}/${id}/comm`, "latin1").trim()];
    } catch {
      return []; // it ended meanwhile
    }
  });
}
