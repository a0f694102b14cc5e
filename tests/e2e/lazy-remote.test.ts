/** Disks that are filled from a stripe server while they are served, both by the compiled executable. */
import { expect, test } from "bun:test";
import { freePort } from "../support/free-port.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { fillFrom, serveImage } from "../support/remote-disk.ts";

/** A server without metadata serves the whole disk, in stripes of 1 MiB. */
const BYTES = 24 * MIB;
const STRIPES = 24;
/** A stripe a second: much is missing when the server goes, however busy the machine is. */
const SLOWLY = "autofetch = true\nbackground_bytes_per_second = 1048576";

test("a disk is what the server has, through the death and the return of the server", async () => {
  const disk = new LazyDisk({ diskBytes: BYTES, imageBytes: BYTES, isEncrypted: true });
  await using _ = disk;
  const port = freePort();
  const first = await serveImage(disk, port);
  fillFrom(disk, port, { source: SLOWLY });
  await disk.init();
  await disk.start();
  using guest = new LazyGuest(disk);
  const expected = disk.expected();
  const middle = 20 * MIB + 512;
  expectSame(guest.read(middle, 8192), expected.slice(middle, middle + 8192));
  process.kill(first.pid, "SIGKILL");
  await first.stop();
  const { status } = await disk.until(({ status }) => status.fetch?.source_state === "retrying");
  expect(status.stripes.fetched).toBeLessThan(STRIPES);
  await using second = await serveImage(disk, port);
  expect(second.isRunning()).toBe(true);
  await disk.command({ command: "set_fetch_rate", bytes_per_second: null });
  await disk.until(({ status }) => status.fetch?.source_state === "closed");
  expectSame(guest.read(0, BYTES), expected);
  await disk.stop();
  expectSame(await disk.plainBytes(), expected);
}, 60_000);

test("a stop does not wait for a server that is gone", async () => {
  const disk = new LazyDisk({ diskBytes: BYTES, imageBytes: BYTES, isEncrypted: true });
  await using _ = disk;
  const server = await serveImage(disk);
  fillFrom(disk, server.port, { source: SLOWLY });
  await disk.init();
  await disk.start();
  await server.stop();
  await disk.until(({ status }) => status.fetch?.source_state === "retrying");
  const begunMs = performance.now();
  await disk.stop();
  expect(performance.now() - begunMs).toBeLessThan(3_000);
}, 60_000);
