/** `ubiblk init` as a user runs it: from nothing to a disk that is served, whatever it is filled from; and what it refuses. */
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type CommandResult, runCommand } from "../../scripts/command.ts";
import { DiskToArchive } from "../support/archived-disk.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { expectSame, LazyGuest, type LazyStatus, MIB } from "../support/lazy-disk.ts";
import { attachLoopDevice, missingLoopDevices, missingMounts } from "../support/loop-device.ts";
import { NewDisk } from "../support/new-disk.ts";
import { skipUnless } from "../support/requires.ts";
import { ask } from "../support/rpc-client.ts";
import { S3Server, TEST_KEY } from "../support/s3-server.ts";
import { startStripeServer } from "../support/stripe-server.ts";
import { until } from "../support/until.ts";

const KEY_MODES = [
  { flags: [], names: ["config.toml", "disk.raw", "metadata", "xts_key"] },
  { flags: ["--kek"], names: ["config.toml", "disk.raw", "kek", "metadata"] },
  { flags: ["--unencrypted"], names: ["config.toml", "disk.raw", "metadata"] },
];

describe("an empty disk", () => {
  test.each(KEY_MODES)("$names is made, checked, served and verified", async ({ flags, names }) => {
    using disk = new NewDisk();
    expectSuccess(await disk.init("--size", "8M", "--num-queues", "2", ...flags));
    expect(disk.names()).toEqual(names);
    expect(names.map((name) => disk.modeOf(name))).toEqual(names.map(() => 0o600));
    expect(disk.modeOf(".")).toBe(0o700);
    const config = join(disk.place, "config.toml");
    expectSuccess(await disk.run("config", "check", "--reference", config));
    await using backend = await disk.serve();
    const bench = ["--workload", "verify", "--block-size", "64K", "--queues", "2"];
    expectSuccess(await disk.run("bench", "--socket", backend.socketPath, ...bench));
    expectSuccess(await disk.run("top", "--once", join(disk.place, "rpc.sock")));
    expect(await backend.stop()).toBe(0);
    expect(backend.log()).not.toMatch(/used by: nothing/);
  });

  test("by the reference's name and flags, over an earlier one", async () => {
    using disk = new NewDisk();
    disk.write("base.raw", new Uint8Array(2 * MIB).fill(7));
    symlinkSync(EXECUTABLE, join(disk.folder, "ubiblk-init"));
    const tuning = ["--num-queues", "4", "--queue-size", "256", "--seg-size-max", "4096"];
    const more = ["--seg-count-max", "1", "--poll-timeout-us", "500", "--force"];
    const flags = ["--size", "4M", "--dir", ".", "--base", "base.raw", ...tuning, ...more];
    const options = { cwd: disk.folder, timeoutMs: 30_000 };
    expectSuccess(await runCommand(["./ubiblk-init", ...flags], options));
    expectSuccess(await runCommand(["./ubiblk-init", ...flags, "--kek"], options));
    expect(existsSync(join(disk.folder, "xts_key"))).toBe(false);
    const text = readFileSync(join(disk.folder, "config.toml"), "utf8");
    expect(text).toContain("queue_size = 256\nseg_size_max = 4096\nseg_count_max = 1\n");
    expectSuccess(await disk.run("init-metadata", "-f", "config.toml", "-s", "11"));
  });

  test("JSON tells where everything is", async () => {
    using disk = new NewDisk();
    const made = expectSuccess(await disk.init("--size", "8M", "--stripe-size", "64K", "--json"));
    expect(JSON.parse(made.stdout)).toMatchObject({
      config: join(disk.place, "config.toml"),
      data: join(disk.place, "disk.raw"),
      size_bytes: 8 * MIB,
      stripe_bytes: 65_536,
      stripe_count: 128,
      encrypted: true,
      key_file: join(disk.place, "xts_key"),
      dangers: ["allow_secret_over_regular_file"],
    });
  });

  test("it is sparse, or has its room at once", async () => {
    using disk = new NewDisk();
    expectSuccess(await disk.init("--size", "8M"));
    expect(statSync(join(disk.place, "disk.raw"))).toMatchObject({ size: 8 * MIB, blocks: 0 });
    expectSuccess(await disk.init("--size", "8M", "--preallocate", "--force"));
    const { size, blocks } = statSync(join(disk.place, "disk.raw"));
    expect(size).toBe(8 * MIB);
    expect(blocks * 512).toBeGreaterThanOrEqual(8 * MIB);
  });

  test("with a KEK from a pipe nothing dangerous is allowed, and the pipe is read once", async () => {
    using disk = new NewDisk();
    const kek = disk.write("kek", new Uint8Array(32).fill(5));
    const pipe = join(disk.folder, "kek.pipe");
    expectSuccess(await runCommand(["mkfifo", "-m", "600", pipe]));
    const feed = () => Bun.spawn(["sh", "-c", `cat ${kek} > ${pipe}`]);
    const first = feed();
    expectSuccess(await disk.init("--size", "8M", "--kek-file", pipe));
    expect(await first.exited).toBe(0);
    expect(disk.names()).toEqual(["config.toml", "disk.raw", "metadata"]);
    expect(disk.textOf("config.toml")).not.toContain("danger_zone");
    const second = feed();
    await using backend = await disk.serve();
    expect(await second.exited).toBe(0);
    expect(await backend.stop()).toBe(0);
  });
});

