/** Archives as sources when the store is not what it should be: damaged, slow, away. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ObjectStore } from "../../src/archive/object-store.ts";
import { openStore } from "../../src/archive/open-store.ts";
import { Arena } from "../../src/ffi/arena.ts";
import { buildArchive } from "../support/archive-builder.ts";
import {
  bucketSettings,
  folderSettings,
  type StartedSource,
  startArchive,
  TEST_KEK,
} from "../support/archive-sources.ts";
import { S3Server } from "../support/s3-server.ts";
import { until } from "../support/until.ts";

const STRIPE_SECTORS = 64;
const STRIPE_BYTES = STRIPE_SECTORS * 512;
const STRIPES = 6;
const REQUESTS_MAX = 8;
const EIO = -5;
const EBADMSG = -74;
const IMAGE = Uint8Array.from({ length: STRIPES * STRIPE_BYTES }, (_, i) => (i >> 9) | 1);

let folder = "";
let arena: Arena;
let address = 0;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-archive-source-"));
  arena = new Arena((REQUESTS_MAX + 1) * STRIPE_BYTES);
  ({ address } = arena.bytes(REQUESTS_MAX * STRIPE_BYTES));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
  arena[Symbol.dispose]();
});

test("a damaged object fails its stripe, and no other", async () => {
  const { path, objects } = await folderArchive();
  const file = join(path, objects[2] ?? "");
  const bytes = readFileSync(file);
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  await using started = await startedFolder(path);
  expect(await readAll(started)).toEqual([0, 0, EBADMSG, 0, 0, 0]);
  expect(started.workers.isTroubled).toBe(false);
});

test("an object that is missing, short, long, or another one fails its stripe, and no other", async () => {
  const { path, objects } = await folderArchive();
  const file = (stripe: number) => join(path, objects[stripe] ?? "");
  rmSync(file(0));
  writeFileSync(file(1), readFileSync(file(1)).subarray(0, 512));
  writeFileSync(file(2), readFileSync(file(3)));
  writeFileSync(file(4), new Uint8Array(4 * STRIPE_BYTES));
  await using started = await startedFolder(path);
  const results = await readAll(started);
  expect(results.map((result) => result < 0)).toEqual([true, true, true, false, true, false]);
});

test("a store that is away is trouble until it is back; then the same stripes come", async () => {
  using server = new S3Server();
  await bucketArchive(server);
  await using started = await startArchive(bucketSettings(server), REQUESTS_MAX);
  server.fault = () => ({ status: 500, code: "InternalError" });
  expect(await readAll(started)).toEqual(new Array<number>(STRIPES).fill(EIO));
  expect(started.workers.isTroubled).toBe(true);
  expect(started.workers.retries).toBe(STRIPES);
  server.fault = () => undefined;
  expect(await readAll(started)).toEqual(new Array<number>(STRIPES).fill(0));
  expect(started.workers.isTroubled).toBe(false);
});

test("a stop does not wait for a store that hangs", async () => {
  using server = new S3Server();
  await bucketArchive(server);
  const started = await startArchive(bucketSettings(server), REQUESTS_MAX);
  server.fault = () => ({ delayMs: 15_000 });
  for (let stripe = 0; stripe < STRIPES; stripe++) {
    request(started, stripe, stripe, false);
  }
  started.source.submit();
  await until(
    "four objects wanted",
    () => server.seen.filter(({ what }) => what.includes("data/")).length >= 4,
  );
  const begunMs = performance.now();
  started.source[Symbol.dispose]();
  await started.close();
  expect(performance.now() - begunMs).toBeLessThan(5_000);
});

test("what somebody waits for overtakes what is queued, and so does what is raised", async () => {
  using server = new S3Server();
  const objects = await bucketArchive(server);
  const settings = bucketSettings(server, 1);
  await using started = await startArchive(settings, REQUESTS_MAX);
  server.seen.length = 0;
  server.fault = () => ({ delayMs: 200 });
  request(started, 0, 0, false);
  started.source.submit();
  await until("one request", () => server.seen.length === 1); // the only connection is in use
  for (const stripe of [1, 2, 3]) {
    request(started, stripe, stripe, false);
  }
  request(started, 4, 4, true);
  started.source.raise(2);
  started.source.submit();
  expect((await ends(started, 5)).length).toBe(5);
  const order = server.seen.map(({ what }) => objects.findIndex((key) => what.endsWith(`${key}`)));
  expect(order).toEqual([0, 2, 4, 1, 3]);
});

// --- internal ---

async function folderArchive() {
  const path = join(folder, "archive");
  await using store = await openStore({ kind: "filesystem", path, role: "write" });
  return { path, objects: await built(store) };
}

async function bucketArchive(server: S3Server) {
  await using store = await openStore(server.description({ prefix: "a/" }));
  return await built(store);
}

function built(store: ObjectStore): Promise<readonly (string | undefined)[]> {
  return buildArchive(store, {
    stripeSectors: STRIPE_SECTORS,
    image: IMAGE,
    isEncrypted: true,
    kek: TEST_KEK,
  });
}

function startedFolder(path: string): Promise<StartedSource> {
  return startArchive(folderSettings(path, true), REQUESTS_MAX);
}

function request({ source }: StartedSource, id: number, stripe: number, isDemanded: boolean) {
  const part = { stripe, offsetBytes: 0, lengthBytes: STRIPE_BYTES };
  source.request(id, part, address + id * STRIPE_BYTES, isDemanded);
}

/** The results by stripe. */
async function readAll(started: StartedSource): Promise<readonly number[]> {
  for (let stripe = 0; stripe < STRIPES; stripe++) {
    request(started, stripe, stripe, false);
  }
  return (await ends(started, STRIPES)).sort(([a], [b]) => a - b).map(([, result]) => result);
}

/** Id and result of `count` requests, in the order of their ends. */
async function ends({ source }: StartedSource, count: number): Promise<[number, number][]> {
  const list: [number, number][] = [];
  await until(`${count} ends`, () => {
    source.submit();
    const ready = source.completions();
    for (let i = 0; i < ready; i++) {
      list.push([source.completedId(i), source.completedResult(i)]);
    }
    source.release(ready);
    return list.length >= count;
  });
  return list;
}
