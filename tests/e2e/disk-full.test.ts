/**
 * A sparse disk on a file system that has no room left: the guest gets errors for what found no room and for nothing
 * else, the log says why, and all goes on as soon as there is room.
 */
import { expect } from "bun:test";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { skipUnless } from "../support/requires.ts";
import { ask } from "../support/rpc-client.ts";
import { missingSmallFileSystem, SmallFileSystem } from "../support/small-file-system.ts";

const missing = missingSmallFileSystem();
const test = skipUnless(missing ?? "", missing === undefined);

const PIECE = 64 * 1024;
const IOERR = 1;
/** So many requests fail: far more than lines may tell it. */
const FAILURES = 300;
const LINES_MAX = 3;

for (const [engine, isEncrypted] of [
  ["io_uring", false],
  ["io_uring", true],
  ["sync", true],
] as const) {
  test(`${engine}, encrypted ${isEncrypted}: writes fail while the disk is full, and no others`, async () => {
    using place = new Place();
    using small = new SmallFileSystem(place.path, 12 * MIB);
    const disk = writeDiskConfig({
      folder: place.path,
      isEncrypted,
      dataPath: small.file("disk.raw", 16 * MIB),
      moreConfig: `rpc_socket = "rpc.sock"\n[tuning]\nio_engine = "${engine}"\n`,
    });
    small.fill(6 * MIB);
    const written = new Map<number, Uint8Array>();
    {
      await using backend = await startUbiblk(disk);
      using guest = new LazyGuest({ files: { folder: place.path } });
      const full = writeUntilFull(guest, written);
      expect(full).toBeWithin(MIB, 7 * MIB);
      for (let failure = 0; failure < FAILURES; failure++) {
        expect(guest.statusOfWrite(full, contentOf(full, 2))).toBe(IOERR);
      }
      guest.flush();
      checkAll(guest, written);
      write(guest, written, 0, contentOf(0, 3)); // where there is something already, there is room
      const lines = backend.log().match(/failed a request.*ENOSPC/g) ?? [];
      expect(lines.length).toBeWithin(1, LINES_MAX + 1);
      expect(lines[0]).toContain(`operation=write sector=${full / 512} bytes=${PIECE}`);
      expect(await failedRequests(place.path)).toBe(FAILURES + 1);
      small.free();
      for (let offset = full; offset < full + 4 * MIB; offset += PIECE) {
        write(guest, written, offset, contentOf(offset, 4));
      }
      guest.flush();
      expect(await backend.stop()).toBe(0);
    }
    await using _again = await startUbiblk(disk);
    using guest = new LazyGuest({ files: { folder: place.path } });
    checkAll(guest, written);
  });
}

test("a disk that is fetched to where no room is: stripes fail, and are there when there is room", async () => {
  using place = new Place();
  using small = new SmallFileSystem(place.path, 12 * MIB);
  const bytes = 10 * MIB;
  const disk = new LazyDisk({ diskBytes: bytes, imageBytes: bytes, isEncrypted: true });
  await using _ = disk;
  rmSync(disk.files.file("disk.raw"));
  symlinkSync(small.file("disk.raw", bytes), disk.files.file("disk.raw"));
  disk.configure({ source: "autofetch = true" });
  await disk.init();
  small.fill(7 * MIB);
  const backend = await disk.start();
  await disk.until(({ status }) => status.stripes.fetched >= 4);
  using guest = new LazyGuest(disk);
  await disk.until(({ status }) => status.fetch?.failed !== 0);
  expectSame(guest.read(0, bytes), disk.expected()); // the image itself answers
  expect(backend.log()).toMatch(/event=stripe_fetch_failed .*ENOSPC/);
  small.free();
  await disk.command({ command: "retry_failed" });
  await disk.until(({ status }) => status.stripes.fetched === status.stripes.source);
  disk.moveImage();
  expectSame(guest.read(0, bytes), disk.expected());
  await disk.stop();
});

// --- internal ---

class Place implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "ubiblk-full-"));

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

function contentOf(offset: number, generation: number): Uint8Array {
  return Uint8Array.from({ length: PIECE }, (_, i) => (offset / PIECE) * 7 + generation * 31 + i);
}

function write(
  guest: LazyGuest,
  written: Map<number, Uint8Array>,
  offset: number,
  bytes: Uint8Array,
) {
  expect(guest.statusOfWrite(offset, bytes)).toBe(0);
  written.set(offset, bytes);
}

/** Returns where the first write failed. */
function writeUntilFull(guest: LazyGuest, written: Map<number, Uint8Array>): number {
  for (let offset = 0; ; offset += PIECE) {
    const bytes = contentOf(offset, 1);
    const status = guest.statusOfWrite(offset, bytes);
    if (status !== 0) {
      expect(status).toBe(IOERR);
      return offset;
    }
    written.set(offset, bytes);
  }
}

function checkAll(guest: LazyGuest, written: ReadonlyMap<number, Uint8Array>): void {
  for (const [offset, bytes] of written) {
    expectSame(guest.read(offset, PIECE), bytes);
  }
}

async function failedRequests(folder: string): Promise<number> {
  const answer = (await ask(join(folder, "rpc.sock"), "statistics")) as {
    readonly statistics: { readonly queues: readonly { readonly failed: number }[] };
  };
  return answer.statistics.queues.reduce((sum, { failed }) => sum + failed, 0);
}