test("a configuration that lies elsewhere: one that is there stays, and so does all else", async () => {
  using disk = new NewDisk();
  const config = disk.write("vm.toml", "precious");
  const flags = ["--size", "8M", "--kek", "--config", config];
  const refused = await disk.init(...flags);
  expect(refused).toMatchObject({ exitCode: 1 });
  expect(refused.stderr).toContain(`E_INIT: there already: ${config}`);
  expect(readdirSync(disk.folder)).toEqual(["vm.toml"]);
  const missing = await disk.init("--size", "8M", "--config", join(disk.folder, "none", "vm.toml"));
  expect(missing.stderr).toContain("E_INIT: cannot write");
  expect(readdirSync(disk.folder)).toEqual(["vm.toml"]);
  expectSuccess(await disk.init(...flags, "--force"));
  expect(disk.names()).toEqual(["disk.raw", "kek", "metadata"]);
  expect(statSync(config).mode & 0o7777).toBe(0o600);
  await using backend = await disk.serve({}, config);
  expect(await backend.stop()).toBe(0);
});

test("with a KEK that is a credential of the service nothing dangerous is allowed", async () => {
  using disk = new NewDisk();
  const credentials = join(disk.folder, "credentials");
  mkdirSync(credentials, { mode: 0o700 });
  const kek = disk.write("credentials/host-kek", new Uint8Array(32).fill(5).toBase64());
  const flags = ["--kek-file", kek, "--kek-credential", "host-kek"];
  expectSuccess(await disk.init("--size", "8M", ...flags));
  expect(disk.textOf("config.toml")).not.toContain("danger_zone");
  expect(disk.textOf("config.toml")).toContain('source.credential = "host-kek"');
  await expect(disk.serve()).rejects.toThrow("CREDENTIALS_DIRECTORY is not set");
  await using backend = await disk.serve({ CREDENTIALS_DIRECTORY: credentials });
  expect(await backend.stop()).toBe(0);
});

