/** Runs, prune and rekey that meet each other, or what another one left, by the executable. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CommandResult } from "../../scripts/command.ts";
import { DiskToArchive, doneEvent } from "../support/archived-disk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { S3Server, TEST_KEY } from "../support/s3-server.ts";

const SAFE = ["--encrypt", "--compression", "zstd"] as const;

function expectSuccess(result: CommandResult): CommandResult {
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  return result;
}

function expectRefused(result: CommandResult, text: string): void {
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain(text);
}

const diskOf = (stripes: number, stripeShift = 7) =>
  new DiskToArchive({ stripeShift, flags: Array.from({ length: stripes }, () => 0), hasKek: true });

function diskInBucket() {
  const server = new S3Server();
  server.pageSize = 1000;
  const disk = diskOf(8);
  const endpoint = `http://127.0.0.1:${server.port}`;
  disk.useBucket({ ...TEST_KEY, bucket: server.bucket, endpoint });
  return { disk, server };
}

/** Another content for one stripe. */
function change(disk: DiskToArchive, text: string): void {
  const data = disk.bytesOf("disk.raw");
  data.fill(text, 0, 65_536);
  disk.write("disk.raw", data);
}

describe("in a folder", () => {
  test("two runs that begin together: one makes the archive, the other is refused", async () => {
    for (let round = 0; round < 3; round += 1) {
      using disk = diskOf(40);
      const runs = await Promise.all([disk.archive(...SAFE), disk.archive(...SAFE)]);
      expect(runs.map(({ exitCode }) => exitCode).sort()).toEqual([0, 1]);
      const refused = runs.find(({ exitCode }) => exitCode === 1);
      expect(refused?.stderr).toMatch(/E_ARCHIVE_(RUN|EXISTS)/);
      expectSuccess(await disk.tool("verify"));
    }
  }, 60_000);

  test("while a run is at work prune, rekey and another run are refused, and say who it is", async () => {
    using disk = diskOf(400, 9);
    expectSuccess(await disk.archive(...SAFE));
    disk.writeDocuments("2", "kek2");
    const words = ["archive", "-f", "disk.toml", "--target-config", "target.toml", "--replace"];
    const run = Bun.spawn([EXECUTABLE, ...words], {
      cwd: disk.folder,
      env: disk.env,
      stderr: "ignore",
      stdout: "ignore",
    });
    const runFile = join(disk.archivePath, "archive-run.json");
    while (!existsSync(runFile) && run.exitCode === null) {
      await Bun.sleep(1);
    }
    run.kill("SIGSTOP");
    try {
      const who = `an archive run is at work on ${disk.archivePath}: process ${run.pid}`;
      expectRefused(await disk.tool("prune"), who);
      expectRefused(await disk.tool("prune", "--discard-run"), who);
      expectRefused(await disk.tool("rekey", "--target-config", "target2.toml"), who);
      expectRefused(await disk.archive(...SAFE, "--incremental"), who);
    } finally {
      run.kill("SIGCONT");
    }
    expect(await run.exited).toBe(0);
    expectSuccess(await disk.tool("verify"));
  }, 60_000);

  test("a run file of no bytes, as a loss of power leaves it, is dropped when asked for", async () => {
    using disk = diskOf(2);
    expectSuccess(await disk.archive(...SAFE));
    const runFile = join(disk.archivePath, "archive-run.json");
    writeFileSync(runFile, "");
    expectRefused(await disk.archive(...SAFE, "--resume"), "--replace");
    expectRefused(await disk.tool("prune"), "--discard-run");
    expect(expectSuccess(await disk.tool("inspect")).stdout).toContain("damaged");
    expectSuccess(await disk.tool("prune", "--discard-run"));
    expect(existsSync(runFile)).toBe(false);
    writeFileSync(runFile, "");
    expectSuccess(await disk.archive(...SAFE, "--replace"));
    expect(existsSync(runFile)).toBe(false);
    expectSuccess(await disk.tool("verify"));
  });

  test("prune leaves other archives below the folder, whatever they are called", async () => {
    using disk = diskOf(1);
    expectSuccess(await disk.archive());
    const strangers = ["previous-week/metadata.json", "previous-notes", "data/sub/x"].map((name) =>
      join(disk.archivePath, name),
    );
    for (const path of [...strangers, join(disk.archivePath, ".incomplete/mine")]) {
      mkdirSync(join(path, ".."), { recursive: true });
      writeFileSync(path, "mine");
    }
    writeFileSync(join(disk.archivePath, "previous-metadata.json"), "ours");
    const facts = doneEvent(expectSuccess(await disk.tool("prune", "--json")));
    expect(facts).toMatchObject({ objects: 0, leftovers: 1 });
    expect(strangers.map(existsSync)).toEqual([true, true, true]);
    expect(existsSync(join(disk.archivePath, ".incomplete/mine"))).toBe(true);
  });

  test("--replace with other flags says that the old objects are left", async () => {
    using disk = diskOf(2);
    expectSuccess(await disk.archive(...SAFE));
    const replaced = expectSuccess(await disk.archive("--replace"));
    expect(replaced.stderr).toContain("may be left: archive prune removes them");
    const again = expectSuccess(await disk.archive("--incremental"));
    expect(again.stderr).not.toContain("archive prune");
  });
});

