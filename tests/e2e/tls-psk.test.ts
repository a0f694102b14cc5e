/**
 * TLS with a pre-shared key against OpenSSL's own programs, against a wire that changes bytes, and against clients
 * that are made by hand; and two disks fetched over TLS at once.
 */
import { expect, test } from "bun:test";
import type { TCPSocketListener } from "bun";
import { ResolvedSecrets } from "../../src/config/resolve-secrets.ts";
import { Secret } from "../../src/config/secret.ts";
import { UbiError } from "../../src/errors.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { TlsContext } from "../../src/ffi/tls.ts";
import { RemoteClient } from "../../src/remote/remote-client.ts";
import { openRemoteSource } from "../../src/sources/remote-source.ts";
import { SourceReader } from "../../src/sources/source-reader.ts";
import { WorkerSource } from "../../src/sources/worker-source.ts";
import { freePort } from "../support/free-port.ts";
import { HandMadeTls } from "../support/hand-made-tls.ts";
import { MetadataDisk, metadataFile } from "../support/metadata-disk.ts";
import { skipUnlessInstalled } from "../support/requires.ts";
import { STRIPE_BYTES, stripeData, usualAnswer } from "../support/scripted-server.ts";
import { type RunningServer, startStripeServer } from "../support/stripe-server.ts";
import { until } from "../support/until.ts";

const IDENTITY = "client-7";
const SECRET = "0123456789abcdef";
const FLAGS = [0x05, 0x02, 0x00, 0x04];
const bytesOf = (text: string) => new TextEncoder().encode(text);
const withOpenssl = skipUnlessInstalled("openssl");

withOpenssl("openssl's server with the same key: metadata and stripes come through", async () => {
  await using server = await startOpenssl(SECRET);
  using client = await connect(server.port);
  expect([...client.disk.flags]).toEqual(FLAGS);
  using buffer = new Arena(STRIPE_BYTES);
  const { view, address } = buffer.bytes(STRIPE_BYTES);
  for (const stripe of [3, 1, 0]) {
    expect(await client.read(stripe, address)).toBe(0);
    expect(view).toEqual(stripeData(stripe));
  }
});

withOpenssl("openssl's server with another secret: the message says so", async () => {
  await using server = await startOpenssl("0123456789abcdeF");
  expect(await messageOf(connect(server.port))).toMatch(
    /^E_REMOTE_PSK Failed to connect to stripe server .*bad record mac; the secrets of psk differ$/,
  );
});

withOpenssl("openssl's server with another cipher only: the handshake fails", async () => {
  await using server = await startOpenssl(SECRET, ["-cipher", "ECDHE-PSK-AES256-CBC-SHA384"]);
  expect(await messageOf(connect(server.port))).toContain("handshake failure");
});

withOpenssl("a byte that changed on the way: found out, never passed on", async () => {
  await using server = await startOpenssl(SECRET);
  using proxy = new FlippingProxy(server.port);
  using client = await connect(proxy.port);
  proxy.flipNext(3000);
  using buffer = new Arena(STRIPE_BYTES);
  const { view, address } = buffer.bytes(STRIPE_BYTES);
  view.fill(0xdb);
  const message = await messageOf(client.read(1, address));
  expect(message).toStartWith("E_REMOTE stripe server 127.0.0.1:");
  expect(message).toContain("decryption failed or bad record mac");
  expect(view.every((byte) => byte === 0xdb)).toBe(true);
});

test("a server in the clear, and a client with a key: the message tells what to do", async () => {
  using plain = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket) => void socket.end(Uint8Array.of(0xfe)) },
  });
  expect(await messageOf(connect(plain.port))).toContain("give both sides the same psk");
});

test("identities of any length, also with NULs: refused with an alert, and the next client is served", async () => {
  using disk = servedDisk();
  await using server = await serve(disk);
  for (const length of [0, 1, 7, 8, 9, 127, 128, 129, 255, 256, 257, 300, 5000]) {
    const client = await HandMadeTls.connect(server.port);
    client.identify(new Uint8Array(length).fill(0x63));
    expect({ length, alert: await client.alert() }).toEqual({
      length,
      alert: length > 256 ? expect.any(Number) : UNKNOWN_PSK_IDENTITY,
    });
  }
  for (const name of ["client-\0", `${IDENTITY}\0`, `${IDENTITY}\0${IDENTITY}`, `\0${IDENTITY}`]) {
    const withNul = await HandMadeTls.connect(server.port);
    withNul.identify(bytesOf(name));
    expect({ name, alert: await withNul.alert() }).toEqual({ name, alert: UNKNOWN_PSK_IDENTITY });
  }
  using client = await connect(server.port);
  expect(client.disk.stripeCount).toBe(4);
  expect(server.isRunning()).toBe(true);
});

