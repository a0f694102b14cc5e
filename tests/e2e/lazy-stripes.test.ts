/** Disks that are filled from a raw image while they are served, by the compiled executable. */
import { describe, expect, test } from "bun:test";
import { readFileSync, symlinkSync, truncateSync, unlinkSync } from "node:fs";
import { startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { belowOnce } from "../support/until.ts";

/** The last stripe of the image is short, and the disk ends in the middle of a stripe as well. */
const SIZES = { diskBytes: 12 * MIB + 4096, imageBytes: 9 * MIB + 3 * 512 };
/** What lies behind is nobody's: on an encrypted disk it deciphers to anything. */
const FILLED = 10 * MIB;
const KINDS = [
  { isEncrypted: true, ioEngine: "io_uring" },
  { isEncrypted: false, ioEngine: "io_uring" },
  { isEncrypted: true, ioEngine: "sync" },
] as const;

describe.each(KINDS)("encrypted: $isEncrypted, $ioEngine", ({ isEncrypted, ioEngine }) => {
  const sections = `[tuning]\nio_engine = "${ioEngine}"`;

  test("what a guest reads is the image, then zeros; only what it read is fetched", async () => {
    await using disk = new LazyDisk({
      ...SIZES,
      isEncrypted,
      sections,
      source: "copy_on_read = true",
    });
    await disk.init();
    await disk.start();
    using guest = new LazyGuest(disk);
    const expected = disk.expected();
    expectSame(
      guest.read(5 * MIB + 512, 4096),
      expected.slice(5 * MIB + 512, 5 * MIB + 512 + 4096),
    );
    const { status } = await disk.until(({ status }) => status.stripes.fetched === 1);
    expect(status.stripes).toEqual({ fetched: 1, source: 10, total: 13 });
    expectSame(guest.read(0, FILLED), expected.subarray(0, FILLED));
    await disk.until(({ status }) => status.stripes.fetched === 10);
    expectSame(guest.read(0, FILLED), expected.subarray(0, FILLED));
    await disk.stop();
    expectSame((await disk.plainBytes()).subarray(0, FILLED), expected.subarray(0, FILLED));
  });

  test("autofetch brings all; then the image may go, and the next start needs no source", async () => {
    await using disk = new LazyDisk({
      ...SIZES,
      isEncrypted,
      sections,
      source: "autofetch = true",
    });
    await disk.init();
    const backend = await disk.start();
    const { status } = await disk.until(({ status }) => status.fetch?.source_state === "closed");
    expect(status.stripes).toEqual({ fetched: 10, source: 10, total: 13 });
    expect(backend.log()).toContain("all stripes are fetched");
    disk.moveImage();
    using guest = new LazyGuest(disk);
    expectSame(guest.read(0, FILLED), disk.expected().subarray(0, FILLED));
    await disk.stop();
    disk.configure({ source: "none" });
    await disk.start();
    using next = new LazyGuest(disk);
    expectSame(next.read(0, FILLED), disk.expected().subarray(0, FILLED));
    expect(await disk.status()).toEqual({
      status: { stripes: { fetched: 10, source: 10, total: 13 } },
    });
  });

  test("without copy_on_read a read fetches nothing, a write fetches its stripe", async () => {
    await using disk = new LazyDisk({ ...SIZES, isEncrypted, sections });
    await disk.init();
    await disk.start();
    using guest = new LazyGuest(disk);
    const expected = disk.expected();
    expectSame(guest.read(2 * MIB, MIB), expected.slice(2 * MIB, 3 * MIB));
    expect((await disk.status()).status.stripes.fetched).toBe(0);
    const news = new Uint8Array(1536).fill(0xee);
    guest.write(3 * MIB + 1024, news);
    expected.set(news, 3 * MIB + 1024);
    expect((await disk.status()).status.stripes.fetched).toBe(1);
    expectSame(guest.read(0, FILLED), expected.subarray(0, FILLED));
    guest.flush();
    await disk.stop();
    await disk.start();
    using next = new LazyGuest(disk);
    expectSame(next.read(0, FILLED), expected.subarray(0, FILLED));
  });
});

test("a plain disk: stripes of zeros take no space, and show nothing of what was there", async () => {
  await using disk = new LazyDisk({
    diskBytes: 16 * MIB,
    imageBytes: 16 * MIB,
    isEncrypted: false,
    source: "autofetch = true",
    zeroStripes: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15],
  });
  disk.soil(0xaa);
  await disk.init();
  await disk.start();
  const { status } = await disk.until(({ status }) => status.fetch?.source_state === "closed");
  expect(status.fetch?.zero_stripes).toBe(14);
  await disk.stop();
  expectSame(await disk.plainBytes(), disk.expected());
  expect(disk.takenBytes()).toBeLessThan(3 * MIB);
});

