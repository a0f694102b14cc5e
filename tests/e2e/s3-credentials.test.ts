/** Credentials of a bucket that are exchanged while the executable works: archives, and disks that are served. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import type { CommandResult } from "../../scripts/command.ts";
import { openStore } from "../../src/archive/open-store.ts";
import { buildArchive } from "../support/archive-builder.ts";
import { type BucketOnLoopback, DiskToArchive, doneEvent } from "../support/archived-disk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { MetadataServer } from "../support/metadata-server.ts";
import { S3Server, TEST_KEY } from "../support/s3-server.ts";
import type { SigningKey } from "../support/sigv4.ts";
import { endWhileItWaits } from "../support/waiting-command.ts";

const STRIPES = 32;
const SECOND = { ...TEST_KEY, accessKeyId: "second-id", secretAccessKey: "second/secret" };
const ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const TIMEOUT_MS = 60_000;
const STRIPE_SECTORS = 2048;

let server: S3Server;
let metadata: MetadataServer;

beforeEach(() => {
  server = new S3Server();
  metadata = new MetadataServer({ ...TEST_KEY, sessionToken: "token-1" });
  process.env[ENDPOINT] = metadata.url;
});

afterEach(() => {
  delete process.env[ENDPOINT];
  server[Symbol.dispose]();
  metadata[Symbol.dispose]();
});

function diskOf(changes: Partial<BucketOnLoopback> = {}): DiskToArchive {
  const flags = Array.from({ length: STRIPES }, () => 0);
  const disk = new DiskToArchive({ stripeShift: 8, flags });
  const endpoint = `http://127.0.0.1:${server.port}`;
  disk.useBucket({ ...TEST_KEY, bucket: server.bucket, endpoint, ...changes });
  return disk;
}

/** `act` runs once, before the answer to the `nth` request for objects of stripes. */
function atObject(nth: number, act: () => void): void {
  let count = 0;
  server.fault = (what) => {
    count += what.includes("data/") ? 1 : 0;
    if (count === nth) {
      count += 1;
      act();
    }
    return { delayMs: 5 };
  };
}

function expectSuccess(result: CommandResult): CommandResult {
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  expect(result.stderr).not.toMatch(/secret|token-\d/);
  return result;
}

async function expectRoundTrip(disk: DiskToArchive): Promise<void> {
  expectSuccess(await disk.tool("verify"));
  expectSuccess(await disk.export());
  expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw"))).toBe(true);
}

const writeFiles = (disk: DiskToArchive, key: SigningKey) => {
  disk.write("access", key.accessKeyId);
  disk.write("secret", key.secretAccessKey);
};

/** Writes a secret into the pipe once somebody reads it. */
const pipeWriter = (disk: DiskToArchive, secret: string) =>
  Bun.spawn(["sh", "-c", `printf %s ${secret} > pipe`], { cwd: disk.folder });

test.each([
  { status: 400, code: "ExpiredToken" },
  { status: 403, code: "InvalidAccessKeyId" },
])(
  "archive, verify and export go on over a rotation of files ($code)",
  async (told) => {
    using disk = diskOf();
    atObject(10, () => {
      writeFiles(disk, SECOND);
      server.rotate(SECOND, told);
    });
    const facts = doneEvent(expectSuccess(await disk.archive("--encrypt", "--json")));
    expect(facts).toMatchObject({ objects_written: STRIPES });
    expect(server.refusals).toBeGreaterThan(0);
    for (const command of [() => disk.tool("verify"), () => disk.export()]) {
      const next = { ...SECOND, secretAccessKey: `${server.key.secretAccessKey}+` };
      atObject(10, () => {
        writeFiles(disk, next);
        server.rotate(next, { status: 403, code: "SignatureDoesNotMatch" });
      });
      expectSuccess(await command());
    }
    expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw"))).toBe(true);
  },
  TIMEOUT_MS,
);

test(
  "files that come a second later than the rotation are waited for",
  async () => {
    using disk = diskOf();
    atObject(10, () => {
      server.rotate(SECOND);
      setTimeout(() => writeFiles(disk, SECOND), 1000);
    });
    expectSuccess(await disk.archive());
    await expectRoundTrip(disk);
  },
  TIMEOUT_MS,
);

test(
  "a named pipe is read again: its writer brings the new secret",
  async () => {
    using disk = diskOf({ secretFile: "pipe" });
    expect(Bun.spawnSync(["mkfifo", "-m", "600", disk.file("pipe")]).exitCode).toBe(0);
    const writers = [pipeWriter(disk, TEST_KEY.secretAccessKey)];
    atObject(10, () => {
      disk.write("access", SECOND.accessKeyId);
      writers.push(pipeWriter(disk, SECOND.secretAccessKey));
      server.rotate(SECOND);
    });
    expectSuccess(await disk.archive());
    expect(await Promise.all(writers.map(({ exited }) => exited))).toEqual([0, 0]);
    expect(server.objects.size).toBeGreaterThan(STRIPES);
  },
  TIMEOUT_MS,
);

