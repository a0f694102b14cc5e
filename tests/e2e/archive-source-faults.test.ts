/** `ubiblk archive` of a disk whose source is not what it was, fails, or does not answer. */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CommandResult } from "../../scripts/command.ts";
import { STRIPE_FLAG } from "../../src/formats/metadata.ts";
import { DiskToArchive } from "../support/archived-disk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { S3Server, TEST_BUCKET, TEST_KEY } from "../support/s3-server.ts";

const { HAS_SOURCE, WRITTEN } = STRIPE_FLAG;

/** An archive of `flags.length` stripes; those without WRITTEN are absent in it. */
async function archiveOf(options: { stripeShift: number; flags: readonly number[] }) {
  const origin = new DiskToArchive({ ...options, isWriteTracked: true });
  expect((await origin.archive()).exitCode).toBe(0);
  return origin;
}

/** A disk of stripes that are all still to be fetched from the archive. */
function diskOver(origin: DiskToArchive, stripeShift: number, stripes: number): DiskToArchive {
  const flags = Array.from({ length: stripes }, () => HAS_SOURCE);
  const disk = new DiskToArchive({ stripeShift, flags });
  writeFileSync(
    disk.file("disk.toml"),
    '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\n' +
      `[stripe_source]\ntype = "archive"\nstorage = "filesystem"\npath = "${origin.archivePath}"\n` +
      "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n",
  );
  return disk;
}

function expectRefused(result: CommandResult, text: string): void {
  expect(result).toMatchObject({ exitCode: 1, isTimedOut: false });
  expect(result.stderr).toContain("E_STRIPE_SOURCE");
  expect(result.stderr).toContain(text);
}

describe("a source archive that does not hold what is to be fetched", () => {
  test.each([
    { what: "lacks a stripe", flags: [WRITTEN, 0, WRITTEN], text: "lacks 1 of the stripes" },
    { what: "is shorter than the disk", flags: [WRITTEN, WRITTEN], text: "the first is 2" },
  ])("$what: archive refuses it before it writes anything", async ({ flags, text }) => {
    using origin = await archiveOf({ stripeShift: 7, flags });
    using disk = diskOver(origin, 7, 3);
    expectRefused(await disk.archive("--dry-run"), text);
    expect(existsSync(disk.archivePath)).toBe(false);
    expectRefused(await disk.archive(), text);
    expect(readdirSync(disk.archivePath)).toEqual([]);
  });

  test("lacks a stripe: stripe-server refuses it", async () => {
    using origin = await archiveOf({ stripeShift: 7, flags: [WRITTEN, 0, WRITTEN] });
    using disk = diskOver(origin, 7, 3);
    disk.write("server.toml", '[server]\nunix_socket = "socket"\n');
    expectRefused(
      await disk.run("stripe-server", "-f", "disk.toml", "--listen-config", "server.toml"),
      "lacks 1 of the stripes",
    );
  });
});

test("a source that fails with stripes of 8 MiB: the run ends, whatever buffers it had", async () => {
  const stripeShift = 14;
  const flags = Array.from({ length: 6 }, () => WRITTEN);
  using origin = await archiveOf({ stripeShift, flags });
  for (const name of origin.objects()) {
    const path = join(origin.archivePath, "data", name);
    writeFileSync(path, readFileSync(path).subarray(0, 4096));
  }
  using disk = diskOver(origin, stripeShift, 6);
  expectRefused(await disk.archive(), "cannot read stripe");
}, 60_000);

test("a source that hangs: SIGTERM ends the run at once", async () => {
  using server = new S3Server();
  using origin = new DiskToArchive({ stripeShift: 7, flags: [WRITTEN, WRITTEN], hasKek: true });
  origin.useBucket({
    bucket: TEST_BUCKET,
    endpoint: `http://127.0.0.1:${server.port}`,
    region: TEST_KEY.region,
    accessKeyId: TEST_KEY.accessKeyId,
    secretAccessKey: TEST_KEY.secretAccessKey,
  });
  expect((await origin.archive()).exitCode).toBe(0);
  const document = readFileSync(origin.file("source.toml"), "utf8");
  const source = document.replace("[archive]\n", '[stripe_source]\ntype = "archive"\n');
  for (const hangs of ["data/", "stripe-mapping"]) {
    using disk = new DiskToArchive({ stripeShift: 7, flags: [HAS_SOURCE, HAS_SOURCE] });
    for (const name of ["access", "secret", "kek"]) {
      disk.write(name, origin.bytesOf(name));
    }
    disk.write(
      "disk.toml",
      '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\n' +
        source.replace("enabled = true\n", "enabled = true\nallow_unencrypted_disk = true\n"),
    );
    server.seen.length = 0;
    server.fault = (what) =>
      what.startsWith("GET") && what.includes(hangs) ? { delayMs: 30_000 } : undefined;
    const command = ["archive", "-f", "disk.toml", "--target-config", "target.toml"];
    const child = Bun.spawn([EXECUTABLE, ...command], {
      cwd: disk.folder,
      env: disk.env,
      stdout: "ignore",
      stderr: "pipe",
    });
    while (!server.seen.some(({ what }) => what.startsWith("GET") && what.includes(hangs))) {
      await Bun.sleep(20);
    }
    const begunMs = performance.now();
    child.kill("SIGTERM");
    expect(await child.exited).toBe(130);
    expect(performance.now() - begunMs).toBeLessThan(5_000);
    expect(await new Response(child.stderr).text()).toContain("E_INTERRUPTED");
  }
}, 60_000);
