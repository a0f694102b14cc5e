/** Archives in a bucket of a service with good and bad days, by the executable. */
import { expect, test } from "bun:test";
import type { CommandResult } from "../../scripts/command.ts";
import { DiskToArchive, doneEvent } from "../support/archived-disk.ts";
import { S3Server, TEST_KEY } from "../support/s3-server.ts";
import { belowOnce } from "../support/until.ts";

const STRIPES = 32;

/** 4 MiB in 32 stripes, and a service that has nothing yet. */
function diskAndServer() {
  const server = new S3Server();
  server.pageSize = 10;
  const disk = new DiskToArchive({
    stripeShift: 8,
    flags: Array.from({ length: STRIPES }, () => 0),
  });
  disk.useBucket({
    ...TEST_KEY,
    bucket: server.bucket,
    endpoint: `http://127.0.0.1:${server.port}`,
  });
  return { disk, server };
}

function expectSuccess(result: CommandResult): CommandResult {
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  return result;
}

async function expectRoundTrip(disk: DiskToArchive): Promise<void> {
  expectSuccess(await disk.tool("verify"));
  expectSuccess(await disk.export());
  expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw"))).toBe(true);
}

test.each([{ flags: [] }, { flags: ["--encrypt", "--compression", "zstd", "--zstd-level", "1"] }])(
  "a round trip with flags $flags; at most so many connections",
  async ({ flags }) => {
    const { disk, server } = diskAndServer();
    using _disk = disk;
    using _server = server;
    expectSuccess(await disk.archive(...flags));
    expect(server.concurrencyMax).toBeLessThanOrEqual(4);
    await expectRoundTrip(disk);
  },
);

test("an error that passes is tried again: one run is enough", async () => {
  const { disk, server } = diskAndServer();
  using _disk = disk;
  using _server = server;
  server.fault = (what, nth) =>
    nth === 1 && /[02468ace]$/.test(what) ? { status: 500, code: "InternalError" } : undefined;
  expectSuccess(await disk.archive());
  await expectRoundTrip(disk);
}, 60_000);

test("no access: the run fails soon, names the object, and can be gone on with", async () => {
  const { disk, server } = diskAndServer();
  using _disk = disk;
  using _server = server;
  let puts = 0;
  server.fault = (what) =>
    what.startsWith("PUT") && what.includes("data/") && ++puts > 8
      ? { status: 403, code: "AccessDenied" }
      : undefined;
  const failed = await disk.archive("--encrypt");
  expect(failed.exitCode).toBe(1);
  expect(failed.durationMs).toBeLessThan(10_000);
  expect(failed.stderr).toMatch(/PutObject.*data\/[0-9a-f]{64}.*403/);
  expect(failed.stderr).toContain("--resume");
  server.fault = () => undefined;
  const facts = doneEvent(expectSuccess(await disk.archive("--encrypt", "--resume", "--json")));
  expect(facts.reused_stripes).toBeGreaterThan(0);
  await expectRoundTrip(disk);
});

test("one object that fails for good: the others' attempts are not waited for", async () => {
  const { disk, server } = diskAndServer();
  using _disk = disk;
  using _server = server;
  let puts = 0;
  server.fault = (what) => {
    puts += what.includes("data/") ? 1 : 0;
    return puts < 3 ? undefined : puts === 3 ? { status: 403 } : { delayMs: 15_000 };
  };
  const failed = await disk.archive();
  expect(failed.exitCode).toBe(1);
  expect(failed.stderr).toContain("status=403");
  expect(failed.durationMs).toBeLessThan(8_000);
}, 60_000);

test("latency of 200 ms: many objects are under way", async () => {
  const runMs = async () => {
    const { disk, server } = diskAndServer();
    using _disk = disk;
    using _server = server;
    server.fault = () => ({ delayMs: 200 });
    const { durationMs } = expectSuccess(await disk.archive());
    await expectRoundTrip(disk);
    return durationMs;
  };
  expect(await belowOnce(200 * STRIPES, runMs, 2)).toBeLessThan(200 * STRIPES);
}, 120_000);

