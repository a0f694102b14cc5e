/**
 * Lazy disks through a vhost-user client, situation by situation: what is read from where, what is fetched and
 * marked, what happens while a source fails or hangs, and metadata that was damaged.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, renameSync, truncateSync, writeFileSync } from "node:fs";
import { runCommand } from "../../scripts/command.ts";
import { REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { at, DATA, STATUS_UNSET, WRITE } from "../support/hostile-client.ts";
import { expectSame, LazyDisk, LazyGuest, type LazyStatus, MIB } from "../support/lazy-disk.ts";
import { SeededRandom } from "../support/random.ts";
import { skipUnless } from "../support/requires.ts";
import { belowOnce } from "../support/until.ts";

const KIB = 1024;
const { IN, OUT } = REQUEST_TYPE;
/** Four stripes of 1 MiB, all of them in the image. */
const FOUR = { diskBytes: 4 * MIB, imageBytes: 4 * MIB };

const noFuse = missingFuse();
const testWithFuse = skipUnless(noFuse ?? "", noFuse === undefined);

describe("four queues of 256, one segment of 4 KiB, an encrypted disk of 4 MiB with an image of 2", () => {
  const image = Uint8Array.from({ length: 2 * MIB }, (_, i) => (111 * i) % 256);
  const options = {
    diskBytes: 4 * MIB,
    imageBytes: image.length,
    image,
    isEncrypted: true,
    sections: `[tuning]
num_queues = 4
queue_size = 256
seg_size_max = 4096
seg_count_max = 1
poll_timeout_us = 500`,
  };

  test("the image, block by block", async () => {
    await using disk = await serve(options);
    using guest = new LazyGuest(disk);
    for (let offset = 0; offset < image.length; offset += 4 * KIB) {
      expectSame(guest.read(offset, 4 * KIB), image.subarray(offset, offset + 4 * KIB));
    }
  });

  test("random blocks of three sizes over all of the disk, by one client after the other", async () => {
    await using disk = await serve(options);
    const random = new SeededRandom(1);
    for (const blockBytes of [4 * KIB, 16 * KIB, 64 * KIB]) {
      using guest = new LazyGuest(disk);
      const written = new Map<number, Uint8Array>();
      for (let i = 0; i < 64; i++) {
        const offset = random.below((4 * MIB) / blockBytes) * blockBytes;
        const block = crypto.getRandomValues(new Uint8Array(blockBytes));
        guest.write(offset, block);
        written.set(offset, block);
      }
      for (const [offset, block] of written) {
        expectSame(guest.read(offset, blockBytes), block);
      }
      await Bun.sleep(1000);
    }
  });

  test("what is written cannot be read on the disk's file", async () => {
    await using disk = await serve(options);
    using guest = new LazyGuest(disk);
    const letters = Buffer.alloc(4 * KIB, "A");
    guest.write(3 * MIB, letters);
    guest.flush();
    expectSame(guest.read(3 * MIB, 4 * KIB), letters);
    expect(disk.files.bytesOf("disk.raw").includes("A".repeat(64))).toBe(false);
  });
});

test("the bench verifies every byte while an image is fetched below it, through four queues", async () => {
  await using disk = await serve({
    diskBytes: 64 * MIB,
    imageBytes: 64 * MIB,
    image: new Uint8Array(64 * MIB).fill(0x5a),
    isEncrypted: true,
    source: "autofetch = true\nbackground_bytes_per_second = 8388608",
    sections: "[tuning]\nnum_queues = 4",
  });
  const shape = ["--workload=verify", "--block-size=4K", "--queue-depth=32", "--queues=4"];
  const socket = `--socket=${disk.socketPath}`;
  const { stdout, stderr } = await runCommand([EXECUTABLE, "bench", socket, "--json", ...shape]);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout).verified).toContain("all as expected");
  const { status } = await disk.until(({ status }) => status.fetch?.source_state === "closed");
  expect(status.fetch).toMatchObject({ failed: 0, retries: 0 });
}, 120_000);

