/** Disks that are filled from a stripe server while they are served, both by the compiled executable. */
import { expect, test } from "bun:test";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { type RunningServer, startStripeServer } from "../support/stripe-server.ts";

/** A server without metadata serves the whole disk, in stripes of 1 MiB. */
const BYTES = 24 * MIB;
const STRIPES = 24;
const PSK = 'psk = { identity = "client", secret.ref = "psk" }';
const PSK_SECTION = '[secrets.psk]\nsource.file = "psk"';
const ZONE = "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true";

test("a disk is what the server has, through the death and the return of the server", async () => {
  const disk = new LazyDisk({ diskBytes: BYTES, imageBytes: BYTES, isEncrypted: true });
  await using _ = disk;
  disk.files.write("psk", new TextEncoder().encode("a secret of 16 or more bytes"));
  disk.files.write(
    "server.toml",
    `[device]\ndata_path = "image.raw"\n${ZONE}\nallow_unencrypted_disk = true\n`,
  );
  const first = await serve(disk, 0);
  const { port } = first;
  disk.configure({
    origin: `type = "remote"\naddress = "127.0.0.1:${port}"\n${PSK}`,
    source: "autofetch = true\nbackground_bytes_per_second = 8388608",
    sections: PSK_SECTION,
  });
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
  await using second = await serve(disk, port);
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
  disk.files.write("psk", new TextEncoder().encode("a secret of 16 or more bytes"));
  disk.files.write(
    "server.toml",
    `[device]\ndata_path = "image.raw"\n${ZONE}\nallow_unencrypted_disk = true\n`,
  );
  const server = await serve(disk, 0);
  const origin = `type = "remote"\naddress = "127.0.0.1:${server.port}"\n${PSK}`;
  const source = "autofetch = true\nbackground_bytes_per_second = 4194304";
  disk.configure({ origin, source, sections: PSK_SECTION });
  await disk.init();
  await disk.start();
  await server.stop();
  await disk.until(({ status }) => status.fetch?.source_state === "retrying");
  const begunMs = performance.now();
  await disk.stop();
  expect(performance.now() - begunMs).toBeLessThan(3_000);
}, 60_000);

// --- internal ---

function serve(disk: LazyDisk, port: number): Promise<RunningServer> {
  disk.files.write(
    "listen.toml",
    `[server]\naddress = "127.0.0.1:${port}"\n${PSK}\n${PSK_SECTION}\n${ZONE}\n`,
  );
  const flags = ["-f", "server.toml", "--listen-config", "listen.toml"];
  return startStripeServer(disk.files.folder, flags);
}
