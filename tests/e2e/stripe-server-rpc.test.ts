/** The RPC socket of the running stripe server: what it tells, and that it is in nobody's way. */
import { expect, test } from "bun:test";
import { existsSync, lstatSync, renameSync, writeFileSync } from "node:fs";
import packageJson from "../../package.json" with { type: "json" };
import { runCommand } from "../../scripts/command.ts";
import { EXECUTABLE } from "../support/backend.ts";
import { freePort } from "../support/free-port.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { HandMadeTls } from "../support/hand-made-tls.ts";
import { MetadataDisk, metadataFile } from "../support/metadata-disk.ts";
import { skipUnless } from "../support/requires.ts";
import { ask, converse, RpcClient } from "../support/rpc-client.ts";
import {
  RawClient,
  type RunningServer,
  readRequest,
  startStripeServer,
} from "../support/stripe-server.ts";
import { until } from "../support/until.ts";

const STRIPE = 2 ** 6 * 512;
const LISTEN = '[server]\naddress = "127.0.0.1:0"\nrpc_socket = "rpc.sock"\n';
const PLAIN = "[danger_zone]\nenabled = true\nallow_unencrypted_connection = true\n";
const SECRET = "a secret of more than 16 bytes";
const TLS =
  `psk = { identity = "client-7", secret.ref = "psk" }\n[secrets.psk]\nsource.inline = "${SECRET}"\n` +
  "[danger_zone]\nenabled = true\nallow_inline_plaintext_secrets = true\n";

/** Four stripes: written with data, written with zeros, not fetched from its image, a hole. */
function servedDisk(): MetadataDisk {
  const disk = new MetadataDisk({ diskBytes: 0 });
  const content = Buffer.alloc(4 * STRIPE, 0x61);
  content.fill(0, STRIPE, 2 * STRIPE);
  disk.write("disk.raw", content);
  disk.write("image.raw", Buffer.alloc(4 * STRIPE, 0x62));
  const header = { stripeShift: 6, stripeCount: 4 };
  disk.write("meta", metadataFile(header, Uint8Array.of(2, 2, 4, 0), 1024));
  disk.write(
    "disk.toml",
    '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\ntrack_written = true\n' +
      '[stripe_source]\ntype = "raw"\nimage_path = "image.raw"\n' +
      "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n",
  );
  return disk;
}

function serve(disk: MetadataDisk, listen: string): Promise<RunningServer> {
  disk.write("listen.toml", listen);
  return startStripeServer(disk.folder, ["-f", "disk.toml", "--listen-config", "listen.toml"]);
}

const noFuse = missingFuse();

skipUnless(noFuse ?? "", noFuse === undefined)(
  "an image that hangs: what is on the disk is served, and a stop waits a bounded time",
  async () => {
    using disk = servedDisk();
    renameSync(disk.file("image.raw"), disk.file("real.raw"));
    await using image = new FuseImage(disk.file("real.raw"), disk.file("image.raw"));
    const server = await serve(disk, LISTEN + PLAIN);
    using waiting = await RawClient.connect(server.port);
    image.halt();
    waiting.send(readRequest(2));
    using other = await RawClient.connect(server.port);
    other.send(readRequest(0));
    expect((await other.take(9 + STRIPE)).subarray(9).every((byte) => byte === 0x61)).toBe(true);
    const beginMs = performance.now();
    expect(await server.stop()).toBe(0);
    expect(performance.now() - beginMs).toBeWithin(9_000, 20_000); // answers under way get 10 s
  },
  60_000,
);