test("clients without TLS 1.2 or without the cipher: refused with an alert", async () => {
  using disk = servedDisk();
  await using server = await serve(disk);
  const withoutCipher = await HandMadeTls.connect(server.port, { ciphers: [0x00ae, 0x00ff] });
  expect(await withoutCipher.alert()).toBe(HANDSHAKE_FAILURE);
  const old = await HandMadeTls.connect(server.port, { version: 0x0302 });
  expect(await old.alert()).toBe(PROTOCOL_VERSION);
});

withOpenssl("openssl's client that wants to renegotiate: refused", async () => {
  using disk = servedDisk();
  await using server = await serve(disk);
  const child = Bun.spawn(opensslClient(server.port), { stdin: "pipe", stderr: "pipe" });
  child.stdin.write("R\n");
  child.stdin.flush();
  const timer = setTimeout(() => child.kill(), 30_000);
  const said = await new Response(child.stderr).text();
  clearTimeout(timer);
  expect(await child.exited).not.toBe(0);
  expect(said).toContain("no renegotiation");
});

test("two disks fetched over TLS at once, each in a thread of its own: all bytes are right", async () => {
  using disk = servedDisk();
  await using server = await serve(disk);
  const contents = disk.bytesOf("disk.raw");
  await using first = await openReader(server);
  await using second = await openReader(server);
  using memory = new Arena(2 * contents.length);
  const place = memory.bytes(2 * contents.length);
  for (let round = 0; round < 20; round++) {
    place.view.fill(0xdb);
    await Promise.all(
      [0, 1, 2, 3].flatMap((stripe) => [
        first.read(stripe, place.address + stripe * STRIPE, STRIPE),
        second.read(stripe, place.address + (4 + stripe) * STRIPE, STRIPE),
      ]),
    );
    expect(Buffer.compare(place.view.subarray(0, contents.length), contents)).toBe(0);
    expect(Buffer.compare(place.view.subarray(contents.length), contents)).toBe(0);
  }
});

/** RFC 4279, 5246. */
const UNKNOWN_PSK_IDENTITY = 115;
const HANDSHAKE_FAILURE = 40;
const PROTOCOL_VERSION = 70;
/** Of the disk that the executable serves: more than a record of TLS has room for. */
const STRIPE = 2 ** 9 * 512;

async function connect(port: number): Promise<RemoteClient> {
  using tls = new TlsContext("client", { identity: bytesOf(IDENTITY), secret: bytesOf(SECRET) });
  return await RemoteClient.connect({
    address: { kind: "tcp", host: "127.0.0.1", port },
    tls,
    connectTimeoutMs: 10_000,
    operationTimeoutMs: 10_000,
  });
}

async function openReader(server: RunningServer): Promise<SourceReader> {
  using secrets = new ResolvedSecrets(new Map([["psk", new Secret("psk", bytesOf(SECRET))]]));
  const source = await openRemoteSource(
    {
      address: `127.0.0.1:${server.port}`,
      psk: { identity: IDENTITY, secret: { ref: "psk" } },
      connectTimeoutMs: 10_000,
      operationAttemptTimeoutMs: 10_000,
      connections: 3,
    },
    secrets,
  );
  const workers = source.start({
    requestsMax: 4,
    onFailure: (message) => {
      throw new Error(message);
    },
  });
  return new SourceReader(new WorkerSource(workers.description), {
    name: source.name,
    requestsMax: 4,
    close: async () => {
      await workers.stop();
      await source[Symbol.asyncDispose]();
    },
  });
}

