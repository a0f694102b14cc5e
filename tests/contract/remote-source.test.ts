/**
 * The source of type remote with its thread, against servers whose answers are made by hand: connections that are
 * lost, servers that go and come back, other disks at the same address.
 */
import { afterEach, expect, test } from "bun:test";
import { ResolvedSecrets } from "../../src/config/resolve-secrets.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { openRemoteSource } from "../../src/sources/remote-source.ts";
import { SourceReader } from "../../src/sources/source-reader.ts";
import type { SourceWorkers } from "../../src/sources/source-workers.ts";
import { WorkerSource } from "../../src/sources/worker-source.ts";
import { freePort } from "../support/free-port.ts";
import {
  ScriptedServer,
  type ServerScript,
  STRIPE_BYTES,
  sized,
  stripeData,
} from "../support/scripted-server.ts";
import { until } from "../support/until.ts";

const STRIPES = 40;
const REQUESTS_MAX = 8;
/** With a server that does not answer. */
const PATIENCE_MS = 10_000;
/** Every third stripe holds nothing; the last three neither. */
const FLAGS = Array.from({ length: STRIPES }, (_, stripe) =>
  stripe > 36 || stripe % 3 === 2 ? 0 : stripe % 3 === 0 ? 0x04 : 0x02,
);
const HELD = FLAGS.flatMap((flags, stripe) => (flags === 0 ? [] : [stripe]));

const arena = new Arena(STRIPES * STRIPE_BYTES);
const memory = arena.bytes(STRIPES * STRIPE_BYTES);
const open: AsyncDisposable[] = [];

afterEach(async () => {
  for (const each of open.splice(0).reverse()) {
    await each[Symbol.asyncDispose]();
  }
});

test("source: as large as its last stripe that holds data, and has what the server has", async () => {
  const { source } = await start({ flags: FLAGS });
  expect(source.sectors).toBe(37 * 8);
  const has = FLAGS.flatMap((_, stripe) => (source.has(stripe) ? [stripe] : []));
  expect(has).toEqual(HELD);
});

test.each([false, true])(
  "all stripes at once, new server %p: each comes to its place",
  async (isNew) => {
    const { reader } = await start({ flags: FLAGS, isNew });
    await Promise.all(HELD.map((stripe) => read(reader, stripe)));
    for (const stripe of HELD) {
      expect(placeOf(stripe)).toEqual(stripeData(stripe));
    }
  },
);

test("new server: further connections compare a digest and get no metadata", async () => {
  const { reader, server } = await start({ flags: FLAGS, isNew: true });
  await Promise.all(HELD.map((stripe) => read(reader, stripe)));
  expect(server.opcodes.filter((opcode) => opcode === 0x00)).toEqual([0x00]);
  expect(server.opcodes.filter((opcode) => opcode === 0x12).length).toBeGreaterThan(1);
});

test("connections that break off in the middle of a stripe: others take over", async () => {
  const { reader } = await start({
    flags: FLAGS,
    answer: ({ opcode, stripe, connection }, server) => {
      if (opcode !== 0x01 || connection % 2 === 0) {
        return undefined;
      }
      setTimeout(() => server.drop(connection), 5);
      return sized(stripeData(stripe).subarray(0, 700), STRIPE_BYTES);
    },
  });
  await Promise.all(HELD.map((stripe) => read(reader, stripe)));
  for (const stripe of HELD) {
    expect(placeOf(stripe)).toEqual(stripeData(stripe));
  }
});

test("a server that restarts: reads wait and succeed", async () => {
  const { reader, server } = await start({ flags: FLAGS });
  await read(reader, 0);
  server[Symbol.dispose]();
  const late = read(reader, 1);
  await Bun.sleep(100);
  using again = new ScriptedServer({ flags: FLAGS }, server.port);
  await late;
  expect(placeOf(1)).toEqual(stripeData(1));
  expect(again.connections).toBeGreaterThan(0);
});

test("a server that closed idle connections: dialled again by the next read only", async () => {
  const { reader, server } = await start({ flags: FLAGS });
  await read(reader, 0);
  // All have said what is said at the beginning, so all are idle.
  const greeted = () => server.opcodes.filter((opcode) => opcode === 0x00).length;
  await until("all connections are made", () => greeted() === 1 + CONNECTIONS);
  await Bun.sleep(50);
  server.closeAll();
  await Bun.sleep(700);
  const before = server.connections;
  expect(before).toBe(1 + CONNECTIONS);
  await read(reader, 1);
  expect(placeOf(1)).toEqual(stripeData(1));
  expect(server.connections).toBeGreaterThan(before);
});

test.each([
  ["other stripes hold data", [...FLAGS.slice(0, 30), 0x04, ...FLAGS.slice(31)].fill(0x06, 3, 4)],
  ["fewer stripes", FLAGS.slice(0, 38)],
])("after a restart %s: reads fail, nothing foreign is served", async (_what, flags) => {
  const { reader, server } = await start({ flags: FLAGS });
  await read(reader, 0);
  server[Symbol.dispose]();
  using foreign = new ScriptedServer({ flags }, server.port);
  expect(await outcome(read(reader, 1))).toContain("cannot read stripe 1");
  expect(foreign.opcodes).not.toContain(0x01);
});