describe.each([{ isEncrypted: true }, { isEncrypted: false }])("%j", ({ isEncrypted }) => {
  test("copy_on_read: a read returns the source's data, which is on the disk from then on", async () => {
    await using disk = await serve({ ...FOUR, isEncrypted, source: "copy_on_read = true" });
    using guest = new LazyGuest(disk);
    const expected = disk.expected();
    expectSame(guest.read(0, 4 * KIB), expected.subarray(0, 4 * KIB));
    await disk.until(isFetched(1));
    expect(disk.takenBytes()).toBeWithin(MIB, 2 * MIB);
    overwriteImage(disk);
    expectSame(guest.read(0, MIB), expected.subarray(0, MIB));
  });

  test("copy_on_read: a write to another stripe comes after its fetch, and outlives a kill", async () => {
    await using disk = new LazyDisk({ ...FOUR, isEncrypted, source: "copy_on_read = true" });
    await disk.init();
    const backend = await disk.start();
    using guest = new LazyGuest(disk);
    const expected = disk.expected();
    guest.read(0, 512);
    guest.write(MIB + 8 * KIB, new Uint8Array(4 * KIB).fill(0xee));
    guest.flush();
    expected.fill(0xee, MIB + 8 * KIB, MIB + 12 * KIB);
    process.kill(backend.pid, "SIGKILL");
    await backend.stop();
    await disk.start();
    expect((await disk.status()).status.stripes.fetched).toBeGreaterThanOrEqual(1);
    using next = new LazyGuest(disk);
    expectSame(next.read(0, 4 * MIB), expected);
  });

  test("without copy_on_read a read of one stripe leaves the disk alone", async () => {
    await using disk = await serve({ ...FOUR, isEncrypted });
    using guest = new LazyGuest(disk);
    const expected = disk.expected();
    for (let stripe = 0; stripe < 4; stripe++) {
      const start = stripe * MIB;
      expectSame(guest.read(start, 64 * KIB), expected.subarray(start, start + 64 * KIB));
    }
    expect((await disk.status()).status.stripes.fetched).toBe(0);
    expect(disk.takenBytes()).toBe(0);
  });

  test("without copy_on_read a read across two stripes fetches both, and needs no image again", async () => {
    await using disk = await serve({ ...FOUR, isEncrypted });
    using guest = new LazyGuest(disk);
    const expected = disk.expected();
    const [start, end] = [2 * MIB - 4 * KIB, 2 * MIB + 4 * KIB];
    expectSame(guest.read(start, end - start), expected.subarray(start, end));
    const { status } = await disk.until(isFetched(2));
    expect(status.fetch).toMatchObject({ demand_fetches: 2, background_fetches: 0 });
    overwriteImage(disk);
    expectSame(guest.read(MIB, 2 * MIB), expected.subarray(MIB, 3 * MIB));
  });

  test.each([
    { what: "an image", source: "copy_on_read = true" },
    { what: "no image", source: "none" },
  ])("track_written with $what: what was written is marked before it is answered", async (kind) => {
    const device = "track_written = true";
    await using disk = new LazyDisk({ ...FOUR, isEncrypted, device, source: kind.source });
    await disk.init();
    const backend = await disk.start();
    using guest = new LazyGuest(disk);
    guest.read(0, 4 * KIB);
    guest.write(MIB, new Uint8Array(512).fill(1)); // a part of a stripe
    guest.write(3 * MIB, new Uint8Array(MIB).fill(3)); // all of one
    process.kill(backend.pid, "SIGKILL");
    await backend.stop();
    const { stdout } = await disk.files.run("dump-metadata");
    expect(stdout).toContain("\nwritten stripes: 1, 3\n");
    await disk.start();
    using next = new LazyGuest(disk);
    expectSame(next.read(3 * MIB, MIB), new Uint8Array(MIB).fill(3));
  });

  test.each([{ isCopyOnRead: true }, { isCopyOnRead: false }])(
    "an image that was cut: its stripe fails, others do not, and it is there when the image is (%j)",
    async ({ isCopyOnRead }) => {
      const source = `copy_on_read = ${isCopyOnRead}`;
      await using disk = await serve({ ...FOUR, isEncrypted, source });
      using guest = new LazyGuest(disk);
      const expected = disk.expected();
      guest.write(0, new Uint8Array(512).fill(7));
      expected.fill(7, 0, 512);
      truncateSync(disk.files.file("image.raw"), 2 * MIB);
      expect(statusOf(guest, IN, 3 * MIB)).toBe(STATUS.IOERR);
      expect(statusOf(guest, OUT, 3 * MIB + 4 * KIB)).toBe(STATUS.IOERR);
      const failed = (await disk.status()).status.fetch;
      expect(failed).toMatchObject({ failed: 1, failed_stripes: [3] });
      expectSame(guest.read(0, MIB), expected.subarray(0, MIB));

      writeFileSync(disk.files.file("image.raw"), disk.image);
      expect(statusOf(guest, OUT, 3 * MIB + 4 * KIB)).toBe(STATUS.OK);
      expected.set(contentOf(4 * KIB), 3 * MIB + 4 * KIB);
      expectSame(guest.read(0, 4 * MIB), expected);
      expect((await disk.status()).status.fetch).toMatchObject({ failed: 0 });
    },
  );

  testWithFuse(
    "a source that hangs: what is there is served, nothing spins, all goes on in the end",
    async () => {
      await using disk = new LazyDisk({ ...FOUR, isEncrypted, source: "copy_on_read = true" });
      await using image = mountImage(disk);
      await disk.init();
      const backend = await disk.start();
      using guest = new LazyGuest(disk);
      const expected = disk.expected();
      guest.write(0, new Uint8Array(512).fill(7));
      expected.fill(7, 0, 512);

      image.halt();
      const writing = new Pending(guest, 0, OUT, 2 * MIB + 4 * KIB);
      const across = new Pending(guest, 1, IN, 2 * MIB - 4 * KIB);
      const reading = Array.from(
        { length: 30 },
        (_, i) => new Pending(guest, 2 + i, IN, 3 * MIB + i * 24 * KIB),
      );
      const all = [writing, across, ...reading];
      await Bun.sleep(200);
      const used = async () => {
        const before = cpuMs(backend.pid);
        await Bun.sleep(2000);
        return cpuMs(backend.pid) - before;
      };
      expect(await belowOnce(50, used)).toBeLessThan(60);
      guest.write(512, new Uint8Array(1024).fill(9));
      expected.fill(9, 512, 512 + 1024);
      guest.flush();
      expectSame(guest.read(0, MIB), expected.subarray(0, MIB));
      expect(all.map(({ status }) => status)).toEqual(all.map(() => STATUS_UNSET));

      image.goOn();
      await disk.until(() => all.every(({ status }) => status === STATUS.OK));
      for (const _ of all) {
        guest.client.waitUsed();
      }
      expected.set(contentOf(4 * KIB), 2 * MIB + 4 * KIB);
      for (const [i, { data }] of reading.entries()) {
        const start = 3 * MIB + i * 24 * KIB;
        expectSame(data, expected.subarray(start, start + 8 * KIB));
      }
      expectSame(guest.read(0, 4 * MIB), expected);
    },
  );

  testWithFuse("a stop while the source hangs does not wait for it", async () => {
    const source = "autofetch = true\nbackground_bytes_per_second = 1";
    await using disk = new LazyDisk({ ...FOUR, isEncrypted, source });
    const expected = disk.expected();
    {
      await using image = mountImage(disk);
      await disk.init();
      await disk.start();
      using guest = new LazyGuest(disk);
      guest.write(2 * MIB, new Uint8Array(MIB).fill(5));
      expected.fill(5, 2 * MIB, 3 * MIB);
      image.halt();
      await disk.command({ command: "set_fetch_rate", bytes_per_second: null });
      await disk.until(({ status }) => status.fetch?.in_flight === 2);
      const beforeMs = performance.now();
      await disk.stop();
      expect(performance.now() - beforeMs).toBeLessThan(5000);
    }
    renameSync(disk.files.file("real.raw"), disk.files.file("image.raw"));
    await disk.start();
    using next = new LazyGuest(disk);
    expectSame(next.read(0, 4 * MIB), expected);
  });
});

