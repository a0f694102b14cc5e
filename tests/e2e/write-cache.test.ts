/**
 * A guest that turned its write cache off sends no flushes. Its backend is killed: the next one, which nobody tells, makes
 * every write durable all the same, as the memory of requests in flight says.
 */
import { expect, test } from "bun:test";
import { closeSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createSharedMemory } from "../../src/ffi/memory.ts";
import {
  decodeConfigPart,
  encodeConfigPart,
  encodeInflight,
  encodeMemoryTable,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../../src/formats/vhost-user.ts";
import { CONFIG_WRITEBACK_OFFSET, FEATURE, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { type Backend, type DiskFiles, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import { FuseImage, missingFuse } from "../support/fuse-image.ts";
import { at, DATA, ENTRIES, HostileClient } from "../support/hostile-client.ts";
import { skipUnless } from "../support/requires.ts";

const missing = missingFuse();
const testWithFuse = skipUnless(missing ?? "", missing === undefined);
const REGION_BYTES = 4160;
const BLOCK = 4096;

test.each([
  { name: "turned off", choices: [false], isTracked: true, isWriteback: false },
  { name: "turned off and on again", choices: [false, true], isTracked: true, isWriteback: true },
  {
    name: "turned off, and nobody keeps it",
    choices: [false],
    isTracked: false,
    isWriteback: true,
  },
])("a cache that was $name, after kill -9: on is $isWriteback", async (each) => {
  using files = new Files();
  const region = each.isTracked ? files.region : undefined;
  const dead = await startUbiblk(files.disk);
  {
    using client = connected(files.disk, region);
    for (const isWriteback of each.choices) {
      setWriteback(client, isWriteback);
    }
    await kill(dead);
  }
  await using next = await startUbiblk(files.disk);
  using client = connected(files.disk, region);
  expect(isWriteback(client)).toBe(each.isWriteback);
  expect(next.isRunning()).toBe(true);
});

testWithFuse(
  "writes are durable when they are answered, in each life after the choice",
  async () => {
    using files = new Files();
    await using image = new FuseImage(files.imagePath, files.disk.dataPath);
    let backend = await startUbiblk(files.disk);
    let client = connected(files.disk, files.region);
    const syncs = () => {
      const before = image.syncs;
      write(client);
      return image.syncs - before;
    };
    expect(syncs()).toBe(0);
    setWriteback(client, false);
    expect(syncs()).toBe(1);
    for (const _ of [1, 2]) {
      await kill(backend);
      client[Symbol.dispose]();
      backend = await startUbiblk(files.disk);
      client = connected(files.disk, files.region);
      expect(syncs()).toBe(1);
    }
    setWriteback(client, true);
    expect(syncs()).toBe(0);
    client[Symbol.dispose]();
    expect(await backend.stop()).toBe(0);
  },
);

// --- internal ---

class Files implements Disposable {
  readonly imagePath: string;
  readonly disk: DiskFiles;
  /** What a front end keeps, as it got it from its first backend. */
  readonly region = createSharedMemory(REGION_BYTES);
  readonly #folder = mkdtempSync(join(tmpdir(), "ubiblk-cache-"));

  constructor() {
    this.imagePath = join(this.#folder, "real.img");
    this.disk = writeDiskConfig({ folder: this.#folder, isEncrypted: false });
    for (const path of [this.imagePath, this.disk.dataPath]) {
      writeFileSync(path, "", { mode: 0o600 });
      truncateSync(path, 2 ** 20);
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.region);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function kill(backend: Backend): Promise<void> {
  process.kill(backend.pid, "SIGKILL");
  await backend.stop();
}

/** With a ring that runs. */
function connected(disk: DiskFiles, region: number | undefined): HostileClient {
  const client = new HostileClient(disk.socketPath);
  const features = [FEATURE.BLK_FLUSH, FEATURE.BLK_CONFIG_WCE];
  client.negotiate(features, [PROTOCOL_FEATURE.INFLIGHT_SHMFD]);
  if (region !== undefined) {
    const shape = { mmapSizeBytes: REGION_BYTES, mmapOffset: 0, queueCount: 1, queueSize: ENTRIES };
    client.command(REQUEST.SET_INFLIGHT_FD, encodeInflight(shape), [region]);
  }
  client.command(REQUEST.SET_MEM_TABLE, encodeMemoryTable([client.region]), [client.memoryFd]);
  client.startRing(0);
  return client;
}

function setWriteback(client: HostileClient, isOn: boolean): void {
  const bytes = Uint8Array.of(isOn ? 1 : 0);
  const part = encodeConfigPart({ offset: CONFIG_WRITEBACK_OFFSET, flags: 0, bytes });
  client.command(REQUEST.SET_CONFIG, part);
}

function isWriteback(client: HostileClient): boolean {
  const part = { offset: CONFIG_WRITEBACK_OFFSET, flags: 0, bytes: new Uint8Array(1) };
  const answer = decodeConfigPart(client.ask(REQUEST.GET_CONFIG, encodeConfigPart(part)));
  return answer.bytes[0] === 1;
}

/** One block, until it is answered. */
function write(client: HostileClient): void {
  const data = { address: at(DATA), length: BLOCK, flags: 0 };
  client.submit([client.header(0, REQUEST_TYPE.OUT, 0), data, client.statusByte(0)]);
  expect(client.status(0)).toBe(0);
}