test("the background is limited, paused and resumed by RPC; demand goes on meanwhile", async () => {
  await using disk = new LazyDisk({
    diskBytes: 32 * MIB,
    imageBytes: 32 * MIB,
    isEncrypted: true,
    source: "autofetch = true\ncopy_on_read = true\nbackground_bytes_per_second = 1048576",
  });
  await disk.init();
  await disk.start();
  using guest = new LazyGuest(disk);
  expect(await disk.command({ command: "pause_fetch" })).toMatchObject({ fetch: { paused: true } });
  const rest = await disk.until(
    ({ status: { fetch, stripes } }) =>
      fetch?.paused === true &&
      fetch.in_flight === 0 &&
      fetch.background_fetches === stripes.fetched,
  );
  const before = rest.status.stripes.fetched;
  expect(before).toBeLessThan(8);
  expectSame(guest.read(30 * MIB, 4096), disk.expected().slice(30 * MIB, 30 * MIB + 4096));
  await disk.until(({ status }) => status.stripes.fetched === before + 1);
  await Bun.sleep(300);
  expect((await disk.status()).status.stripes.fetched).toBe(before + 1);
  await disk.command({ command: "resume_fetch" });
  await disk.command({ command: "set_fetch_rate", bytes_per_second: null });
  await disk.until(({ status }) => status.fetch?.source_state === "closed");
  expectSame(guest.read(0, 32 * MIB), disk.expected());
});

test("writes of all kinds over an image that is being fetched are there after a restart", async () => {
  const size = 24 * MIB;
  await using disk = new LazyDisk({
    diskBytes: size,
    imageBytes: size,
    isEncrypted: true,
    source: "autofetch = true\nbackground_bytes_per_second = 4194304",
    device: "track_written = true",
  });
  await disk.init();
  await disk.start();
  using guest = new LazyGuest(disk);
  const expected = disk.expected();
  const write = (offset: number, lengthBytes: number, value: number) => {
    const bytes = new Uint8Array(lengthBytes).fill(value);
    guest.write(offset, bytes);
    expected.set(bytes, offset);
  };
  write(20 * MIB, 2 * MIB, 0x11); // whole stripes
  write(12 * MIB - 512, 1024, 0x22); // the border of two
  write(23 * MIB + 512, 512, 0x33); // a single sector
  expectSame(guest.read(0, size), expected);
  guest.flush();
  await disk.until(({ status }) => status.fetch?.source_state === "closed");
  const { status } = await disk.status();
  expect(status.fetch?.written).toBe(5);
  disk.moveImage();
  await disk.stop();
  await disk.start();
  using next = new LazyGuest(disk);
  expectSame(next.read(0, size), expected);
  await disk.stop();
  expect((await disk.files.run("dump-metadata")).stdout).toContain(
    "written stripes: 11, 12, 20, 21, 23\n",
  );
});

test("prefetch brings its ranges in their order and no others; record writes what was touched", async () => {
  const source = 'copy_on_read = true\nprefetch = "list"\nrecord = "touched"';
  await using disk = new LazyDisk({
    diskBytes: 16 * MIB,
    imageBytes: 16 * MIB,
    isEncrypted: true,
    source,
  });
  await disk.init();
  // Stripes 9 and 10, then 3, which a range only touches.
  disk.files.write("list", "# boot\n18432 4096\n8000 1 # part of a stripe\n");
  await disk.start();
  await disk.until(({ status }) => status.stripes.fetched === 3);
  using guest = new LazyGuest(disk);
  for (const stripe of [12, 13, 1, 9, 2]) {
    guest.read(stripe * MIB, 4096);
  }
  await disk.until(({ status }) => status.stripes.fetched === 7);
  await disk.stop();
  const head = "# ubiblk ranges 1: FIRST COUNT, in sectors of 512 bytes\n";
  expect(disk.files.bytesOf("touched").toString()).toBe(`${head}24576 4096\n2048 4096\n`);
  const dump = await disk.files.run("dump-metadata");
  expect(dump.stdout).toContain("fetched stripes: 1-3, 9, 10, 12, 13\n");
});

test("a source that fails: its stripes are told, the others go on, and they are there when it is back", async () => {
  const size = 8 * MIB;
  await using disk = new LazyDisk({
    diskBytes: size,
    imageBytes: size,
    isEncrypted: true,
    source: "copy_on_read = true",
  });
  await disk.init();
  const backend = await disk.start();
  truncateSync(disk.files.file("image.raw"), 6 * MIB);
  using guest = new LazyGuest(disk);
  expect(() => guest.read(7 * MIB, 4096)).toThrow();
  expectSame(guest.read(2 * MIB, 4096), disk.expected().subarray(2 * MIB, 2 * MIB + 4096));
  const { status } = await disk.until(({ status }) => status.stripes.fetched === 1);
  expect(status.fetch).toMatchObject({ failed: 1, failed_stripes: [7], retries: 3 });
  expect(backend.log()).toContain("event=stripe_fetch_failed stripe=7");
  disk.files.write("image.raw", disk.image);
  await disk.command({ command: "retry_failed" });
  const after = await disk.until(({ status }) => status.stripes.fetched === 2);
  expect(after.status.fetch).toMatchObject({ failed: 0, failed_stripes: [] });
  expectSame(guest.read(7 * MIB, MIB), disk.expected().subarray(7 * MIB));
});