describe("a disk that is filled", () => {
  test("from an image, whose path TOML would read otherwise", async () => {
    using disk = new NewDisk();
    const image = noise(3 * MIB + 1000);
    const path = disk.write('base "1"\\\n.raw', image);
    expectSuccess(await disk.init("--size", "8M", "--base", path, "--stripe-size", "128K"));
    await expectFilled(disk, image);
  });

  test("from an archive in a folder, with its KEK", async () => {
    using archived = new DiskToArchive({ stripeShift: 8, flags: [0, 0, 0, 0], hasKek: true });
    using disk = new NewDisk();
    expectSuccess(await archived.archive("--encrypt"));
    const flags = ["--archive", archived.archivePath, "--archive-kek", archived.file("kek")];
    const made = await disk.init("--size", "8M", ...flags, "--json");
    expect(JSON.parse(expectSuccess(made).stdout)).toMatchObject({ stripe_bytes: 131_072 });
    await expectFilled(disk, archived.bytesOf("disk.raw"));
  });

  test("from an archive in a bucket, with keys in files", async () => {
    using server = new S3Server();
    using archived = new DiskToArchive({ stripeShift: 8, flags: [0, 0, 0, 0] });
    const endpoint = `http://127.0.0.1:${server.port}`;
    archived.useBucket({ ...TEST_KEY, bucket: server.bucket, endpoint });
    expectSuccess(await archived.archive("--encrypt"));
    using disk = new NewDisk();
    const place = ["--s3", `${server.bucket}/disks/one`, "--s3-endpoint", endpoint];
    const keys = ["--s3-access-key-id", archived.file("access"), "--s3-region", TEST_KEY.region];
    const secrets = ["--s3-secret-access-key", archived.file("secret")];
    const kek = ["--archive-kek", archived.file("kek")];
    const flags = [...place, ...keys, ...secrets, ...kek, "--autofetch"];
    expectSuccess(await disk.init("--size", "8M", ...flags));
    await expectFilled(disk, archived.bytesOf("disk.raw"), "by itself");
  });

  test("from a stripe server, with a key that both share", async () => {
    using served = new NewDisk();
    using disk = new NewDisk();
    const image = noise(4 * MIB);
    served.write("image.raw", image);
    served.write("psk", "a secret of 16 or more bytes");
    const zone = "[danger_zone]\nenabled = true\nallow_secret_over_regular_file = true\n";
    served.write(
      "server.toml",
      `[device]\ndata_path = "image.raw"\n${zone}allow_unencrypted_disk = true\n`,
    );
    served.write(
      "listen.toml",
      `[server]\naddress = "127.0.0.1:0"\npsk = { identity = "vm", secret.ref = "psk" }\n` +
        `[secrets.psk]\nsource.file = "psk"\n${zone}`,
    );
    const flags = ["-f", "server.toml", "--listen-config", "listen.toml"];
    await using server = await startStripeServer(served.folder, flags);
    const psk = ["--psk-identity", "vm", "--psk", join(served.folder, "psk")];
    const remote = ["--remote", `127.0.0.1:${server.port}`];
    expectSuccess(await disk.init("--size", "8M", ...remote, ...psk));
    await expectFilled(disk, image);
  });
});