/** `openssl s_server` for one connection, whose other end is a stripe server made by hand. */
async function startOpenssl(secret: string, flags: readonly string[] = []) {
  const port = freePort();
  const psk = Buffer.from(secret).toString("hex");
  const child = Bun.spawn(
    [
      ...["openssl", "s_server", "-accept", `127.0.0.1:${port}`, "-nocert", "-quiet", "-tls1_2"],
      ...["-psk", psk, "-psk_identity", IDENTITY, ...flags],
    ],
    { stdin: "pipe", stdout: "pipe", stderr: "ignore" },
  );
  void answerRequests(child);
  await until("openssl listens", () => isListening(port));
  return {
    port,
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await child.exited;
    },
  };
}

async function answerRequests(child: Bun.Subprocess<"pipe", "pipe", "ignore">): Promise<void> {
  let received = Buffer.alloc(0);
  for await (const piece of child.stdout) {
    received = Buffer.concat([received, piece]);
    while (received.length > 0) {
      const opcode = received.readUInt8(0);
      const length = opcode === 0x01 ? 9 : 1;
      if (received.length < length) {
        break;
      }
      const stripe = length === 9 ? Number(received.readBigUInt64LE(1)) : -1;
      received = received.subarray(length);
      child.stdin.write(usualAnswer({ opcode, stripe, connection: 0 }, { flags: FLAGS }));
      child.stdin.flush();
    }
  }
}

function opensslClient(port: number): string[] {
  const psk = Buffer.from(SECRET).toString("hex");
  return [
    ...["openssl", "s_client", "-connect", `127.0.0.1:${port}`, "-tls1_2"],
    ...["-psk", psk, "-psk_identity", IDENTITY],
  ];
}

/** Looks without connecting: `s_server` serves one connection after another. */
async function isListening(port: number): Promise<boolean> {
  const table = await Bun.file("/proc/net/tcp").text();
  return table.includes(
    `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")} 00000000:0000 0A`,
  );
}

/** Passes bytes on, and changes one of them. */
class FlippingProxy implements Disposable {
  readonly port: number;
  readonly #listener: TCPSocketListener<undefined>;
  #flipAfter = -1;

  constructor(targetPort: number) {
    const clients: Bun.Socket<undefined>[] = [];
    const target = Bun.connect({
      hostname: "127.0.0.1",
      port: targetPort,
      socket: { data: (_socket, bytes) => void clients[0]?.write(this.#changed(bytes)) },
    });
    this.#listener = Bun.listen<undefined>({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open: (socket) => void clients.push(socket),
        data: async (_socket, bytes) => void (await target).write(bytes),
      },
    });
    this.port = this.#listener.port;
  }

  /** The byte that comes after so many more. */
  flipNext(after: number): void {
    this.#flipAfter = after;
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
  }

  #changed(bytes: Uint8Array): Uint8Array {
    const copy = Uint8Array.from(bytes);
    if (this.#flipAfter >= 0 && this.#flipAfter < copy.length) {
      copy[this.#flipAfter] = (copy[this.#flipAfter] ?? 0) ^ 1;
    }
    this.#flipAfter -= copy.length;
    return copy;
  }
}

function servedDisk(): MetadataDisk {
  const disk = new MetadataDisk({ diskBytes: 0 });
  const content = Buffer.alloc(4 * STRIPE);
  for (let i = 0; i < content.length; i += 4) {
    content.writeUInt32LE(Math.imul(i, 2_654_435_761) >>> 0, i);
  }
  disk.write("disk.raw", content);
  disk.write(
    "meta",
    metadataFile({ stripeShift: 9, stripeCount: 4 }, Uint8Array.of(2, 2, 2, 2), 1024),
  );
  disk.write(
    "disk.toml",
    '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\n' +
      "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n",
  );
  disk.write(
    "listen.toml",
    `[server]\naddress = "127.0.0.1:0"\npsk = { identity = "${IDENTITY}", secret.ref = "psk" }\n` +
      `[secrets.psk]\nsource.inline = "${SECRET}"\n` +
      "[danger_zone]\nenabled = true\nallow_inline_plaintext_secrets = true\n",
  );
  return disk;
}

function serve(disk: MetadataDisk): Promise<RunningServer> {
  return startStripeServer(disk.folder, ["-f", "disk.toml", "--listen-config", "listen.toml"]);
}

async function messageOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof UbiError ? `${error.code} ${error.message}` : String(error);
  }
  return "no error";
}