describe.each([{ isEncrypted: true }, { isEncrypted: false }])("damage %j", ({ isEncrypted }) => {
  /** 520 stripes: groups 0 and 1; a sector more than that is in the file. */
  const sizes = { diskBytes: 520 * MIB, imageBytes: 4 * MIB };

  test.each([
    { sector: 0, named: "header: " },
    { sector: 1, named: "group 0 (stripes 0 to 507, sector 1): " },
    { sector: 2, named: "group 1 (stripes 508 to 519, sector 2): " },
  ])("any bit of metadata sector $sector that flipped is found at the start", async (kind) => {
    await using disk = new LazyDisk({ ...sizes, isEncrypted });
    await disk.init();
    const intact = disk.files.bytesOf("meta");
    for (const at of [0, 9, 13, 14, 200, 507, 508, 511]) {
      const bytes = Buffer.from(intact);
      const place = kind.sector * 512 + at;
      bytes[place] = (bytes[place] ?? 0) ^ (1 << (at % 8));
      disk.files.write("meta", bytes);
      const { exitCode, stderr } = await disk.files.run("vhost");
      expect(exitCode).toBe(1);
      expect(stderr).toContain(`error E_METADATA: cannot use metadata `);
      expect(stderr).toContain(kind.named);
      expect(stderr).toContain("bring the file back from a copy");
      expect(existsSync(disk.socketPath)).toBe(false);
    }
    disk.files.write("meta", intact);
    await disk.start();
  });

  test("behind the groups in use nothing is looked at", async () => {
    await using disk = new LazyDisk({ ...sizes, isEncrypted });
    disk.files.write("meta", new Uint8Array(4 * 512));
    await disk.init();
    const bytes = disk.files.bytesOf("meta");
    disk.files.write("meta", bytes.fill(0xff, 3 * 512));
    await disk.start();
    using guest = new LazyGuest(disk);
    expectSame(guest.read(0, 4 * MIB), disk.image);
  });
});

