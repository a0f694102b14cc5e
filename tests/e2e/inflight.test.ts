/**
 * What a backend that died left in its front end's hands, made by hand: a ring and a region of requests in flight. The
 * next backend answers what is open, and leaves alone what does not fit.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, openSync, rmSync } from "node:fs";
import { createSharedMemory, mapFile, viewOf } from "../../src/ffi/memory.ts";
import {
  encodeInflight,
  encodeMemoryTable,
  type Inflight,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../../src/formats/vhost-user.ts";
import { encodeRangeSegment, FEATURE, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import {
  AVAILABLE,
  at,
  DATA,
  type Descriptor,
  ENTRIES,
  HostileClient,
  STATUS_UNSET,
  USED,
  WRITE,
} from "../support/hostile-client.ts";
import { type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";
import { startLeftRing, startUncertainRing } from "../support/left-ring.ts";

const { IN, OUT, FLUSH, DISCARD, WRITE_ZEROES } = REQUEST_TYPE;
const REGION_BYTES = 4160;
const INFLIGHT: Inflight = {
  mmapSizeBytes: REGION_BYTES,
  mmapOffset: 0,
  queueCount: 1,
  queueSize: ENTRIES,
};
const FEATURES = [FEATURE.BLK_DISCARD, FEATURE.BLK_WRITE_ZEROES];

let disk: HostileDisk;

beforeAll(async () => {
  disk = await serveHostileDisk({ isEncrypted: false });
});

afterAll(async () => {
  expect(disk.isServing()).toBe(true);
  expect(await disk.close()).toBe(0);
});

/** A front end whose ring is not started yet, with a region that a test fills. */
class Survivor implements Disposable {
  readonly client = new HostileClient(disk.files.socketPath);
  readonly region: DataView;
  readonly #fd: number;

  constructor(fd = createSharedMemory(REGION_BYTES)) {
    this.#fd = fd;
    const options = { fd, offsetBytes: 0, lengthBytes: REGION_BYTES, writable: true };
    this.region = new DataView(viewOf(mapFile(options), REGION_BYTES));
    this.region.setUint16(8, 1, true);
    this.region.setUint16(10, ENTRIES, true);
    this.client.negotiate(FEATURES, [PROTOCOL_FEATURE.INFLIGHT_SHMFD]);
  }

  /** The backend that died had taken this head, in this place of the order. */
  note(head: number, counter: number): void {
    this.region.setUint8(16 + head * 16, 1);
    this.region.setBigUint64(16 + head * 16 + 8, BigInt(counter), true);
  }

  /** In this order. */
  noteAll(heads: readonly number[]): void {
    for (const [i, head] of heads.entries()) {
      this.note(head, i);
    }
  }

  isNoted(head: number): boolean {
    return this.region.getUint8(16 + head * 16) === 1;
  }