test("status, stats and clients tell what is served, what was done, and for whom", async () => {
  using disk = servedDisk();
  await using server = await serve(disk, `${LISTEN}unix_socket = "server.sock"\n${PLAIN}`);
  const rpc = disk.file("rpc.sock");
  expect(lstatSync(rpc).mode & 0o777).toBe(0o660);
  expect(await ask(rpc, "version")).toEqual({ version: packageJson.version });
  expect(await ask(rpc, "status")).toEqual({
    status: {
      draining: false,
      listeners: [`127.0.0.1:${server.port}`, "server.sock"],
      serves: "disk.raw",
      source_state: "open",
      stripe_bytes: STRIPE,
      stripes: { from_source: 1, total: 4 },
      tls: false,
      uptime_seconds: expect.any(Number),
    },
  });
  expect(await ask(rpc, "clients")).toEqual({ clients: [] });

  using client = await RawClient.connect(server.port);
  using local = await RawClient.connect(disk.file("server.sock"));
  client.send(0x02, 0x00, 0x10, 0x12, 0xaa, readRequest(0), readRequest(2), readRequest(3));
  client.send(readRequest(9), readRequest(1, 0x11));
  const bytes = 5 + (9 + 1024) + 5 + 33 + 1 + 2 * (9 + STRIPE) + 3;
  await client.take(bytes);
  local.send(0x02);
  await local.take(5);

  let stats: unknown;
  await until("it has counted what it sent", async () => {
    stats = recordOf(await ask(rpc, "stats")).stats;
    const { bytes_sent: sent, memory } = recordOf(stats);
    return Number(sent) >= bytes + 5 && recordOf(memory).in_use_bytes === 0;
  });
  expect(stats).toEqual({
    answers: {
      no_data: 1,
      not_fetched: 0,
      out_of_range: 1,
      server_error: 0,
      stripes: 2,
      unknown_opcode: 1,
      zero: 1,
    },
    bytes_sent: bytes + 5,
    connections: {
      accepted: 2,
      dropped: 0,
      handshake_failures: 0,
      open: 2,
      refused: 0,
      waiting_for_memory: 0,
    },
    memory: { in_use_bytes: 0, limit_bytes: 256 * STRIPE },
    requests: {
      features: 1,
      hello: 2,
      metadata: 1,
      metadata_digest: 1,
      read: 4,
      read_sparse: 1,
      unknown: 1,
    },
  });
  const { clients } = recordOf(await ask(rpc, "clients"));
  const common = { in_flight: 0, state: "serving", tls: false, idle_ms: expect.any(Number) };
  expect(clients).toEqual([
    {
      ...common,
      address: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      bytes_sent: bytes,
      requests: 10,
      since: expect.stringMatching(/^20.*Z$/),
    },
    {
      ...common,
      address: "server.sock",
      bytes_sent: 5,
      requests: 1,
      since: expect.stringMatching(/^20.*Z$/),
    },
  ]);
  client[Symbol.dispose]();
  await until(
    "one client",
    async () => JSON.stringify(await ask(rpc, "clients")).split("address").length === 2,
  );
});

test("source_state: retrying while the server of the source is away, open when it is back", async () => {
  using disk = servedDisk();
  const port = freePort();
  const origin = await serve(
    disk,
    `[server]\nunix_socket = "origin.sock"\naddress = "127.0.0.1:${port}"\n${PLAIN}`,
  );
  using copy = servedDisk();
  const remote = `type = "remote"\naddress = "127.0.0.1:${port}"\n`;
  const document = copy.bytesOf("disk.toml").toString();
  copy.write(
    "disk.toml",
    `${document.replace('type = "raw"\nimage_path = "image.raw"\n', remote)}allow_unencrypted_connection = true\n`,
  );
  await using server = await serve(copy, `${LISTEN}${PLAIN}`);
  const rpc = copy.file("rpc.sock");
  expect(await ask(rpc, "status")).toMatchObject({ status: { source_state: "open" } });
  await origin.stop();
  using client = await RawClient.connect(server.port);
  client.send(readRequest(2));
  await until("a retry", async () =>
    JSON.stringify(await ask(rpc, "status")).includes('"retrying"'),
  );
  disk.write("listen.toml", `[server]\naddress = "127.0.0.1:${port}"\n${PLAIN}`);
  const flags = ["-f", "disk.toml", "--listen-config", "listen.toml"];
  await using _again = await startStripeServer(disk.folder, flags);
  await until("an open source", async () =>
    JSON.stringify(await ask(rpc, "status")).includes('"open"'),
  );
  expect((await client.take(9 + STRIPE)).at(-1)).toBe(0x62);
});