describe("in a bucket", () => {
  test("Ctrl-C while a new run looks whether it is alone says that its file may be there", async () => {
    const { disk, server } = diskInBucket();
    using _disk = disk;
    using _server = server;
    server.conditions = "ignored"; // so it waits for two seconds
    const words = ["archive", "-f", "disk.toml", "--target-config", "target.toml"];
    const run = Bun.spawn([EXECUTABLE, ...words], {
      cwd: disk.folder,
      env: disk.env,
      stderr: "pipe",
      stdout: "ignore",
    });
    const isBegun = () => server.seen.some(({ what }) => /^PUT.*archive-run.json/.test(what));
    while (!isBegun() && run.exitCode === null) {
      await Bun.sleep(5);
    }
    run.kill("SIGINT");
    const said = await run.stderr.text();
    expect(await run.exited).toBe(130);
    expect(said).toContain("archive-run.json may stay in s3://");
    expect(said).toContain("--resume goes on from there, archive prune --discard-run gives it up");
    expectRefused(await disk.tool("verify"), "yet: a run was cut off there: process");
    expectSuccess(await disk.tool("prune", "--discard-run"));
    expectRefused(await disk.tool("verify"), "there is no archive in");
  }, 60_000);

  test("a run that ends while prune lists: prune finds another map and removes nothing", async () => {
    const { disk, server } = diskInBucket();
    using _disk = disk;
    using _server = server;
    expectSuccess(await disk.archive());
    const isList = (what: string) => what === "GET ";
    const before = server.seen.length;
    const hasListed = () => server.seen.slice(before).some(({ what }) => isList(what));
    const archived = Promise.withResolvers<void>();
    let isHeld = true;
    server.fault = (what) => {
      const fault = isList(what) && isHeld ? { until: archived.promise } : undefined;
      isHeld &&= !isList(what);
      return fault;
    };
    const pruned = disk.tool("prune");
    while (!hasListed()) {
      await Bun.sleep(5);
    }
    change(disk, "changed");
    expectSuccess(await disk.archive("--incremental"));
    archived.resolve();
    expectRefused(await pruned, "was changed meanwhile");
    expectSuccess(await disk.tool("verify"));
  }, 60_000);

  test("a run while rekey is at work is refused, and the keys are not lost", async () => {
    const { disk, server } = diskInBucket();
    using _disk = disk;
    using _server = server;
    expectSuccess(await disk.archive(...SAFE));

    const text = disk.bytesOf("target.toml").toString();
    disk.write("target2.toml", text.replace('source.file = "kek"', 'source.file = "kek2"'));
    disk.write(
      "source2.toml",
      disk.bytesOf("source.toml").toString().replace('source.file = "kek"', 'source.file = "kek2"'),
    );
    const refused = Promise.withResolvers<void>();
    const isPublished = (what: string) => what.startsWith("PUT") && what.endsWith("metadata.json");
    server.fault = (what) => (isPublished(what) ? { until: refused.promise } : undefined);
    const before = server.seen.length;
    const rekeyed = disk.tool("rekey", "--target-config", "target2.toml");
    while (!server.seen.slice(before).some(({ what }) => isPublished(what))) {
      await Bun.sleep(5);
    }
    expectRefused(await disk.archive("--replace"), "archive rekey is at work on");
    refused.resolve();
    expectSuccess(await rekeyed);
    server.fault = () => undefined;
    expectSuccess(await disk.run("archive", "verify", "--source", "source2.toml"));
  }, 60_000);

  test.each(["kept", "refused", "ignored"] as const)(
    "two runs that begin together, conditions are %s: one makes the archive",
    async (conditions) => {
      const { disk, server } = diskInBucket();
      using _disk = disk;
      using _server = server;
      server.conditions = conditions;
      const second = diskInBucket();
      using other = second.disk;
      second.server[Symbol.dispose]();
      const endpoint = `http://127.0.0.1:${server.port}`;
      other.useBucket({ ...TEST_KEY, bucket: server.bucket, endpoint });
      const runs = await Promise.all([disk.archive(...SAFE), other.archive(...SAFE)]);
      expect(runs.map(({ exitCode }) => exitCode).sort()).toEqual([0, 1]);
      expectSuccess(await disk.tool("verify"));
    },
    60_000,
  );

  test("without the right to delete: published, with warnings; later runs go on", async () => {
    const { disk, server } = diskInBucket();
    using _disk = disk;
    using _server = server;
    server.fault = (what) =>
      what.startsWith("DELETE") ? { status: 403, code: "AccessDenied" } : undefined;
    expectSuccess(await disk.archive());
    change(disk, "changed");
    expectSuccess(await disk.archive("--incremental"));
    expectSuccess(await disk.tool("verify"));
  }, 60_000);
});