  /** As QEMU: the region, the memory, the ring from where the answers ended. */
  start(base = 0): void {
    this.client.command(REQUEST.SET_INFLIGHT_FD, encodeInflight(INFLIGHT), [this.#fd]);
    const table = encodeMemoryTable([this.client.region]);
    this.client.command(REQUEST.SET_MEM_TABLE, table, [this.client.memoryFd]);
    this.client.startRing(0, base);
  }

  [Symbol.dispose](): void {
    this.client[Symbol.dispose]();
    closeSync(this.#fd);
  }
}

/** A request of one block, or of none, with its data at a place of its own. */
function request(client: HostileClient, head: number, type: number, sector: number): void {
  const data = DATA + head * 4096;
  const chain: Descriptor[] = [client.header(head, type, type === FLUSH ? 0 : sector)];
  if (type === DISCARD || type === WRITE_ZEROES) {
    client.bytes.set(encodeRangeSegment({ sector, sectorCount: 8, flags: 0 }), data);
    chain[0] = client.header(head, type, 0);
    chain.push({ address: at(data), length: 16, flags: 0 });
  } else if (type !== FLUSH) {
    chain.push({ address: at(data), length: 4096, flags: type === IN ? WRITE : 0 });
  }
  client.setChain(head, [...chain, client.statusByte(head)]);
}

function usedHeads(client: HostileClient, count: number): readonly number[] {
  return Array.from({ length: count }, () => client.waitUsed().id).toSorted((a, b) => a - b);
}

function block(client: HostileClient, head: number): Uint8Array {
  return client.bytes.slice(DATA + head * 4096, DATA + (head + 1) * 4096);
}

describe("requests that a backend died over", () => {
  test("all kinds are done again, and what came meanwhile after them", () => {
    using survivor = new Survivor();
    const { client } = survivor;
    const [write, zeroes, discard, flush, read] = [10, 20, 30, 40, 50];
    client.bytes.fill(0x77, DATA + write * 4096, DATA + (write + 1) * 4096);
    request(client, write, OUT, 64);
    request(client, zeroes, WRITE_ZEROES, 128);
    request(client, discard, DISCARD, 192);
    request(client, flush, FLUSH, 0);
    request(client, read, IN, 64);
    client.offer(write, zeroes, discard, flush, read);
    survivor.noteAll([write, zeroes, discard, flush]);
    survivor.start();
    expect(usedHeads(client, 5)).toEqual([write, zeroes, discard, flush, read]);
    expect([write, zeroes, discard, flush, read].map((head) => client.status(head))).toEqual([
      0, 0, 0, 0, 0,
    ]);
    expect([write, read].some((head) => survivor.isNoted(head))).toBe(false);
    expect(survivor.region.getUint16(14, true)).toBe(5);

    client.bytes.fill(0, DATA + read * 4096, DATA + (read + 1) * 4096);
    request(client, read, IN, 64);
    client.offer(read);
    client.kick();
    client.waitUsed();
    expect(block(client, read).every((byte) => byte === 0x77)).toBe(true);
  });

  test("one that was answered before the death is not done again", () => {
    using survivor = new Survivor();
    const { client } = survivor;
    request(client, 0, OUT, 8);
    request(client, 10, FLUSH, 0);
    client.offer(0, 10);
    // Head 0 was shown; the backend died before it took it out of the region.
    client.memory.setUint32(USED + 4, 0, true);
    client.memory.setUint16(USED + 2, 1, true);
    survivor.note(0, 0);
    survivor.note(10, 1);
    survivor.start(1);
    expect(client.waitUsed().id).toBe(0);
    expect(client.waitUsed().id).toBe(10);
    expect(client.status(0)).toBe(STATUS_UNSET);
    expect(survivor.isNoted(0)).toBe(false);
  });

  test("they end before the ring stops, and its base is behind them", () => {
    using survivor = new Survivor();
    const { client } = survivor;
    const heads = Array.from({ length: 60 }, (_, i) => i * 4);
    for (const head of heads) {
      request(client, head, FLUSH, 0);
    }
    client.offer(...heads);
    survivor.noteAll(heads);
    survivor.start();
    expect(client.stopRing()).toBe(heads.length);
    expect(client.usedIndex()).toBe(heads.length);
  });
});

describe("a region that does not fit", () => {
  test.each([
    ["more in flight than the ring waits for", (s: Survivor) => s.noteAll([0, 4, 8])],
    [
      "equal counters",
      (s: Survivor) => {
        s.note(0, 7);
        s.note(4, 7);
      },
    ],
    ["an unknown version", (s: Survivor) => s.region.setUint16(8, 9, true)],
    [
      "a list of answers in circles",
      (s: Survivor) => {
        s.note(0, 0);
        s.region.setUint16(14, 0xff00, true);
      },
    ],
  ])("%s: the ring is left alone, the error descriptor tells", (_, spoil) => {
    using survivor = new Survivor();
    const { client } = survivor;
    request(client, 0, OUT, 8);
    request(client, 4, OUT, 8);
    client.offer(0, 4);
    spoil(survivor);
    survivor.start();
    expect(client.isRingBroken()).toBe(true);
    expect(client.usedIndex()).toBe(0);
  });

  test("one that is cut off later breaks the ring, not the backend", () => {
    const path = `/dev/shm/ubiblk-inflight-${process.pid}`;
    const fd = openSync(path, "w+");
    rmSync(path);
    ftruncateSync(fd, REGION_BYTES);
    using survivor = new Survivor(fd);
    survivor.start();
    expect(survivor.client.isServed()).toBe(true);
    ftruncateSync(fd, 0);
    request(survivor.client, 0, FLUSH, 0);
    survivor.client.offer(0);
    survivor.client.kick();
    expect(survivor.client.isRingBroken()).toBe(true);
  });
});

describe("a ring of a front end that keeps no notes", () => {
  test("goes on where its open requests are certain", () => {
    using client = startLeftRing(disk.files.socketPath, 1, ({ memory }) =>
      memory.setUint16(AVAILABLE + 2, 3, true),
    );
    expect(usedHeads(client, 3)).toEqual([4, 8, 12]);
  });

  test("is left alone where they are not", () => {
    using client = startUncertainRing(disk.files.socketPath);
    expect(client.isRingBroken()).toBe(true);
    expect(client.usedIndex()).toBe(2 * ENTRIES);
  });
});
