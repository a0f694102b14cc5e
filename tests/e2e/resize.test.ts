/** Disks that grow while they are served, by the compiled executable. */
import { afterEach, describe, expect, test } from "bun:test";
import { readFileSync, truncateSync } from "node:fs";
import { closeDescriptor, MessageChannel, PollSet } from "../../src/ffi/socket.ts";
import {
  BACKEND_REQUEST,
  bitMask,
  decodeConfigPart,
  encodeConfigPart,
  encodeMessage,
  encodeU64,
  FLAG_REPLY,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../../src/formats/vhost-user.ts";
import { decodeBlockConfig } from "../../src/formats/virtio-blk.ts";
import type { HostileClient } from "../support/hostile-client.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { socketPair } from "../support/socket-pair.ts";
import { until } from "../support/until.ts";

/** Both end inside of a stripe. */
const IMAGE_BYTES = 5 * MIB + 1536;
const DISK_BYTES = 6 * MIB + 4096;
/** More groups of metadata than before. */
const GROWN_BYTES = 1100 * MIB + 8192;
const IO_ERROR = 1;
const OK = 0;
const KILLS = 9;

const open: number[] = [];
afterEach(() => {
  for (const fd of open.splice(0)) {
    closeDescriptor(fd);
  }
});

describe.each([
  { isEncrypted: true, isTracked: true, source: "copy_on_read = true" },
  { isEncrypted: false, isTracked: false, source: "autofetch = true" },
])(
  "encrypted: $isEncrypted, tracked: $isTracked, $source",
  ({ isEncrypted, isTracked, source }) => {
    const options = {
      diskBytes: DISK_BYTES,
      imageBytes: IMAGE_BYTES,
      isEncrypted,
      source,
      device: `track_written = ${isTracked}`,
    };

    test("a disk that is filled from an image grows; what was there stays, and a restart sees all of it", async () => {
      await using disk = new LazyDisk(options);
      await disk.init();
      await disk.start();
      const news = Uint8Array.from({ length: 256 * 1024 }, (_, i) => i * 7 + 3);
      {
        using guest = new LazyGuest(disk);
        guest.write(MIB, news);
        expect(guest.statusOf(DISK_BYTES)).toBe(IO_ERROR);
        truncateSync(disk.files.file("disk.raw"), GROWN_BYTES);
        expect(await resize(disk)).toEqual(grown("next_connection"));
        expect(capacityOf(guest.client)).toBe(GROWN_BYTES);
        expect(guest.statusOf(GROWN_BYTES)).toBe(IO_ERROR);
        guest.write(DISK_BYTES - 4096, news); // over the old end, in a stripe that was short
        guest.write(GROWN_BYTES - news.length, news);
        guest.flush();
        expectSame(guest.read(0, MIB), disk.expected().subarray(0, MIB));
      }
      const { status } = await disk.status();
      expect(status.stripes.total).toBe(Math.ceil(GROWN_BYTES / MIB));
      await disk.stop();
      await disk.start();
      using guest = new LazyGuest(disk);
      expectSame(guest.read(0, MIB), disk.expected().subarray(0, MIB));
      for (const place of [MIB, DISK_BYTES - 4096, GROWN_BYTES - news.length]) {
        expectSame(guest.read(place, news.length), news);
      }
      const written = isTracked ? "1, 6, 1099, 1100" : "";
      const dump = await disk.files.run("dump-metadata");
      expect(/^written stripes: (.*)$/m.exec(dump.stdout)?.[1]).toBe(written);
    });
  },
);

test("a disk with metadata whose stripes are all there grows in the thread that serves the RPC", async () => {
  await using disk = new LazyDisk({
    diskBytes: DISK_BYTES,
    imageBytes: IMAGE_BYTES,
    isEncrypted: true,
    source: "autofetch = true",
  });
  await disk.init();
  await disk.start();
  await disk.until(({ status }) => status.fetch?.source_state === "closed");
  await disk.stop();
  disk.configure({ source: "none" });
  await start(disk);
  truncateSync(disk.files.file("disk.raw"), 3 * 2 ** 40);
  expect(await resize(disk)).toMatchObject({ code: "E_RESIZE" });
  truncateSync(disk.files.file("disk.raw"), GROWN_BYTES);
  expect(await resize(disk)).toEqual(grown("next_connection"));
  await disk.stop();
  await disk.start();
  expect((await disk.status()).status.stripes).toEqual({ fetched: 6, source: 6, total: 1101 });
});

test("killed with -9 while it grows: what was acknowledged is there, and the disk can be served at its new size", async () => {
  await using disk = new LazyDisk({
    diskBytes: DISK_BYTES,
    imageBytes: IMAGE_BYTES,
    isEncrypted: true,
    source: "autofetch = true",
    device: "track_written = true",
  });
  await disk.init();
  const added: string[] = [];
  let growthMs = 0;
  for (let round = 0; round < KILLS; round++) {
    const backend = await disk.start();
    await until("the disk is served", () => backend.log().includes("ready"));
    using guest = new LazyGuest(disk);
    guest.write(round * 4096, new Uint8Array(4096).fill(round + 1));
    guest.flush();
    truncateSync(disk.files.file("disk.raw"), GROWN_BYTES + round * 600 * MIB); // one more group of metadata
    const startMs = performance.now();
    const answer = resize(disk).catch(() => "killed");
    if (round < 2) {
      await answer; // the first one also waits for the fetch
      growthMs = performance.now() - startMs;
    } else {
      await Bun.sleep((growthMs * (round - 2)) / (KILLS - 3));
    }
    process.kill(backend.pid, "SIGKILL");
    await answer;
    expect(await backend.stop()).toBe(137);
    const grown = await disk.files.run("init-metadata", "--grow");
    expect(grown.exitCode).toBe(0);
    added.push(/(\d+|none) of them added/.exec(grown.stdout)?.[1] ?? "");
  }
  expect(added.slice(0, 2)).toEqual(["none", "none"]);
  await disk.start();
  using guest = new LazyGuest(disk);
  for (let round = 0; round < KILLS; round++) {
    expectSame(guest.read(round * 4096, 4096), new Uint8Array(4096).fill(round + 1));
  }
  expectSame(guest.read(3 * MIB, MIB), disk.expected().subarray(3 * MIB, 4 * MIB));
  expect(guest.statusOf(GROWN_BYTES + (KILLS - 1) * 600 * MIB - 512)).toBe(OK);
});

test("a size that the disk cannot have is refused, and all goes on", async () => {
  await using disk = await plainDisk();
  using guest = new LazyGuest(disk);
  const file = disk.files.file("disk.raw");
  truncateSync(file, DISK_BYTES - 512);
  expect(await resize(disk)).toMatchObject({ code: "E_RESIZE" });
  truncateSync(file, DISK_BYTES + 100);
  expect(await resize(disk)).toMatchObject({ code: "E_RESIZE" });
  truncateSync(file, DISK_BYTES);
  const same = { bytes: DISK_BYTES, bytes_before: DISK_BYTES, guest: "next_connection" };
  expect(await resize(disk)).toEqual({ resize: same });
  expect(guest.statusOf(DISK_BYTES - 512)).toBe(OK);
  expect(guest.statusOf(DISK_BYTES)).toBe(IO_ERROR);
});

test("a front end with a channel is told, and its confirmation told on", async () => {
  await using disk = await plainDisk();
  using guest = new LazyGuest(disk);
  const channel = openChannel(guest.client, PROTOCOL_FEATURE.REPLY_ACK);
  truncateSync(disk.files.file("disk.raw"), GROWN_BYTES);
  const answer = resize(disk);
  const message = await receiveFrom(channel);
  expect([...message]).toEqual([2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
  expect(capacityOf(guest.client)).toBe(GROWN_BYTES); // before it is answered, as QEMU asks
  sendTo(channel, encodeMessage(BACKEND_REQUEST.CONFIG_CHANGE_MSG, FLAG_REPLY, encodeU64(0n)));
  expect(await answer).toEqual(grown("told"));
  guest.write(GROWN_BYTES - 512, new Uint8Array(512).fill(7));
});

test("a front end that confirms nothing, never answers, or answers nonsense: told so, and served on", async () => {
  await using disk = await plainDisk();
  using guest = new LazyGuest(disk);
  openChannel(guest.client);
  truncateSync(disk.files.file("disk.raw"), GROWN_BYTES);
  expect(await resize(disk)).toEqual(grown("sent"));
  openChannel(guest.client, PROTOCOL_FEATURE.REPLY_ACK);
  const startMs = performance.now();
  expect(await resize(disk)).toMatchObject({ resize: { guest: "sent" } });
  expect(performance.now() - startMs).toBeGreaterThan(4000);
  const liar = openChannel(guest.client, PROTOCOL_FEATURE.REPLY_ACK);
  sendTo(liar, new Uint8Array(40).fill(0xff));
  expect(await resize(disk)).toMatchObject({ resize: { guest: "next_connection" } });
  expect(guest.client.isServed()).toBe(true);
});

test("a disk that was made larger while nobody served it: refused, and mended by init-metadata --grow", async () => {
  await using disk = new LazyDisk({
    diskBytes: DISK_BYTES,
    imageBytes: IMAGE_BYTES,
    isEncrypted: true,
    source: "copy_on_read = true",
    device: "track_written = true",
  });
  await disk.init();
  await disk.start();
  const news = new Uint8Array(4096).fill(0x77);
  {
    using guest = new LazyGuest(disk);
    guest.write(2 * MIB, news);
    guest.flush();
  }
  await disk.stop();
  truncateSync(disk.files.file("disk.raw"), GROWN_BYTES);
  await expect(disk.start()).rejects.toThrow("init-metadata --grow");
  const before = await flagsOf(disk);
  const mended = await disk.files.run("init-metadata", "--grow");
  expect(mended.stdout).toBe(
    "metadata meta: 1101 stripes of 1048576 bytes, 1094 of them added; 2048 bytes\n",
  );
  expect(await flagsOf(disk)).toEqual(before);
  const again = readFileSync(disk.files.file("meta"));
  expect((await disk.files.run("init-metadata", "--grow")).stdout).toContain("none of them added");
  expect(readFileSync(disk.files.file("meta"))).toEqual(again);
  await disk.start();
  using guest = new LazyGuest(disk);
  expectSame(guest.read(2 * MIB, 4096), news);
  expectSame(guest.read(0, MIB), disk.expected().subarray(0, MIB));
  expect(guest.statusOf(GROWN_BYTES - 512)).toBe(OK);
});

test("init-metadata --grow: not of a disk that was cut, without metadata, or with --force", async () => {
  await using disk = new LazyDisk({
    diskBytes: DISK_BYTES,
    imageBytes: 0,
    isEncrypted: false,
    source: "none",
  });
  const run = async (...flags: readonly string[]) =>
    (await disk.files.run("init-metadata", "--grow", ...flags)).stderr;
  expect(await run()).toContain("error E_METADATA_FILE: there is no metadata");
  await disk.init();
  truncateSync(disk.files.file("disk.raw"), MIB);
  expect(await run()).toContain("error E_METADATA_SIZE: metadata meta has 7 stripes");
  expect(await run("--force")).toContain("error E_USAGE");
});

// --- internal ---

async function plainDisk(): Promise<LazyDisk> {
  const disk = new LazyDisk({
    diskBytes: DISK_BYTES,
    imageBytes: 0,
    isEncrypted: false,
    source: "none",
  });
  await disk.init();
  await start(disk);
  return disk;
}

/** Until it says that it is ready: a moment before it does not grow yet. */
async function start(disk: LazyDisk): Promise<void> {
  const backend = await disk.start();
  await until("the disk is served", () => backend.log().includes("ready"));
}

function resize(disk: LazyDisk): Promise<unknown> {
  return disk.command({ command: "resize" });
}

function grown(guest: string): unknown {
  return { resize: { bytes: GROWN_BYTES, bytes_before: DISK_BYTES, guest } };
}

/** The flags of all stripes but the new ones, as the tool tells them. */
async function flagsOf(disk: LazyDisk): Promise<readonly string[]> {
  const { stdout } = await disk.files.run("dump-metadata");
  return stdout.split("\n").filter((line) => / stripes: /.test(line));
}

function capacityOf(client: HostileClient): number {
  const part = { offset: 0, flags: 0, bytes: new Uint8Array(60) };
  const reply = client.ask(REQUEST.GET_CONFIG, encodeConfigPart(part));
  return decodeBlockConfig(decodeConfigPart(reply).bytes).capacitySectors * 512;
}

/** The front end's end of a channel that the backend has from here on. */
function openChannel(client: HostileClient, ...features: readonly number[]): number {
  const { BACKEND_REQ, CONFIG, MQ } = PROTOCOL_FEATURE;
  const mask = bitMask(BACKEND_REQ, CONFIG, MQ, ...features);
  client.send(REQUEST.SET_PROTOCOL_FEATURES, encodeU64(mask));
  const { own, given } = socketPair();
  client.send(REQUEST.SET_BACKEND_REQ_FD, new Uint8Array(0), [given]);
  client.ask(REQUEST.GET_FEATURES); // it has what came before
  closeDescriptor(given);
  open.push(own);
  return own;
}

async function receiveFrom(fd: number): Promise<Uint8Array> {
  using poll = new PollSet(1);
  using channel = new MessageChannel(64);
  poll.watch(0, fd);
  for (let look = 0; poll.wait(0) === 0 && look < 2000; look++) {
    await Bun.sleep(5);
  }
  const got = channel.receive(fd, 0, 64, []);
  return channel.bytes.slice(0, Math.max(got, 0));
}

function sendTo(fd: number, bytes: Uint8Array): void {
  using channel = new MessageChannel(64);
  channel.bytes.set(bytes);
  expect(channel.send(fd, 0, bytes.length, [])).toBe(bytes.length);
}