test(
  "no other credentials: the run ends in bounded time, says why and how to go on, and can be gone on with",
  async () => {
    using disk = diskOf();
    atObject(10, () => server.rotate(SECOND));
    const failed = await disk.archive();
    expect(failed.exitCode).toBe(1);
    expect(failed.durationMs).toBeLessThan(30_000);
    expect(failed.stderr).toContain("E_STORE");
    expect(failed.stderr).toContain("code=ExpiredToken");
    expect(failed.stderr).toContain("they were read again and are the same");
    expect(failed.stderr).toContain("--resume");
    expect(failed.stderr).not.toContain(TEST_KEY.secretAccessKey);
    server.fault = () => undefined;
    writeFiles(disk, SECOND);
    const facts = doneEvent(expectSuccess(await disk.archive("--resume", "--json")));
    expect(facts.reused_stripes).toBeGreaterThan(0);
    await expectRoundTrip(disk);
  },
  TIMEOUT_MS,
);

test(
  "SIGTERM ends a run that waits for the writer of a pipe",
  async () => {
    using disk = diskOf({ secretFile: "pipe" });
    expect(Bun.spawnSync(["mkfifo", "-m", "600", disk.file("pipe")]).exitCode).toBe(0);
    pipeWriter(disk, TEST_KEY.secretAccessKey);
    const rotated = Promise.withResolvers<void>();
    atObject(10, () => {
      server.rotate(SECOND);
      rotated.resolve();
    });
    const child = Bun.spawn(
      [EXECUTABLE, "archive", "-f", "disk.toml", "--target-config", "target.toml"],
      { cwd: disk.folder, env: disk.env, stdout: "ignore", stderr: "pipe" },
    );
    await rotated.promise;
    await Bun.sleep(300);
    const begunMs = performance.now();
    child.kill("SIGTERM");
    expect(await child.exited).toBe(130);
    expect(performance.now() - begunMs).toBeLessThan(3_000); // a writer is waited for 300 s
    expect(await new Response(child.stderr).text()).toContain("E_INTERRUPTED");
  },
  TIMEOUT_MS,
);

test.each([
  ["archive", ["archive", "-f", "disk.toml", "--target-config", "target.toml"]],
  ["archive verify", ["archive", "verify", "--source", "source.toml"]],
])(
  "SIGTERM ends %s, which waits for a metadata service that is silent",
  async (_, command) => {
    using disk = diskOf({ credentials: ["instance"] });
    const asked = Promise.withResolvers<void>();
    metadata.spoil = async () => {
      asked.resolve();
      await Bun.sleep(10_000);
      return new Response("");
    };
    const child = Bun.spawn([EXECUTABLE, ...command], {
      cwd: disk.folder,
      env: disk.env,
      stdout: "ignore",
      stderr: "pipe",
    });
    await asked.promise;
    child.kill("SIGTERM");
    expect(await child.exited).toBe(130);
    expect(await new Response(child.stderr).text()).toContain("E_INTERRUPTED");
  },
  TIMEOUT_MS,
);

test(
  "SIGTERM ends a check that waits for the first writer of a pipe",
  async () => {
    using disk = diskOf({ secretFile: "pipe" });
    expect(Bun.spawnSync(["mkfifo", "-m", "600", disk.file("pipe")]).exitCode).toBe(0);
    const words = ["archive", "verify", "--source", "source.toml"];
    const { exitCode, told } = await endWhileItWaits(words, "SIGTERM", disk.folder);
    expect(exitCode).toBe(130);
    expect(told).toContain("E_INTERRUPTED");
  },
  TIMEOUT_MS,
);

test(
  "the role of an instance: archived, checked and exported over rotations",
  async () => {
    server.sessionToken = "token-1";
    using disk = diskOf({ credentials: ["web_identity", "container", "instance"] });
    let nth = 1;
    const rotate = () => {
      nth += 1;
      const key = { ...TEST_KEY, accessKeyId: `role-${nth}`, secretAccessKey: `secret-${nth}` };
      server.sessionToken = `token-${nth}`;
      metadata.credentials = { ...key, sessionToken: server.sessionToken };
      server.rotate(key);
    };
    for (const command of [() => disk.archive(), () => disk.tool("verify"), () => disk.export()]) {
      atObject(10, rotate);
      expectSuccess(await command());
    }
    expect(disk.bytesOf("out.raw").equals(disk.bytesOf("disk.raw"))).toBe(true);
    expect(nth).toBe(4);
  },
  TIMEOUT_MS,
);

test(
  "credentials of an instance that end soon are renewed before the service refuses them",
  async () => {
    server.sessionToken = "token-1";
    metadata.expiration = new Date(Date.now() + 120_000).toISOString();
    using disk = diskOf({ credentials: ["instance"] });
    const { durationMs } = expectSuccess(await disk.archive());
    const readings = metadata.seen.filter((what) => what.startsWith("PUT"));
    expect(readings.length).toBeGreaterThan(1);
    // At the start, at the first use, and once a second.
    expect(readings.length).toBeLessThan(3 + durationMs / 1000);
    expect(server.refusals).toBe(0);
  },
  TIMEOUT_MS,
);