describe("refused, with nothing left", () => {
  const noLoop = missingLoopDevices();
  const noMounts = missingMounts();

  test.each<[string, readonly string[], number, RegExp]>([
    ["no size", [], 2, /E_USAGE: --size: missing/],
    ["a size that is no multiple of 512", ["--size", "1000"], 1, /E_DISK_SIZE.*512 and 1024/],
    ["no bytes", ["--size", "0"], 2, /E_USAGE: --size: a disk of 0 bytes is none/],
    ["more than a file can have", ["--size", "8000T"], 1, /E_DISK_SIZE.*at most 4 PiB/],
    ["more room than there is", ["--size", "4000T", "--preallocate"], 1, /E_INIT.*are free in/],
    ["64 queues", ["--size", "8M", "--num-queues", "64"], 2, /64 is not in 1 to 63/],
    ["a queue of 3", ["--size", "8M", "--queue-size", "3"], 1, /--queue-size.*power of two/],
    ["CPUs for other queues", ["--size", "8M", "--cpus", "0,0"], 1, /--cpus.*2 entries for 1/],
    ["an image that is not there", ["--size", "8M", "--base", "none"], 1, /--base.*ENOENT/],
    ["a folder as an image", ["--size", "8M", "--base", "/"], 1, /--base: \/ is a folder/],
    ["an empty image", ["--size", "8M", "--base", "empty"], 1, /--base: .*empty is empty/],
    [
      "an image that is larger",
      ["--size", "1M", "--base", "large"],
      1,
      /2097152 bytes, the disk only/,
    ],
    ["no archive", ["--size", "8M", "--archive", "."], 1, /E_ARCHIVE: there is no archive in/],
    ["a KEK of 5 bytes", ["--size", "8M", "--kek-file", "short"], 1, /E_SECRET_SIZE.*has 5 bytes/],
    [
      "a configuration in the disk's place",
      ["--size", "8M", "-f", "vm/disk.raw"],
      1,
      /E_INIT: --config/,
    ],
    ["a file as the device", ["--disk", "large"], 1, /E_DISK_OPEN.*no block device/],
    [
      "nobody at the address",
      ["--size", "8M", "--remote", "127.0.0.1:1", "--unencrypted-connection"],
      1,
      /E_REMOTE/,
    ],
  ])("%s", async (_what, flags, exitCode, message) => {
    using disk = new NewDisk();
    disk.write("empty", "");
    disk.write("short", "12345");
    disk.write("large", new Uint8Array(2 * MIB));
    const before = readdirSync(disk.folder).sort();
    const refused = await disk.init(...flags);
    expect(refused).toMatchObject({ exitCode, stdout: "" });
    expect(refused.stderr).toMatch(message);
    expect(readdirSync(disk.folder).sort()).toEqual(before);
  });

  test.each(["disk.raw", "metadata", "config.toml", "xts_key"])(
    "%s is there already, and stays",
    async (name) => {
      using disk = new NewDisk();
      mkdirSync(disk.place);
      writeFileSync(join(disk.place, name), "precious");
      const refused = await disk.init("--size", "8M");
      expect(refused.exitCode).toBe(1);
      expect(refused.stderr).toContain(`E_INIT: there already: ${join(disk.place, name)}`);
      expect(disk.names()).toEqual([name]);
      expect(disk.textOf(name)).toBe("precious");
    },
  );

  test("a disk that is served is not replaced, also with --force", async () => {
    using disk = new NewDisk();
    expectSuccess(await disk.init("--size", "8M"));
    const before = disk.textOf("config.toml");
    await using backend = await disk.serve();
    const refused = await disk.init("--size", "8M", "--force");
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain(`in use by process ${backend.pid}`);
    expect(disk.textOf("config.toml")).toBe(before);
  });

  test("--force does not remove what the new disk is made from", async () => {
    using disk = new NewDisk();
    expectSuccess(await disk.init("--size", "8M", "--kek"));
    const image = await disk.init(
      "--size",
      "8M",
      "--force",
      "--base",
      join(disk.place, "disk.raw"),
    );
    expect(image.stderr).toContain("the new disk is made from it");
    const kek = await disk.init("--size", "8M", "--force", "--kek-file", join(disk.place, "kek"));
    expect(kek.stderr).toContain("the new disk is made from it");
    expect(disk.names()).toEqual(["config.toml", "disk.raw", "kek", "metadata"]);
  });

  skipUnless(noMounts ?? "", noMounts === undefined)(
    "on a full disk, at the key, the configuration or the metadata",
    async () => {
      using disk = new NewDisk();
      mkdirSync(disk.place);
      expectSuccess(
        await runCommand(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk.place]),
      );
      try {
        for (const [freeBytes, name] of [
          [0, "xts_key"],
          [4096, "config.toml"],
          [8192, "metadata"],
        ] as const) {
          writeFileSync(join(disk.place, "fill"), new Uint8Array(65_536 - freeBytes));
          const failed = await disk.init("--size", "64M");
          expect(failed.exitCode).toBe(1);
          expect(failed.stderr).toContain("ENOSPC");
          expect(failed.stderr).toContain(name);
          expect(disk.names()).toEqual(["fill"]);
        }
      } finally {
        expectSuccess(await runCommand(["umount", disk.place]));
      }
    },
  );

  skipUnless("the test does not run as root", process.getuid?.() === 0)(
    "as a user who may not write there, or read the image",
    async () => {
      using disk = new NewDisk();
      const image = disk.write("base.raw", new Uint8Array(MIB));
      chmodSync(disk.folder, 0o755);
      const asNobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
      const flags = ["init", "--size", "8M", "--dir"];
      const unwritable = await runCommand([...asNobody, EXECUTABLE, ...flags, disk.place]);
      expect(unwritable).toMatchObject({ exitCode: 1 });
      expect(unwritable.stderr).toContain(`E_INIT: cannot make the folder ${disk.place}: EACCES`);
      const own = join(disk.folder, "own");
      mkdirSync(own);
      expectSuccess(await runCommand(["chown", "65534", own]));
      const unreadable = await runCommand([
        ...asNobody,
        EXECUTABLE,
        ...flags,
        own,
        "--base",
        image,
      ]);
      expect(unreadable).toMatchObject({ exitCode: 1 });
      expect(unreadable.stderr).toContain("E_DISK_OPEN: cannot open image");
      expect(readdirSync(own)).toEqual([]);
    },
  );

  test.each(["SIGINT", "SIGTERM"] as const)("%s while it waits for a pipe", async (signal) => {
    using disk = new NewDisk();
    const pipe = join(disk.folder, "pipe");
    expectSuccess(await runCommand(["mkfifo", pipe]));
    const child = startInit(disk, "--kek-file", pipe);
    await child.waits();
    child.process.kill(signal);
    expect(await child.process.exited).toBe(130);
    expect(readdirSync(disk.folder)).toEqual(["pipe"]);
  });

  test("a signal while large metadata is made: nothing of it is left", async () => {
    using disk = new NewDisk();
    const flags = ["--size", "12T", "--stripe-size", "32K", "--dir", disk.place];
    const child = Bun.spawn([EXECUTABLE, "init", ...flags], { stdout: "ignore", stderr: "pipe" });
    const isMaking = () =>
      existsSync(disk.place) &&
      readdirSync(disk.place, { recursive: true }).some((name) => `${name}`.endsWith("/metadata"));
    await until("its metadata is being made", isMaking);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(130);
    expect(await child.stderr.text()).toContain("init was interrupted by SIGTERM");
    expect(existsSync(disk.place)).toBe(false);
  });

  test("a signal while a server does not answer: what was made is gone again", async () => {
    using disk = new NewDisk();
    using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const remote = ["--remote", `127.0.0.1:${silent.port}`, "--unencrypted-connection"];
    const child = startInit(disk, ...remote);
    await until("the disk is being made", () => existsSync(disk.place));
    child.process.kill("SIGINT");
    expect(await child.process.exited).toBe(130);
    expect(existsSync(disk.place)).toBe(false);
  });

  skipUnless(noLoop ?? "", noLoop === undefined)(
    "a block device: an empty one is used, one with a file system only with --force",
    async () => {
      using disk = new NewDisk();
      const backingPath = join(disk.folder, "backing");
      using device = attachLoopDevice({ backingPath, sizeBytes: 16 * MIB, sectorBytes: 512 });
      expectSuccess(await disk.init("--disk", device.path));
      expect(disk.names()).toEqual(["config.toml", "metadata", "xts_key"]);
      expect(disk.textOf("config.toml")).toContain(`data_path = "${device.path}"`);
      await using backend = await disk.serve();
      const bench = ["--workload", "verify", "--block-size", "64K"];
      expectSuccess(await disk.run("bench", "--socket", backend.socketPath, ...bench));
      await backend.stop();
      const again = ["--dir", join(disk.folder, "vm2"), "--disk", device.path];
      const noise = await disk.run("init", ...again);
      expect(noise.stderr).toContain("E_INIT: --disk:");
      expect(noise.stderr).toContain("such as an encrypted disk");
      expectSuccess(await runCommand(["mkfs.ext4", "-q", "-F", device.path]));
      const ext = await disk.run("init", ...again);
      expect(ext).toMatchObject({ exitCode: 1 });
      expect(ext.stderr).toContain("holds an ext file system");
      expect(existsSync(join(disk.folder, "vm2"))).toBe(false);
      expectSuccess(await disk.run("init", ...again, "--force"));
    },
  );
});

