/** A client of stripe servers against servers whose answers are made by hand, good ones and others. */
import { afterEach, expect, test } from "bun:test";
import { UbiError } from "../../src/errors.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { RemoteClient } from "../../src/remote/remote-client.ts";
import { parseServerAddress } from "../../src/remote/server-address.ts";
import {
  metadataOf,
  ScriptedServer,
  type ServerScript,
  STRIPE_BYTES,
  sized,
  stripeData,
} from "../support/scripted-server.ts";

/** FETCHED of a source stripe, WRITTEN, nothing, HAS_SOURCE only. */
const FLAGS = [0x05, 0x02, 0x00, 0x04];
/** With servers that are silent or slow; with others a busy machine has its time. */
const TIMEOUT_MS = 300;
const PATIENCE_MS = 20_000;
const STALE = 0xdb;

const arena = new Arena(4096 + STRIPE_BYTES);
const buffer = arena.bytes(STRIPE_BYTES);
let server: ScriptedServer | undefined;

afterEach(() => {
  server?.[Symbol.dispose]();
  server = undefined;
});

test("connection to a server of the old kind: metadata are known, stripes come whole", async () => {
  using client = await connect({ flags: FLAGS });
  expect([...client.disk.flags]).toEqual(FLAGS);
  expect(client.disk.stripeShift).toBe(3);
  expect(await client.read(1, buffer.address)).toBe(0);
  expect(buffer.view).toEqual(stripeData(1));
  expect(opcodes()).toEqual([0x02, 0x10, 0x00, 0x01]);
});

test("connection to a server with sparse reads: used, and zeros take no data", async () => {
  const isHole = (stripe: number) => stripe === 1;
  using client = await connect({
    flags: FLAGS,
    isNew: true,
    answer: ({ stripe }) => (isHole(stripe) ? Uint8Array.of(0x10) : undefined),
  });
  expect(await client.read(1, buffer.address)).toBe(0);
  expect(buffer.view).toEqual(new Uint8Array(STRIPE_BYTES));
  expect(await client.read(0, buffer.address)).toBe(0);
  expect(buffer.view).toEqual(stripeData(0));
  expect(opcodes().slice(-2)).toEqual([0x11, 0x11]);
});

test("a read that is aborted: the connection is gone, and the memory stays as it is", async () => {
  using client = await connect({
    flags: FLAGS,
    answer: ({ opcode }) => (opcode === 0x01 ? new Uint8Array(0) : undefined),
  });
  const abort = new AbortController();
  const reading = client.read(1, buffer.address, abort.signal);
  await Bun.sleep(20);
  abort.abort(new Error("enough"));
  expect(reading).rejects.toThrow("enough");
  await reading.catch(() => {});
  expect(client.isEnded).toBe(true);
});

test.each([
  [0x01, 9],
  [0x02, 2],
  [0x03, 3],
])("status %p to a read: told, and the connection goes on", async (status, stripe) => {
  using client = await connect({
    flags: FLAGS,
    answer: (request) => (request.stripe === stripe ? Uint8Array.of(status) : undefined),
  });
  expect(await client.read(stripe, buffer.address)).toBe(status);
  expect(buffer.view[0]).toBe(STALE);
  expect(await client.read(1, buffer.address)).toBe(0);
  expect(buffer.view).toEqual(stripeData(1));
});

test.each([
  ["sends a stripe of another size", sized(new Uint8Array(512)), "size mismatch: expected 4096"],
  ["sends a stripe larger than can be", sized(new Uint8Array(9), 2 ** 54), "out of range"],
  ["sends more than was asked for", Buffer.concat([sized(stripeData(1)), Buffer.of(7)]), ""],
  ["fails", Uint8Array.of(0xff), "status 0xff (the server failed)"],
  ["answers what no read is answered", Uint8Array.of(0x10), "status 0x10"],
  ["has forgotten a request it knows", Uint8Array.of(0xfe), "status 0xfe"],
])("a server that %s: the connection is given up", async (_what, bytes, text) => {
  using client = await connect({
    flags: FLAGS,
    answer: ({ opcode }) => (opcode === 0x01 ? bytes : undefined),
  });
  const isWhole = text === "";
  if (isWhole) {
    await client.read(1, buffer.address);
  }
  const message = await messageOf(client.read(1, buffer.address));
  expect(message).toStartWith("E_REMOTE stripe server 127.0.0.1:");
  expect(message).toContain(isWhole ? "sent what nobody asked for" : text);
  expect(client.isEnded).toBe(true);
});

test("a server that closes in the middle of a stripe: an error, not a short stripe", async () => {
  let reads = 0;
  using client = await connect({
    flags: FLAGS,
    answer: ({ opcode }) => {
      reads += opcode === 0x01 ? 1 : 0;
      if (reads === 1) {
        setTimeout(() => server?.dropAll(), 30);
        return sized(stripeData(1).subarray(0, 1000), STRIPE_BYTES);
      }
      return undefined;
    },
  });
  expect(await messageOf(client.read(1, buffer.address))).toStartWith("E_REMOTE ");
});

test("a server that closes an idle connection: told by the next read", async () => {
  using client = await connect({ flags: FLAGS });
  server?.dropAll();
  await Bun.sleep(20);
  expect(await messageOf(client.read(1, buffer.address))).toStartWith("E_REMOTE ");
  expect(client.isEnded).toBe(true);
});

