/** `ubiblk stripe-server` on top of others: an archive served as it is, disks whose stripes are elsewhere. */
import { expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { openStore } from "../../src/archive/open-store.ts";
import { buildArchive } from "../support/archive-builder.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { MetadataDisk } from "../support/metadata-disk.ts";
import { RawClient, readRequest, startStripeServer } from "../support/stripe-server.ts";

const STRIPE_SECTORS = 64;
const STRIPE = STRIPE_SECTORS * 512;
const HAS_SOURCE = 4;
const LISTEN =
  '[server]\naddress = "127.0.0.1:0"\n[danger_zone]\nenabled = true\nallow_unencrypted_connection = true\n';
const ARCHIVE = '[archive]\nstorage = "filesystem"\npath = "archive"\n';

test("an archive is served as it is: whole stripes, holes, zeros, and those it does not have", async () => {
  using folder = await archiveFolder();
  await using server = await startStripeServer(folder.folder, [
    ...["--archive", "archive.toml", "--listen-config", "listen.toml"],
  ]);
  using client = await RawClient.connect(server.port);
  client.send(0x00);
  const size = Number((await client.take(9)).readBigUInt64LE(1));
  const blob = await client.take(size);
  expect(blob[13]).toBe(6);
  expect(blob.readUInt32LE(14)).toBe(6);
  expect([...blob.subarray(512, 518)]).toEqual([4, 4, 0, 4, 4, HAS_SOURCE]);
  for (const stripe of [0, 1, 3, 4, 5]) {
    client.send(readRequest(stripe));
    expect((await client.take(9))[0]).toBe(0);
    expect((await client.take(STRIPE)).equals(stripeOf(stripe))).toBe(true);
  }
  client.send(readRequest(2), readRequest(3, 0x11));
  expect((await client.take(2)).toString("hex")).toBe("0210");
});

test("an object that is gone ends the session that asks for it, and no other", async () => {
  using folder = await archiveFolder();
  await using server = await startStripeServer(folder.folder, [
    ...["--archive", "archive.toml", "--listen-config", "listen.toml"],
  ]);
  rmSync(join(folder.folder, "archive", "data"), { recursive: true });
  using other = await RawClient.connect(server.port);
  using client = await RawClient.connect(server.port);
  client.send(readRequest(0));
  expect((await client.rest()).toString("hex")).toBe("ff");
  other.send(readRequest(3));
  expect((await other.take(9))[0]).toBe(0);
  expect((await other.take(STRIPE)).every((byte) => byte === 0)).toBe(true);
  expect(server.log()).toContain("stripe 0 cannot be read");
});

test("a disk to be filled from a server that serves a disk to be filled from an archive", async () => {
  using folder = await archiveFolder();
  await using first = await startStripeServer(folder.folder, [
    ...["--archive", "archive.toml", "--listen-config", "listen.toml"],
  ]);
  using disk = new MetadataDisk({ diskBytes: 6 * STRIPE });
  disk.write(
    "disk.toml",
    '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\n' +
      `[stripe_source]\ntype = "remote"\naddress = "127.0.0.1:${first.port}"\nconnections = 2\n` +
      "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\nallow_unencrypted_connection = true\n",
  );
  disk.write("listen.toml", LISTEN);
  const made = await disk.run("init-metadata");
  expect(`${made.exitCode}${made.stderr}`).toBe("0");
  await using second = await startStripeServer(disk.folder, [
    ...["-f", "disk.toml", "--listen-config", "listen.toml"],
  ]);
  const clients = await Promise.all(
    Array.from({ length: 6 }, () => RawClient.connect(second.port)),
  );
  for (const client of clients) {
    client.send(readRequest(0), readRequest(1), readRequest(3), readRequest(4), readRequest(5));
  }
  for (const client of clients) {
    for (const stripe of [0, 1, 3, 4, 5]) {
      expect((await client.take(9))[0]).toBe(0);
      expect((await client.take(STRIPE)).equals(stripeOf(stripe))).toBe(true);
    }
    client[Symbol.dispose]();
  }
  // One source for all clients: its own connections, not some for each of them.
  expect(first.log().split("accepted connection").length - 1).toBeLessThanOrEqual(5);
  expect(await second.stop()).toBe(0);
});

test("an archive that is not there is refused with its name", async () => {
  using disk = new MetadataDisk({ diskBytes: STRIPE });
  disk.write("archive.toml", ARCHIVE);
  disk.write("listen.toml", LISTEN);
  const result = await runCommand(
    [EXECUTABLE, "stripe-server", "--archive", "archive.toml", "--listen-config", "listen.toml"],
    { cwd: disk.folder, timeoutMs: 20_000 },
  );
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("archive");
});

// --- internal ---

/** An archive of six stripes, the last one short: 2 is not in it, 3 is all zeros. */
async function archiveFolder(): Promise<MetadataDisk> {
  const folder = new MetadataDisk({ diskBytes: STRIPE });
  const path = folder.file("archive");
  await using store = await openStore({ kind: "filesystem", path, role: "write" });
  await buildArchive(store, { stripeSectors: STRIPE_SECTORS, image: IMAGE, absent: [2] });
  folder.write("archive.toml", ARCHIVE);
  folder.write("listen.toml", LISTEN);
  return folder;
}

const IMAGE = new Uint8Array(5 * STRIPE + 512).map((_, i) =>
  Math.floor(i / STRIPE) === 3 ? 0 : (i * 17 + (i >>> 9)) & 0xff,
);

function stripeOf(stripe: number): Buffer {
  const whole = Buffer.alloc(STRIPE);
  whole.set(IMAGE.subarray(stripe * STRIPE, (stripe + 1) * STRIPE));
  return whole;
}