// --- internal ---

async function serve(options: ConstructorParameters<typeof LazyDisk>[0]): Promise<LazyDisk> {
  const disk = new LazyDisk(options);
  await disk.init();
  await disk.start();
  return disk;
}

function isFetched(count: number): (status: LazyStatus) => boolean {
  return ({ status }) => status.stripes.fetched === count;
}

/** In place: whoever still reads it gets something else. */
function overwriteImage(disk: LazyDisk): void {
  writeFileSync(disk.files.file("image.raw"), new Uint8Array(disk.image.length).fill(0xdb), {
    flag: "r+",
  });
}

/** The image's path shows a file that can be halted. */
function mountImage(disk: LazyDisk): FuseImage {
  const path = disk.files.file("image.raw");
  const real = disk.files.file("real.raw");
  renameSync(path, real);
  return new FuseImage(real, path);
}

function contentOf(lengthBytes: number): Uint8Array {
  return new Uint8Array(lengthBytes).fill(0x77);
}

/** What a request of 4 KiB ends with. */
function statusOf(guest: LazyGuest, type: number, offset: number): number {
  const { client } = guest;
  client.bytes.set(contentOf(4 * KIB), DATA);
  const flags = type === IN ? WRITE : 0;
  client.submit([
    client.header(0, type, offset / 512),
    { address: at(DATA), length: 4 * KIB, flags },
    client.statusByte(0),
  ]);
  return client.status(0);
}

/** A request of 8 KiB for a read, 4 KiB for a write, that nobody waits for. */
class Pending {
  readonly #guest: LazyGuest;
  readonly #head: number;
  readonly #place: number;

  constructor(guest: LazyGuest, index: number, type: number, offset: number) {
    const { client } = guest;
    this.#guest = guest;
    this.#head = 10 + index * 3; // the guest's own requests are at 0
    this.#place = DATA + 0x90000 + index * 8 * KIB;
    const length = type === IN ? 8 * KIB : 4 * KIB;
    client.bytes.set(contentOf(length), this.#place);
    client.setChain(this.#head, [
      client.header(this.#head, type, offset / 512),
      { address: at(this.#place), length, flags: type === IN ? WRITE : 0 },
      client.statusByte(this.#head),
    ]);
    client.offer(this.#head);
    client.kick();
  }

  get status(): number {
    return this.#guest.client.status(this.#head);
  }

  get data(): Uint8Array {
    return this.#guest.client.bytes.slice(this.#place, this.#place + 8 * KIB);
  }
}

/** CPU time of all threads of a process so far. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ") ?? [];
  const ticks = Number(fields[11]) + Number(fields[12]); // utime, stime: 100 a second
  return ticks * 10;
}
