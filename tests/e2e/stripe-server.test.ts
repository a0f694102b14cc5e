/** `ubiblk stripe-server`: what it serves and how it answers, byte by byte, to clients of other code. */
import { describe, expect, test } from "bun:test";
import { createCipheriv, createHash } from "node:crypto";
import { truncateSync } from "node:fs";
import { runCommand } from "../../scripts/command.ts";
import { EXECUTABLE, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { MetadataDisk, metadataFile } from "../support/metadata-disk.ts";
import { skipUnlessInstalled } from "../support/requires.ts";
import {
  RawClient,
  type RunningServer,
  readRequest,
  startStripeServer,
} from "../support/stripe-server.ts";
import { until } from "../support/until.ts";

/** Stripes of 2^6 sectors. */
const SHIFT = 6;
const STRIPE = 2 ** SHIFT * 512;
const FETCHED = 1;
const WRITTEN = 2;
const HAS_SOURCE = 4;
const LISTEN = `[server]\naddress = "127.0.0.1:0"\nunix_socket = "server.sock"\n`;
const PLAIN = "[danger_zone]\nenabled = true\nallow_unencrypted_connection = true\n";
const SECRET = "a secret of more than 16 bytes";
const TLS = `psk = { identity = "client-7", secret.ref = "psk" }\n[secrets.psk]\nsource.inline = "${SECRET}"\n`;
const TLS_DANGER = "[danger_zone]\nenabled = true\nallow_inline_plaintext_secrets = true\n";

describe("the protocol", () => {
  test("every request has its answer, byte by byte", async () => {
    using disk = servedDisk([WRITTEN, HAS_SOURCE | FETCHED, HAS_SOURCE, 0], { isTracked: true });
    await using server = await serve(disk);
    using client = await RawClient.connect(server.port);
    client.send(0x02);
    expect((await client.take(5)).toString("hex")).toBe("0001000000");
    client.send(0x00);
    const blob = metadataFile(
      { stripeShift: SHIFT, stripeCount: 4 },
      Uint8Array.of(WRITTEN, HAS_SOURCE | FETCHED, HAS_SOURCE, 0),
      1024,
    );
    expect((await client.take(9)).toString("hex")).toBe("000004000000000000");
    expect((await client.take(1024)).equals(Buffer.from(blob))).toBe(true);
    client.send(0x10, 0x12);
    expect((await client.take(5)).toString("hex")).toBe("0003000000");
    const digest = createHash("sha256").update(blob).digest("hex");
    expect((await client.take(33)).toString("hex")).toBe(`00${digest}`);
    client.send(0xaa, readRequest(4), readRequest(2n ** 64n - 1n), readRequest(3));
    expect((await client.take(4)).toString("hex")).toBe("fe010102");
    expect(await stripeOf(client, 0)).toEqual(contentOf(disk, "disk.raw", 0));
    expect(await stripeOf(client, 1)).toEqual(contentOf(disk, "disk.raw", 1));
    client.send(0x02);
    expect((await client.take(5)).toString("hex")).toBe("0001000000");
  });

  test("a stripe that is not fetched yet comes from the source, whatever the disk holds there", async () => {
    using disk = servedDisk([WRITTEN, HAS_SOURCE | WRITTEN, HAS_SOURCE, 0], {});
    await using server = await serve(disk);
    using client = await RawClient.connect(server.port);
    expect(await stripeOf(client, 1)).toEqual(contentOf(disk, "image.raw", 1));
    expect(await stripeOf(client, 2)).toEqual(contentOf(disk, "image.raw", 2));
    expect(await stripeOf(client, 0)).toEqual(contentOf(disk, "disk.raw", 0));
  });

  test("a sparse read of zeros is one byte, and of data a whole stripe", async () => {
    using disk = servedDisk([WRITTEN, WRITTEN, WRITTEN, WRITTEN], {});
    const content = disk.bytesOf("disk.raw");
    content.fill(0, STRIPE, 2 * STRIPE);
    disk.write("disk.raw", content);
    await using server = await serve(disk);
    using client = await RawClient.connect(server.port);
    client.send(readRequest(1, 0x11), readRequest(0, 0x11), readRequest(1));
    expect((await client.take(1)).toString("hex")).toBe("10");
    await expectStripe(client, content.subarray(0, STRIPE));
    await expectStripe(client, new Uint8Array(STRIPE));
  });

  test("requests that are sent all at once are answered in their order", async () => {
    using disk = servedDisk([WRITTEN, WRITTEN, WRITTEN, WRITTEN], {});
    await using server = await serve(disk);
    using client = await RawClient.connect(disk.file("server.sock"));
    for (let i = 0; i < 1000; i++) {
      client.send(readRequest(i % 5));
    }
    client.endSending();
    for (let i = 0; i < 1000; i++) {
      if (i % 5 === 4) {
        expect((await client.take(1))[0]).toBe(0x01);
      } else {
        await expectStripe(client, contentOf(disk, "disk.raw", i % 5));
      }
    }
    expect((await client.rest()).length).toBe(0);
    expect(server.isRunning()).toBe(true);
  });

  test("a disk that cannot be read ends the session with ff, and no other", async () => {
    using disk = servedDisk([WRITTEN, WRITTEN, WRITTEN, WRITTEN], {});
    await using server = await serve(disk);
    using other = await RawClient.connect(server.port);
    expect(await stripeOf(other, 0)).toEqual(contentOf(disk, "disk.raw", 0));
    truncateSync(disk.file("disk.raw"), STRIPE);
    using client = await RawClient.connect(server.port);
    client.send(readRequest(0), readRequest(2), readRequest(0));
    const whole = await client.rest();
    expect(whole.length).toBe(9 + STRIPE + 1);
    expect(whole.at(-1)).toBe(0xff);
    expect(await stripeOf(other, 0)).toEqual(contentOf(disk, "disk.raw", 0));
    expect(server.log()).toContain("stripe 2 cannot be read");
  });
});

describe("what is served", () => {
  test("without tracking, stripes outside of the source are data; with it they are holes", async () => {
    using disk = servedDisk([0, HAS_SOURCE | FETCHED, HAS_SOURCE, 0], {});
    {
      await using server = await serve(disk);
      using client = await RawClient.connect(server.port);
      expect(await flagsOf(client, 4)).toEqual([
        WRITTEN,
        HAS_SOURCE | FETCHED,
        HAS_SOURCE,
        WRITTEN,
      ]);
      expect(await stripeOf(client, 3)).toEqual(contentOf(disk, "disk.raw", 3));
    }
    configure(disk, { isTracked: true });
    await using server = await serve(disk);
    using client = await RawClient.connect(server.port);
    client.send(readRequest(3));
    expect((await client.take(1))[0]).toBe(0x02);
  });

  test("a disk without metadata: stripes of 1 MiB, all of them there, zeros behind the end", async () => {
    using disk = new MetadataDisk({ diskBytes: 0, metadataPath: null });
    const content = pattern(3 * 512 + 2 ** 20, 1);
    disk.write("disk.raw", content);
    await using server = await serve(disk);
    using client = await RawClient.connect(server.port);
    expect(await flagsOf(client, 2)).toEqual([7, 7]);
    client.send(readRequest(1));
    const expected = Buffer.alloc(2 ** 20);
    content.copy(expected, 0, 2 ** 20);
    await expectStripe(client, expected);
  });

  test("an encrypted disk is served in the clear, zeros behind its end as well", async () => {
    using disk = new MetadataDisk({ diskBytes: 0, metadataPath: null, isEncrypted: true });
    const content = pattern(5 * 512, 9);
    disk.write("plain", content);
    const { exitCode } = await disk.run("xts", "--action", "encode", "plain", "disk.raw");
    expect(exitCode).toBe(0);
    await using server = await serve(disk);
    using client = await RawClient.connect(server.port);
    const expected = Buffer.alloc(2 ** 20);
    content.copy(expected);
    client.send(readRequest(0));
    await expectStripe(client, expected);
  });

  test("stripes to be fetched and no source: refused with advice", async () => {
    using disk = servedDisk([HAS_SOURCE, 0, 0, 0], {});
    configure(disk, { hasSource: false });
    const result = await refused(disk, "-f", "disk.toml");
    expect(result.stderr).toContain("error E_STRIPE_SOURCE:");
    expect(result.stderr).toContain("no stripe_source is configured");
  });

  test("a disk that another program serves is refused, and served only to one at a time", async () => {
    using disk = servedDisk([WRITTEN, WRITTEN, WRITTEN, WRITTEN], {});
    await using server = await serve(disk);
    const backend = await runCommand([EXECUTABLE, "init-metadata", "-f", "disk.toml", "--force"], {
      cwd: disk.folder,
    });
    expect(backend.exitCode).toBe(1);
    expect(backend.stderr).toContain(`in use by process ${server.pid}`);
  });

  test("a disk that a backend serves is refused, naming the backend", async () => {
    using disk = new MetadataDisk({ diskBytes: 2 ** 20, metadataPath: null });
    const files = writeDiskConfig({
      folder: disk.folder,
      isEncrypted: false,
      dataPath: disk.file("disk.raw"),
    });
    await using backend = await startUbiblk(files);
    const result = await refused(disk, "-f", files.configPath);
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain("error E_DISK_LOCKED:");
    expect(result.stderr).toContain(`process ${backend.pid}`);
  });

  test("metadata of another disk is refused", async () => {
    using disk = servedDisk([WRITTEN, WRITTEN, WRITTEN, WRITTEN], {});
    truncateSync(disk.file("disk.raw"), 6 * STRIPE);
    const result = await refused(disk, "-f", "disk.toml");
    expect(result.stderr).toContain("error E_METADATA_SIZE:");
  });
});

describe("disks of version 0.2", () => {
  const KEY = Buffer.alloc(32, 7);
  const NONCE = Buffer.alloc(12, 9);
  const SHIFT_1MIB = 11;

  test("old metadata are served in the form of today, their disk by a YAML file with wrapped keys", async () => {
    const content = pattern(3 * 2 ** 20, 4);
    using disk = new MetadataDisk({ diskBytes: 0, metadataPath: null, isEncrypted: true });
    disk.write("plain", content);
    await disk.run("xts", "--action", "encode", "plain", "disk.raw");
    disk.write("plain-meta", oldMetadata(SHIFT_1MIB, [1, 0, 3]));
    await disk.run("xts", "--action", "encode", "plain-meta", "meta");
    disk.write("image.raw", pattern(3 * 2 ** 20, 5));
    const [first, second] = [0, 32].map((start) => wrap(keyBytes(start)));
    disk.write(
      "old.yaml",
      `path: disk.raw\nimage_path: image.raw\nmetadata_path: meta\nsomething_else: [1, 2]\nencryption_key:\n  - ${first}\n  - ${second}\n`,
    );
    const kek = `key: ${KEY.toString("base64")}\ninit_vector: ${NONCE.toString("base64")}\n`;
    disk.write("kek.yaml", `method: aes256-gcm\n${kek}auth_data: ${btoa("authdata")}\n`);
    disk.write("listen.toml", LISTEN + PLAIN);
    await using server = await startStripeServer(disk.folder, [
      ...["--listen-config", "listen.toml", "-f", "old.yaml"],
      ...["--legacy", "--legacy-kek", "kek.yaml"],
    ]);
    using client = await RawClient.connect(server.port);
    expect(await flagsOf(client, 3)).toEqual([WRITTEN, HAS_SOURCE, WRITTEN]);
    client.send(readRequest(0), readRequest(1), readRequest(2));
    await expectStripe(client, content.subarray(0, 2 ** 20));
    await expectStripe(client, disk.bytesOf("image.raw").subarray(2 ** 20, 2 ** 21));
    await expectStripe(client, content.subarray(2 ** 21));
  });

  test("old metadata are found without --legacy as well", async () => {
    using disk = new MetadataDisk({ diskBytes: 2 ** 21 });
    disk.write("meta", oldMetadata(SHIFT_1MIB, [1, 1]));
    await using server = await serve(disk);
    using client = await RawClient.connect(server.port);
    expect(await flagsOf(client, 2)).toEqual([WRITTEN, WRITTEN]);
  });

  test.each([
    { what: "a key that is not authentic", kek: Buffer.alloc(32, 8), says: "not authentic" },
    { what: "a key that is too short", kek: Buffer.alloc(31), says: "32 bytes in base64" },
  ])("$what is refused, and shown nowhere", async ({ kek, says }) => {
    using disk = new MetadataDisk({ diskBytes: 2 ** 20 });
    disk.write(
      "old.yaml",
      `path: disk.raw\nencryption_key: [${wrap(keyBytes(0))}, ${wrap(keyBytes(32))}]\n`,
    );
    const nonce = `init_vector: ${NONCE.toString("base64")}\nauth_data: ${btoa("authdata")}\n`;
    disk.write("kek.yaml", `method: aes256-gcm\nkey: ${kek.toString("base64")}\n${nonce}`);
    const flags = ["-f", "old.yaml", "--legacy", "--legacy-kek", "kek.yaml"];
    const result = await refused(disk, ...flags);
    expect(result.stderr).toContain(says);
    expect(result.stderr).not.toContain(kek.toString("base64"));
  });

  function wrap(key: Buffer): string {
    const cipher = createCipheriv("aes-256-gcm", KEY, NONCE);
    cipher.setAAD(Buffer.from("authdata"));
    const content = Buffer.concat([cipher.update(key), cipher.final()]);
    return Buffer.concat([content, cipher.getAuthTag()]).toString("base64");
  }

  /** Of the key that encrypted disks of these tests have. */
  function keyBytes(start: number): Buffer {
    return Buffer.from(Array.from({ length: 32 }, (_, i) => start + i));
  }

  function oldMetadata(shift: number, flags: readonly number[]): Uint8Array {
    const file = new Uint8Array(1024);
    file.set(new TextEncoder().encode("BDEV_UBI"));
    file[13] = shift;
    file.set(flags, 512);
    return file;
  }
});

describe("TLS", () => {
  const whenInstalled = skipUnlessInstalled("openssl");

  whenInstalled(
    "openssl's client is served; other identities end only their own session",
    async () => {
      using disk = servedDisk([WRITTEN, WRITTEN, WRITTEN, WRITTEN], {});
      await using server = await serve(disk, LISTEN + TLS + TLS_DANGER);
      for (const identity of ["client-8", "c", "client-77", "x".repeat(200)]) {
        const failed = await openssl(server.port, identity, SECRET, [0x02], 5);
        expect(failed.length).toBe(0);
      }
      expect((await openssl(server.port, "client-7", "another secret", [0x02], 5)).length).toBe(0);
      const answer = await openssl(server.port, "client-7", SECRET, readRequest(2), 9 + STRIPE);
      expect(answer.subarray(9).equals(contentOf(disk, "disk.raw", 2))).toBe(true);
      expect(server.isRunning()).toBe(true);
      expect(server.log()).toContain("the handshake failed: TLS:");
      expect(server.log()).not.toContain(SECRET);
    },
  );

  whenInstalled("a client that says its last word with its request is answered", async () => {
    using disk = servedDisk([WRITTEN, WRITTEN, WRITTEN, WRITTEN], {});
    await using server = await serve(disk, LISTEN + TLS + TLS_DANGER);
    const psk = Buffer.from(SECRET).toString("hex");
    const child = Bun.spawn(
      [
        ...["openssl", "s_client", "-connect", `127.0.0.1:${server.port}`, "-tls1_2", "-quiet"],
        ...["-psk", psk, "-psk_identity", "client-7", "-no_ign_eof"],
      ],
      { stdin: Uint8Array.of(0x02), stdout: "ignore", stderr: "ignore", timeout: 10_000 },
    );
    await child.exited; // at the end of its input, without a look at the answer
    await until("the line", () => server.log().includes("disconnected"));
    expect(server.log()).toContain('disconnected why="the client left" answers=1');
  });

  whenInstalled(
    "a client in the clear gets nothing, and a silent one is dropped in time",
    async () => {
      using disk = servedDisk([WRITTEN, WRITTEN, WRITTEN, WRITTEN], {});
      await using server = await serve(
        disk,
        `${LISTEN}connect_timeout_ms = 300\n${TLS}${TLS_DANGER}`,
      );
      using clear = await RawClient.connect(server.port);
      clear.send(new Uint8Array(64).fill(0x02));
      expect((await clear.rest()).includes(Buffer.from("0001000000", "hex"))).toBe(false);
      const beginMs = performance.now();
      using silent = await RawClient.connect(server.port);
      expect((await silent.rest()).length).toBe(0);
      expect(performance.now() - beginMs).toBeWithin(290, 3000);
      // The line may come behind the end of the connection.
      await until("the line", () => server.log().includes("the handshake took too long"));
    },
  );
});

describe("flags and documents", () => {
  test.each([
    { flags: ["-f", "x", "--legacy-kek", "k"], says: "--legacy-kek requires --legacy" },
    { flags: ["-f", "x", "--archive", "k"], says: "--archive stands instead of" },
    { flags: [], says: "-f, --config: missing" },
  ])("$flags: wrong usage", async ({ flags, says }) => {
    using disk = new MetadataDisk({ diskBytes: 2 ** 20 });
    const result = await refused(disk, ...flags);
    expect(result.exitCode).toBe(2);
    expect(result.stderr).toContain(says);
  });

  test("an address that is taken, and one beyond this host without a key, are told of", async () => {
    using disk = new MetadataDisk({ diskBytes: 2 ** 20, metadataPath: null });
    await using server = await serve(disk, `[server]\naddress = "0.0.0.0:0"\n${PLAIN}`);
    expect(server.log()).toContain("no psk: whoever reaches this address can read the disk");
    disk.write("listen.toml", `[server]\naddress = "127.0.0.1:${server.port}"\n${PLAIN}`);
    const result = await runCommand(
      [EXECUTABLE, "stripe-server", "-f", "disk.toml", "--listen-config", "listen.toml"],
      { cwd: disk.folder, timeoutMs: 20_000 },
    );
    expect(result.stderr).toContain("error E_SOCKET_IN_USE:");
  });

  test("an address that this host does not have is told as such", async () => {
    using disk = new MetadataDisk({ diskBytes: 2 ** 20, metadataPath: null });
    disk.write("listen.toml", `[server]\naddress = "192.0.2.1:7777"\n${PLAIN}`); // TEST-NET-1 of RFC 5737
    const result = await runCommand(
      [EXECUTABLE, "stripe-server", "-f", "disk.toml", "--listen-config", "listen.toml"],
      { cwd: disk.folder, timeoutMs: 20_000 },
    );
    expect(result.stderr).toContain(
      "cannot listen at 192.0.2.1:7777: EADDRNOTAVAIL (this host has no such address)",
    );
  });
});

/** A disk of four stripes with these flags, an image that differs from it, and its documents. */
function servedDisk(flags: readonly number[], options: Configuration): MetadataDisk {
  const disk = new MetadataDisk({ diskBytes: 0 });
  disk.write("disk.raw", pattern(4 * STRIPE, 1));
  disk.write("image.raw", pattern(4 * STRIPE, 2));
  const header = { stripeShift: SHIFT, stripeCount: flags.length };
  disk.write("meta", metadataFile(header, Uint8Array.from(flags), 1024));
  configure(disk, options);
  return disk;
}

interface Configuration {
  readonly isTracked?: boolean;
  readonly hasSource?: boolean;
}

function configure(disk: MetadataDisk, { isTracked = false, hasSource = true }: Configuration) {
  const source = hasSource ? '[stripe_source]\ntype = "raw"\nimage_path = "image.raw"\n' : "";
  disk.write(
    "disk.toml",
    `[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\ntrack_written = ${isTracked}\n${source}` +
      "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n",
  );
}

function serve(disk: MetadataDisk, listen = LISTEN + PLAIN): Promise<RunningServer> {
  disk.write("listen.toml", listen);
  return startStripeServer(disk.folder, ["-f", "disk.toml", "--listen-config", "listen.toml"]);
}

function refused(disk: MetadataDisk, ...flags: readonly string[]) {
  disk.write("listen.toml", LISTEN + PLAIN);
  return runCommand([EXECUTABLE, "stripe-server", "--listen-config", "listen.toml", ...flags], {
    cwd: disk.folder,
    timeoutMs: 20_000,
  });
}

/** Not periodic in anything that matters here. */
function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) {
    bytes[i] = (i * 31 + (i >>> 9) * 7 + seed * 101) & 0xff;
  }
  return bytes;
}