test("a disk with stripes left and nothing to do costs no CPU time", async () => {
  await using disk = new LazyDisk({
    diskBytes: 8 * MIB,
    imageBytes: 8 * MIB,
    isEncrypted: true,
    source: "autofetch = true\ncopy_on_read = true\nbackground_bytes_per_second = 1",
  });
  await disk.init();
  const backend = await disk.start();
  using guest = new LazyGuest(disk);
  guest.read(3 * MIB, 4096);
  await Bun.sleep(500);
  const used = async () => {
    const before = cpuMs(backend.pid);
    await Bun.sleep(2_000);
    return cpuMs(backend.pid) - before;
  };
  expect(await belowOnce(30, used)).toBeLessThanOrEqual(30);
});

describe("what cannot be served is refused at the start, with advice", () => {
  const sizes = { diskBytes: 4 * MIB, imageBytes: 4 * MIB, isEncrypted: true };

  async function refusal(disk: LazyDisk): Promise<string> {
    const { exitCode, stderr } = await disk.files.run("vhost");
    expect(exitCode).not.toBe(0);
    return stderr;
  }

  test("stripes to fetch and no source", async () => {
    await using disk = new LazyDisk(sizes);
    await disk.init();
    disk.configure({ source: "none" });
    expect(await refusal(disk)).toMatch(/E_STRIPE_SOURCE.*no \[stripe_source\]; add/);
  });

  test("an image that was cut, or is larger than the disk, or is the disk", async () => {
    await using disk = new LazyDisk(sizes);
    await disk.init();
    disk.files.write("image.raw", disk.image.subarray(0, 3 * MIB));
    expect(await refusal(disk)).toMatch(/E_STRIPE_SOURCE.*ends before stripe 3/);
    disk.files.makeSparse("image.raw", 5 * MIB);
    expect(await refusal(disk)).toMatch(/E_STRIPE_SOURCE.*make the disk as large/);
    unlinkSync(disk.files.file("image.raw"));
    expect(await refusal(disk)).toMatch(/E_DISK_OPEN.*image\.raw/);
    symlinkSync("disk.raw", disk.files.file("image.raw"));
    expect(await refusal(disk)).toMatch(/E_STRIPE_SOURCE.*is the disk itself/);
  });

  test("an image that is another program's disk", async () => {
    await using disk = new LazyDisk(sizes);
    await disk.init();
    const image = disk.files.file("image.raw");
    const folder = disk.files.file("other");
    const other = writeDiskConfig({ folder, isEncrypted: false, dataPath: image });
    await using backend = await startUbiblk(other);
    expect(await refusal(disk)).toContain(`in use by process ${backend.pid}`);
  });

  test("a list with a line that is no range; a record over another file", async () => {
    await using disk = new LazyDisk({ ...sizes, source: 'prefetch = "list"' });
    await disk.init();
    disk.files.write("list", "0 8\nmany\n");
    expect(await refusal(disk)).toMatch(/E_PREFETCH.*list:2: not a range/);
    disk.configure({ source: 'copy_on_read = true\nrecord = "key"' });
    expect(await refusal(disk)).toMatch(/E_PREFETCH.*not written over/);
    disk.configure({ source: 'record = "touched"' });
    expect(await refusal(disk)).toMatch(/E_CONFIG_VALUE.*needs stripe_source.copy_on_read/);
  });

  test("a read-only disk with stripes to fetch, and what needs metadata without any", async () => {
    await using disk = new LazyDisk({ ...sizes, device: "read_only = true" });
    await disk.init();
    expect(await refusal(disk)).toMatch(/E_CONFIG.*read_only.*serve it writable/);
    const config = readFileSync(disk.files.file("disk.toml"), "utf8");
    disk.files.write("disk.toml", config.replace(/^metadata_path.*$/m, ""));
    expect(await refusal(disk)).toMatch(/E_CONFIG.*metadata_path/);
    disk.configure({ source: "none", device: "track_written = true" });
    const tracked = readFileSync(disk.files.file("disk.toml"), "utf8");
    disk.files.write("disk.toml", tracked.replace(/^metadata_path.*$/m, ""));
    expect(await refusal(disk)).toMatch(/E_CONFIG.*track_written/);
  });
});

test.each([1, 511, 512, 4095])(
  "an image of %d bytes more than a block is read to its end",
  async (more) => {
    const imageBytes = 2 * MIB + 4096 + more;
    await using disk = new LazyDisk({
      diskBytes: 4 * MIB,
      imageBytes,
      isEncrypted: true,
      source: "copy_on_read = true",
    });
    await disk.init();
    disk.files.write("image.raw", disk.image.subarray(0, imageBytes));
    await disk.start();
    using guest = new LazyGuest(disk);
    const expected = disk
      .expected()
      .fill(0, imageBytes)
      .subarray(0, 3 * MIB);
    expectSame(guest.read(0, 3 * MIB), expected);
  },
);

/** CPU time of all threads of a process. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