// --- internal ---

function expectSuccess(result: CommandResult): CommandResult {
  expect(result).toMatchObject({ exitCode: 0, isTimedOut: false });
  return result;
}

/** What a guest reads is the image, then zeros to the end of a page. The guest of these tests holds up a source in their process. */
async function expectFilled(
  disk: NewDisk,
  image: Uint8Array,
  how: "by reads" | "by itself" = "by reads",
): Promise<void> {
  await using backend = await disk.serve();
  if (how === "by itself") {
    const rpcPath = join(disk.place, "rpc.sock");
    await until("everything is fetched", async () => {
      const { status } = (await ask(rpcPath, "status")) as LazyStatus; // a missing key fails below
      return status.stripes.fetched === status.stripes.source;
    });
  }
  const expected = new Uint8Array(8 * MIB);
  expected.set(image);
  {
    using guest = new LazyGuest({ files: { folder: disk.place } });
    const length = Math.ceil(image.length / 4096) * 4096;
    expectSame(guest.read(0, length), expected.slice(0, length));
  }
  expect(await backend.stop()).toBe(0);
}

/** No byte of it is like its neighbours; the same in every run. */
function noise(sizeBytes: number): Uint8Array {
  return Uint8Array.from({ length: sizeBytes }, (_, i) => Math.imul(i, 2_654_435_761) >>> 13);
}

function startInit(disk: NewDisk, ...flags: readonly string[]) {
  const process = Bun.spawn([EXECUTABLE, "init", "--size", "8M", "--dir", disk.place, ...flags], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
    env: { ...Bun.env, UBIBLK_LOG: "info" },
  });
  /** Its line in the log says so. */
  const waits = async () => {
    for await (const part of process.stderr) {
      if (new TextDecoder().decode(part).includes("waiting for")) {
        return;
      }
    }
  };
  return { process, waits };
}