function contentOf(disk: MetadataDisk, file: string, stripe: number): Buffer {
  return disk.bytesOf(file).subarray(stripe * STRIPE, (stripe + 1) * STRIPE);
}

async function stripeOf(client: RawClient, stripe: number): Promise<Buffer> {
  client.send(readRequest(stripe));
  const head = await client.take(9);
  expect(head.toString("hex")).toBe("000080000000000000"); // 32768
  return Buffer.from(await client.take(STRIPE));
}

async function expectStripe(client: RawClient, content: Uint8Array): Promise<void> {
  const head = Buffer.alloc(9);
  head.writeBigUInt64LE(BigInt(content.length), 1);
  expect((await client.take(9)).equals(head)).toBe(true);
  expect((await client.take(content.length)).equals(content)).toBe(true);
}

async function flagsOf(client: RawClient, count: number): Promise<readonly number[]> {
  client.send(0x00);
  const size = Number((await client.take(9)).readBigUInt64LE(1));
  return [...(await client.take(size)).subarray(512, 512 + count)];
}

/** Sends bytes through `openssl s_client`, and returns at most so many of the answer. */
async function openssl(
  port: number,
  identity: string,
  secret: string,
  request: Uint8Array | readonly number[],
  count: number,
): Promise<Buffer> {
  const psk = Buffer.from(secret).toString("hex");
  const child = Bun.spawn(
    [
      ...["openssl", "s_client", "-connect", `127.0.0.1:${port}`, "-tls1_2", "-quiet"],
      ...["-psk", psk, "-psk_identity", identity, "-cipher", "PSK-AES256-GCM-SHA384"],
    ],
    { stdin: "pipe", stdout: "pipe", stderr: "ignore" },
  );
  const timer = setTimeout(() => child.kill(), 10_000);
  child.stdin.write(Uint8Array.from(request));
  child.stdin.flush();
  const received: Uint8Array[] = [];
  let length = 0;
  for await (const piece of child.stdout) {
    received.push(piece);
    length += piece.length;
    if (length >= count) {
      break;
    }
  }
  clearTimeout(timer);
  child.kill();
  await child.exited;
  return Buffer.concat(received);
}