test("commands of disks and wrong requests are errors with their codes, and the connection goes on", async () => {
  using disk = servedDisk();
  await using _server = await serve(disk, `${LISTEN}${PLAIN}`);
  const lines = '{"command":"queues"}\nnonsense\n{"command":"pause_fetch"}\n["version"]\n';
  const [first, second, third, last] = (await converse(disk.file("rpc.sock"), lines)).split("\n");
  expect(first).toBe('{"code":"E_RPC_COMMAND","error":"unknown command: queues"}');
  expect(second).toStartWith('{"code":"E_RPC_REQUEST","error":"invalid request: ');
  expect(third).toBe('{"code":"E_RPC_COMMAND","error":"unknown command: pause_fetch"}');
  expect(last).toBe(`{"version":"${packageJson.version}"}`);
});

test("over TLS: who is in the handshake is listed, a failed one is counted, and no secret is told", async () => {
  using disk = servedDisk();
  await using server = await serve(disk, `${LISTEN}${TLS}`);
  const rpc = disk.file("rpc.sock");
  using silent = await RawClient.connect(server.port);
  await until("a handshake", async () =>
    JSON.stringify(await ask(rpc, "clients")).includes('"handshake"'),
  );
  expect(await ask(rpc, "clients")).toMatchObject({ clients: [{ tls: true, requests: 0 }] });
  const stranger = await HandMadeTls.connect(server.port);
  stranger.identify(new TextEncoder().encode("client-7\0"));
  await stranger.alert();
  silent[Symbol.dispose]();
  await until("no connection", async () => (await connectionsOf(rpc)).open === 0);
  expect(await connectionsOf(rpc)).toMatchObject({
    accepted: 2,
    handshake_failures: 2,
    dropped: 0,
  });
  const all = ["status", "stats", "clients"].map((command) => JSON.stringify({ command }));
  const told = await converse(rpc, `${all.join("\n")}\n`);
  expect(told).not.toContain(SECRET);
  expect(told).not.toContain(Buffer.from(SECRET).toString("base64"));
});

test("clients that are turned away or dropped are counted", async () => {
  using disk = servedDisk();
  const few = "max_connections = 2\noperation_attempt_timeout_ms = 300\n";
  await using server = await serve(disk, `${LISTEN}${few}${PLAIN}`);
  const rpc = disk.file("rpc.sock");
  using slow = await RawClient.connect(server.port);
  using _other = await RawClient.connect(server.port);
  await until("two connections", async () => (await connectionsOf(rpc)).open === 2);
  using third = await RawClient.connect(server.port);
  await third.rest();
  slow.send(0x01); // the rest of the request does not come
  await slow.rest();
  await until("one connection", async () => (await connectionsOf(rpc)).open === 1);
  expect(await connectionsOf(rpc)).toMatchObject({ accepted: 2, refused: 1, dropped: 1 });
});

test("clients that have their share and take nothing do not wait for memory while there is some", async () => {
  const stripeBytes = 2 ** 20;
  using disk = new MetadataDisk({ diskBytes: 0 });
  disk.write("disk.raw", Buffer.alloc(64 * stripeBytes));
  const fetched = new Uint8Array(64).fill(2);
  disk.write("meta", metadataFile({ stripeShift: 11, stripeCount: 64 }, fetched, 1024));
  disk.write(
    "disk.toml",
    '[device]\ndata_path = "disk.raw"\nmetadata_path = "meta"\ntrack_written = true\n' +
      "[danger_zone]\nenabled = true\nallow_unencrypted_disk = true\n",
  );
  await using server = await serve(disk, `${LISTEN}${PLAIN}`);
  using one = await RawClient.connect(server.port);
  using other = await RawClient.connect(server.port);
  for (const [n, client] of [one, other].entries()) {
    client.pause();
    client.send(...Array.from({ length: 32 }, (_, stripe) => readRequest(n * 32 + stripe)));
  }
  const used = async () => recordOf(recordOf(await ask(disk.file("rpc.sock"), "stats")).stats);
  await until(
    "memory in use",
    async () => Number(recordOf((await used()).memory).in_use_bytes) >= 30 * stripeBytes,
  );
  await Bun.sleep(100);
  const { connections, memory } = await used();
  expect(memory).toMatchObject({ limit_bytes: 64 * stripeBytes });
  expect(recordOf(memory).in_use_bytes).toBeLessThan(64 * stripeBytes);
  expect(connections).toMatchObject({ open: 2, waiting_for_memory: 0 });
});