test("objects that cannot be read: the export fails and leaves nothing", async () => {
  const { disk, server } = diskAndServer();
  using _disk = disk;
  using _server = server;
  expectSuccess(await disk.archive());
  server.fault = (what) =>
    what.startsWith("GET") && what.includes("data/") ? { status: 500 } : undefined;
  const failed = await disk.export();
  expect(failed.exitCode).toBe(1);
  expect(failed.stderr).toContain("status=500");
  expect(() => disk.bytesOf("out.raw")).toThrow();
}, 60_000);

test.each(["checksum", "md5", "nothing"] as const)(
  "an object damaged at its length, a service that tells %s: --incremental writes it anew",
  async (tells) => {
    const { disk, server } = diskAndServer();
    using _disk = disk;
    using _server = server;
    server.tells = tells;
    expectSuccess(await disk.archive());
    const [key = ""] = [...server.objects.keys()].filter((each) => each.includes("/data/"));
    const damaged = server.objects.get(key)?.slice() ?? new Uint8Array(1);
    damaged[9] = (damaged[9] ?? 0) ^ 1;
    server.objects.set(key, damaged);
    const verified = await disk.tool("verify");
    expect(verified).toMatchObject({ exitCode: 1 });
    expect(verified.stderr).toContain("--incremental");
    const facts = doneEvent(expectSuccess(await disk.archive("--incremental", "--json")));
    expect(facts).toMatchObject({ objects_written: tells === "nothing" ? STRIPES : 1 });
    await expectRoundTrip(disk);
  },
  60_000,
);

test("verify: an outage of the service ends it, and is no finding about objects", async () => {
  const { disk, server } = diskAndServer();
  using _disk = disk;
  using _server = server;
  expectSuccess(await disk.archive());
  server.fault = (what) =>
    what.startsWith("GET") && what.includes("data/") ? { status: 500 } : undefined;
  const failed = await disk.tool("verify", "--json");
  expect(failed.exitCode).toBe(1);
  expect(failed.stdout).not.toContain('"bad"');
  expect(failed.stderr).toContain("E_STORE:");
  expect(failed.stderr).not.toContain("--replace");
}, 60_000);

test("verify: one object that the service fails at is a finding, and the check goes on", async () => {
  const { disk, server } = diskAndServer();
  using _disk = disk;
  using _server = server;
  expectSuccess(await disk.archive());
  const [key = ""] = [...server.objects.keys()].filter((each) => each.includes("/data/"));
  const name = key.slice(key.lastIndexOf("/") + 1);
  server.fault = (what) =>
    what.startsWith("GET") && what.includes(name) ? { status: 500 } : undefined;
  const found = await disk.tool("verify", "--json");
  expect(found.exitCode).toBe(1);
  const [bad = "", ...more] = found.stdout.split("\n").filter((line) => line.includes('"bad"'));
  expect(more).toEqual([]);
  expect(JSON.parse(bad)).toMatchObject({
    code: "E_STORE",
    message: expect.stringContaining(name),
  });
  expect(doneEvent(found)).toMatchObject({ objects: STRIPES - 1, bad_stripes: 1 });
}, 60_000);

test("verify: an object that is longer than any of the archive's is a finding, and the check goes on", async () => {
  const { disk, server } = diskAndServer();
  using _disk = disk;
  using _server = server;
  expectSuccess(await disk.archive());
  const [key = ""] = [...server.objects.keys()].filter((each) => each.includes("/data/"));
  server.objects.set(key, new Uint8Array(2 ** 20));
  const found = await disk.tool("verify", "--json");
  expect(found.exitCode).toBe(1);
  expect(found.stdout.split("\n").filter((line) => line.includes('"bad"'))).toHaveLength(1);
  expect(found.stdout).toContain("E_STORE_OBJECT");
  expect(doneEvent(found)).toMatchObject({ stored_stripes: STRIPES, bad_stripes: 1 });
}, 60_000);