test("a server that is silent: given up after the operation's time", async () => {
  using client = await connect(
    {
      flags: FLAGS,
      answer: ({ opcode }) => (opcode === 0x01 ? new Uint8Array(0) : undefined),
    },
    TIMEOUT_MS,
  );
  const before = performance.now();
  const message = await messageOf(client.read(1, buffer.address));
  expect(message).toContain(`asked for stripe 1 and sent nothing for ${TIMEOUT_MS} ms`);
  expect(performance.now() - before).toBeGreaterThanOrEqual(TIMEOUT_MS);
});

test("a server that sends a byte now and then: given up as too slow", async () => {
  const trickle = setInterval(() => server?.trickle(), 50);
  using client = await connect(
    {
      flags: FLAGS,
      answer: ({ opcode }) =>
        opcode === 0x01 ? sized(new Uint8Array(1), STRIPE_BYTES) : undefined,
    },
    TIMEOUT_MS,
  );
  const before = performance.now();
  const message = await messageOf(client.read(1, buffer.address));
  clearInterval(trickle);
  expect(message).toContain("is too slow");
  expect(performance.now() - before).toBeLessThan(10 * TIMEOUT_MS);
});

test.each([
  ["does not know hello", 0x02, Uint8Array.of(0xfe), "too old"],
  ["speaks version 2", 0x02, Uint8Array.of(0, 2, 0, 0, 0), "speaks version 2"],
  ["fails at hello", 0x02, Uint8Array.of(0xff), "answered hello with status 0xff"],
  ["speaks TLS", 0x02, Uint8Array.of(0x15, 3, 3, 0, 2, 2, 40), "give both sides the same psk"],
  ["has too little metadata", 0x00, sized(new Uint8Array(511)), "too small"],
  [
    "has too much metadata",
    0x00,
    sized(new Uint8Array(1), 2 ** 26 + 1),
    "bytes, which exceeds maximum: at most",
  ],
  ["has metadata cut", 0x00, sized(new Uint8Array(513)), "not a multiple of 512"],
  [
    "has no metadata",
    0x00,
    sized(new Uint8Array(1024)),
    "it is empty; look after the disk where the server runs",
  ],
  ["says that it has no metadata", 0x00, Uint8Array.of(0x02), "answered metadata with status 0x02"],
  ["closes", 0x02, "close" as const, "closed the connection when asked for its version"],
  ["is silent", 0x00, new Uint8Array(0), "asked for its version and metadata and is too slow"],
])("connecting to a server that %s: refused", async (_what, opcode, bytes, text) => {
  const message = await messageOf(
    connect(
      {
        flags: FLAGS,
        answer: (request) => (request.opcode === opcode ? bytes : undefined),
      },
      text.includes("too slow") ? TIMEOUT_MS : PATIENCE_MS,
    ),
  );
  expect(message).toStartWith("E_REMOTE ");
  expect(message).toContain(text);
});

test("nobody listens: the message names the address and the reason", async () => {
  const port = new ScriptedServer({ flags: FLAGS });
  port[Symbol.dispose]();
  const message = await messageOf(open(port.address));
  expect(message).toStartWith("E_REMOTE Failed to connect to stripe server 127.0.0.1:");
  expect(message).toContain("ECONNREFUSED");
});

test("a server that turns clients away, since it is full, says nothing: the message tells what it may be", async () => {
  const full = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { open: (socket) => socket.terminate(), data: () => {} },
  });
  const message = await messageOf(open(`127.0.0.1:${full.port}`));
  full.stop(true);
  expect(message).toBe(
    `E_REMOTE stripe server 127.0.0.1:${full.port}: it closed the connection when asked for its version and ` +
      "metadata; give both sides the same psk, or none to both; or it may have max_connections clients",
  );
});

test("port 0 is nobody's: the message says where the port is told", async () => {
  expect(await messageOf(open("127.0.0.1:0"))).toBe(
    "E_REMOTE Failed to connect to stripe server 127.0.0.1:0: 127.0.0.1: ECONNREFUSED (connection refused); " +
      "port 0 stands for any free port: name the one that the server's log tells, or use its unix_socket",
  );
});

test("a host name: each of its addresses is tried", async () => {
  server = new ScriptedServer({ flags: FLAGS });
  using client = await open(`localhost:${server.port}`);
  expect(client.disk.stripeCount).toBe(4);
});

test("metadata of several groups: read as a whole", async () => {
  const flags = Array.from({ length: 3000 }, (_, i) => [0x04, 0x02, 0x00][i % 3] ?? 0);
  using client = await connect({ flags });
  expect([...client.disk.flags]).toEqual(flags);
  const digest = new Bun.CryptoHasher("sha256").update(metadataOf(flags)).digest("hex");
  expect(client.disk.identity.metadataDigest).toBe(digest);
});

async function connect(script: ServerScript, timeoutMs = PATIENCE_MS): Promise<RemoteClient> {
  buffer.view.fill(STALE);
  server = new ScriptedServer(script);
  return open(server.address, timeoutMs);
}

function open(address: string, timeoutMs = PATIENCE_MS): Promise<RemoteClient> {
  return RemoteClient.connect({
    address: parseServerAddress(address),
    tls: undefined,
    connectTimeoutMs: PATIENCE_MS,
    operationTimeoutMs: timeoutMs,
  });
}

function opcodes(): readonly number[] {
  return server?.opcodes ?? [];
}

async function messageOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof UbiError ? `${error.code} ${error.message}` : String(error);
  }
  return "no error";
}