test("an RPC client that reads nothing is in nobody's way", async () => {
  using disk = servedDisk();
  await using server = await serve(disk, `${LISTEN}${PLAIN}`);
  using stack = new DisposableStack();
  for (let i = 0; i < 8; i++) {
    const hung = stack.use(new RpcClient(disk.file("rpc.sock")));
    hung.stopReading();
    hung.send('{"command":"stats"}\n'.repeat(20_000));
  }
  using client = await RawClient.connect(server.port);
  for (let i = 0; i < 200; i++) {
    client.send(readRequest(0));
    expect((await client.take(9 + STRIPE)).at(-1)).toBe(0x61);
  }
  expect(await ask(disk.file("rpc.sock"), "version")).toEqual({ version: packageJson.version });
  expect(await server.stop()).toBe(0);
});

test("while the server drains the socket answers; it is removed at the end", async () => {
  using disk = servedDisk();
  await using server = await serve(disk, `${LISTEN}${PLAIN}`);
  const rpc = disk.file("rpc.sock");
  using client = await RawClient.connect(server.port);
  client.pause();
  for (let i = 0; i < 2000; i++) {
    client.send(readRequest(0));
  }
  await until("32 in flight", async () =>
    JSON.stringify(await ask(rpc, "clients")).includes('"in_flight":32'),
  );
  const { memory } = recordOf(recordOf(await ask(rpc, "stats")).stats);
  expect(recordOf(memory).in_use_bytes).toBeGreaterThan(0);
  const stopped = server.stop();
  await until("draining", async () =>
    JSON.stringify(await ask(rpc, "status")).includes('"draining":true'),
  );
  client[Symbol.dispose]();
  expect(await stopped).toBe(0);
  expect(existsSync(rpc)).toBe(false);
});

test("the socket of a killed server is replaced; that of a living one, and a file, are left alone", async () => {
  using disk = servedDisk();
  const rpc = disk.file("rpc.sock");
  const killed = await serve(disk, `${LISTEN}${PLAIN}`);
  process.kill(killed.pid, "SIGKILL");
  await killed[Symbol.asyncDispose]();
  expect(existsSync(rpc)).toBe(true);
  {
    await using _server = await serve(disk, `${LISTEN}${PLAIN}`);
    expect(await ask(rpc, "version")).toEqual({ version: packageJson.version });
    const second = await start(disk);
    expect(second).toMatchObject({ exitCode: 1 });
    expect(second.stderr).toContain("error E_SOCKET_IN_USE: cannot start RPC at server.rpc_socket");
    expect(second.stderr).not.toContain("listening on");
    expect(await ask(rpc, "version")).toEqual({ version: packageJson.version });
  }
  expect(existsSync(rpc)).toBe(false);
  writeFileSync(rpc, "somebody's");
  expect((await start(disk)).stderr).toContain("error E_SOCKET_NOT_OURS");
  expect(await Bun.file(rpc).text()).toBe("somebody's");
});

test("top says what the socket is of", async () => {
  using disk = servedDisk();
  await using _server = await serve(disk, `${LISTEN}${PLAIN}`);
  const words = ["top", "--once", "--interval", "0.1", "--json", disk.file("rpc.sock")];
  const result = await runCommand([EXECUTABLE, ...words]);
  expect(result).toMatchObject({ exitCode: 1 });
  expect(result.stdout).toContain("a stripe server, which has no queues");
  const text = await runCommand([EXECUTABLE, ...words.filter((word) => word !== "--json")]);
  expect(text.stdout).toContain("a stripe server");
  expect(text.stderr).toEndWith("ask its socket for stats and clients\n");
});

function start(disk: MetadataDisk) {
  const flags = ["-f", "disk.toml", "--listen-config", "listen.toml"];
  return runCommand([EXECUTABLE, "stripe-server", ...flags], { cwd: disk.folder });
}

async function connectionsOf(rpc: string): Promise<Readonly<Record<string, unknown>>> {
  return recordOf(recordOf(recordOf(await ask(rpc, "stats")).stats).connections);
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) {
    throw new Error(`an object is expected: ${JSON.stringify(value)}`);
  }
  return Object.fromEntries(Object.entries(value));
}