test("after a restart stripes are fetched by now: it is the same disk", async () => {
  const { reader, server } = await start({ flags: FLAGS });
  server[Symbol.dispose]();
  using later = new ScriptedServer({ flags: FLAGS.map((flags) => flags | 1) }, server.port);
  await read(reader, 1);
  expect(placeOf(1)).toEqual(stripeData(1));
  expect(later.connections).toBeGreaterThan(0);
});

test.each([0x01, 0x02, 0x03, 0xff])(
  "status %p: that stripe fails, the others do not",
  async (status) => {
    const { reader } = await start({
      flags: FLAGS,
      answer: ({ stripe }) => (stripe === 4 ? Uint8Array.of(status) : undefined),
    });
    const ends = await Promise.all(HELD.map((stripe) => outcome(read(reader, stripe))));
    expect(ends.filter((end) => end !== "ok")).toEqual([expect.stringContaining("stripe 4")]);
  },
);

test("a server that fails at a stripe once or twice: it is asked again, and nobody notices", async () => {
  let failures = 2;
  const { reader, server } = await start({
    flags: FLAGS,
    answer: ({ opcode, stripe, connection }, self) => {
      if (opcode !== 0x01 || stripe !== 4 || failures === 0) {
        return undefined;
      }
      failures -= 1;
      self.say(connection, Uint8Array.of(0xff));
      return "close";
    },
  });
  await Promise.all(HELD.map((stripe) => read(reader, stripe)));
  expect(failures).toBe(0);
  expect(placeOf(4)).toEqual(stripeData(4));
  expect(server.connections).toBeGreaterThan(2);
});

test("after a restart with other metadata of the same disk: got once more, and not by every connection", async () => {
  const { reader, server } = await start({ flags: FLAGS, isNew: true });
  await read(reader, 0);
  server[Symbol.dispose]();
  const script = { flags: FLAGS.map((flags) => flags | 1), isNew: true };
  using later = new ScriptedServer(script, server.port);
  await read(reader, 1);
  await Bun.sleep(100);
  later.dropAll();
  await read(reader, 3);
  const got = later.opcodes.filter((opcode) => opcode === 0x00).length;
  later.dropAll();
  await read(reader, 4);
  expect(later.opcodes.filter((opcode) => opcode === 0x00).length).toBe(got);
});

test("a stripe that never comes: stopping does not wait for it", async () => {
  const { reader } = await start({
    flags: FLAGS,
    answer: ({ opcode }) => (opcode === 0x01 ? new Uint8Array(0) : undefined),
  });
  const never = outcome(read(reader, 1));
  await Bun.sleep(50);
  const before = performance.now();
  await reader[Symbol.asyncDispose]();
  expect(performance.now() - before).toBeLessThan(PATIENCE_MS / 2);
  expect(await never).toContain("stripe 1");
});

test("several connections: reads are under way at once", async () => {
  let underWay = 0;
  let most = 0;
  const { reader } = await start({
    flags: FLAGS,
    answer: ({ opcode, stripe, connection }, server) => {
      if (opcode !== 0x01) {
        return undefined;
      }
      underWay += 1;
      most = Math.max(most, underWay);
      setTimeout(() => {
        underWay -= 1;
        server.say(connection, sized(stripeData(stripe)));
      }, 20);
      return new Uint8Array(0);
    },
  });
  await Promise.all(HELD.slice(0, 8).map((stripe) => read(reader, stripe)));
  expect(most).toBeGreaterThan(1);
});

test("a reader that needs the source no more: its threads end, which is no failure", async () => {
  const failures: string[] = [];
  const { workers } = await start({ flags: FLAGS }, (message) => failures.push(message));
  using client = new WorkerSource(workers.description);
  client[Symbol.dispose]();
  await Bun.sleep(500); // the thread has told that it stopped, and is gone
  expect(failures).toEqual([]);
});

const CONNECTIONS = 4;

function throwFailure(message: string): void {
  throw new Error(message);
}

async function start(script: ServerScript, onFailure: (message: string) => void = throwFailure) {
  const server = new ScriptedServer(script, freePort()); // another one may come there
  open.push({ [Symbol.asyncDispose]: async () => server[Symbol.dispose]() });
  const source = await openRemoteSource(
    {
      address: server.address,
      connectTimeoutMs: 1000,
      operationAttemptTimeoutMs: PATIENCE_MS,
      connections: CONNECTIONS,
    },
    new ResolvedSecrets(new Map()),
  );
  const workers: SourceWorkers = source.start({ requestsMax: REQUESTS_MAX, onFailure });
  const reader = new SourceReader(new WorkerSource(workers.description), {
    name: source.name,
    requestsMax: REQUESTS_MAX,
    close: async () => {
      await workers.stop();
      await source[Symbol.asyncDispose]();
    },
  });
  open.push(reader);
  return { server, source, reader, workers };
}

function read(reader: SourceReader, stripe: number): Promise<void> {
  placeOf(stripe).fill(0xdb);
  return reader.read(stripe, memory.address + stripe * STRIPE_BYTES, STRIPE_BYTES);
}

function placeOf(stripe: number): Uint8Array {
  return memory.view.subarray(stripe * STRIPE_BYTES, (stripe + 1) * STRIPE_BYTES);
}

async function outcome(promise: Promise<void>): Promise<string> {
  return promise.then(
    () => "ok",
    (error: unknown) => String(error),
  );
}