test(
  "a metadata service that is hostile: the command ends with an error of its own",
  async () => {
    using disk = diskOf({ credentials: ["instance"] });
    metadata.spoil = () => new Response(new Uint8Array(1_000_000));
    const failed = await disk.archive();
    expect(failed.exitCode).toBe(1);
    expect(failed.stderr).toContain('E_CREDENTIALS: credentials "instance"');
  },
  TIMEOUT_MS,
);

const BYTES = 12 * MIB;

async function lazyDisk(credentials: string, sections: string): Promise<LazyDisk> {
  const lines = [
    `type = "archive"\nstorage = "s3"\nbucket = "${server.bucket}"\nprefix = "a"\nconnections = 4`,
    `region = "${TEST_KEY.region}"\nendpoint = "http://127.0.0.1:${server.port}"\n${credentials}`,
  ];
  const disk = new LazyDisk({
    diskBytes: BYTES,
    imageBytes: BYTES,
    isEncrypted: true,
    origin: lines.join("\n"),
    source: "autofetch = true\nbackground_bytes_per_second = 1048576",
    sections,
  });
  await using store = await openStore(server.description({ prefix: "a/" }));
  await buildArchive(store, { stripeSectors: STRIPE_SECTORS, image: disk.image });
  return disk;
}

test.each(["files", "instance"])(
  "a disk is served over rotations of its source's credentials: %s",
  async (kind) => {
    const text = (value: string) => new TextEncoder().encode(value);
    const references = 'access_key_id.ref = "id"\nsecret_access_key.ref = "secret"';
    const secrets = '[secrets.id]\nsource.file = "id"\n[secrets.secret]\nsource.file = "secret"';
    const documents = {
      files: [references, secrets],
      instance: ['credentials = ["instance"]', ""],
    } as const;
    const [credentials, sections] = documents[kind as keyof typeof documents];
    await using disk = await lazyDisk(credentials, sections);
    const exchange = (key: SigningKey, token: string | undefined) => {
      disk.files.write("id", text(key.accessKeyId));
      disk.files.write("secret", text(key.secretAccessKey));
      metadata.credentials = { ...key, sessionToken: token ?? "" };
      server.sessionToken = token;
      server.rotate(key);
    };
    const tokenOf = { files: () => undefined, instance: (n: number) => `token-${n}` } as const;
    const token = tokenOf[kind as keyof typeof tokenOf];
    exchange({ ...TEST_KEY, accessKeyId: "first" }, token(1));
    await disk.init();
    const backend = await disk.start();
    const renewals = () => backend.log().split("credentials were renewed").length - 1;
    for (const n of [0, 1, 2]) {
      await disk.until(({ status }) => status.stripes.fetched > n);
      exchange({ ...TEST_KEY, accessKeyId: `id-${n}`, secretAccessKey: `key-${n}` }, token(n + 2));
      await disk.until(() => renewals() > n);
    }
    await disk.command({ command: "set_fetch_rate", bytes_per_second: null });
    await disk.until(({ status }) => status.fetch?.source_state === "closed");
    using guest = new LazyGuest(disk);
    expectSame(guest.read(0, BYTES), disk.expected());
    const log = backend.log();
    expect(renewals()).toBe(3);
    expect(log).not.toMatch(/cannot bring a stripe|key-\d|token-\d/);
  },
  TIMEOUT_MS,
);

test(
  "new credentials that come after reads have failed: the disk goes on with them",
  async () => {
    const text = (value: string) => new TextEncoder().encode(value);
    const references = 'access_key_id.ref = "id"\nsecret_access_key.ref = "secret"';
    const secrets = '[secrets.id]\nsource.file = "id"\n[secrets.secret]\nsource.file = "secret"';
    await using disk = await lazyDisk(references, secrets);
    disk.files.write("id", text(TEST_KEY.accessKeyId));
    disk.files.write("secret", text(TEST_KEY.secretAccessKey));
    await disk.init();
    const backend = await disk.start();
    await disk.until(({ status }) => status.stripes.fetched >= 2);
    server.rotate(SECOND);
    const troubled = await disk.until(() => backend.log().includes("cannot bring a stripe"));
    expect(troubled.status.stripes.fetched).toBeLessThan(12);
    expect(backend.log()).toContain("there are no other credentials");
    disk.files.write("id", text(SECOND.accessKeyId));
    disk.files.write("secret", text(SECOND.secretAccessKey));
    await disk.until(({ status }) => status.stripes.fetched > troubled.status.stripes.fetched);
    await disk.command({ command: "set_fetch_rate", bytes_per_second: null });
    await disk.until(({ status }) => status.fetch?.source_state === "closed");
    using guest = new LazyGuest(disk);
    expectSame(guest.read(0, BYTES), disk.expected());
  },
  TIMEOUT_MS,
);
