/** Rings and shared memory in a state that no driver leaves them in, against the running executable. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import { encodeMemoryTable, encodeVringState, REQUEST } from "../../src/formats/vhost-user.ts";
import { FEATURE, REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import { intoMemory } from "../support/hostile-chains.ts";
import {
  AVAILABLE,
  at,
  ENTRIES,
  type HostileClient,
  INDIRECT,
  MEMORY_BYTES,
  NEXT,
  NOWHERE,
  TABLES,
  USED,
  WRITE,
} from "../support/hostile-client.ts";
import { type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";

const { IN, FLUSH } = REQUEST_TYPE;
const IN_FLIGHT = 80;

describe("hostile rings", () => {
  let disk: HostileDisk;

  beforeAll(async () => {
    disk = await serveHostileDisk({ isEncrypted: false });
  });

  afterEach(() => {
    expect(disk.isServing()).toBe(true);
  });

  afterAll(async () => {
    expect(await disk.close()).toBe(0);
  });

  test("an available index that jumps breaks the ring, and the error descriptor tells", () => {
    using client = disk.attach();
    client.memory.setUint16(AVAILABLE + 2, 1000, true);
    client.kick();
    expect(client.isRingBroken()).toBe(true);
    expect(client.usedIndex()).toBe(0);
  });

  test("a broken ring can be stopped and started again", () => {
    using client = disk.attach();
    client.memory.setUint16(AVAILABLE + 2, 1000, true);
    client.kick();
    expect(client.isRingBroken()).toBe(true);
    client.stopRing();
    client.restartRing();
    expect(client.isServed()).toBe(true);
  });

  test("a head beyond the table harms nobody", () => {
    using client = disk.attach();
    client.offer(ENTRIES + 44);
    client.kick();
    expect(client.stopRing()).toBeOneOf([0, 1]);
    client.restartRing();
    expect(client.isServed()).toBe(true);
  });

  test("one head offered many times is answered as often", () => {
    using client = disk.attach();
    client.setChain(0, [client.header(0, FLUSH, 0), client.statusByte(0)]);
    const heads = Array.from({ length: 100 }, () => 0);
    client.offer(...heads);
    client.kick();
    expect(heads.map(() => client.waitUsed().id)).toEqual(heads);
  });

  test("the used ring scribbled over by the driver is not believed", () => {
    using client = disk.attach();
    expect(client.isServed()).toBe(true); // two requests: the used index is 2
    client.bytes.fill(0xff, USED + 4, USED + 4 + ENTRIES * 8);
    client.memory.setUint16(USED + 2, 0xbeef, true);
    client.setChain(0, [client.header(0, FLUSH, 0), client.statusByte(0)]);
    client.offer(0);
    client.kick();
    expect(client.waitUsed().isCalled).toBe(true);
    expect(client.stopRing()).toBe(3);
    expect(client.usedIndex()).toBe(3);
    expect(client.status(0)).toBe(STATUS.OK);
  });

  test("a thousand kicks without a request do nothing", () => {
    using client = disk.attach();
    for (let i = 0; i < 1000; i++) {
      client.kick();
    }
    expect(client.isServed()).toBe(true);
  });

  test("a disabled ring waits, and goes on when it is enabled", () => {
    using client = disk.attach();
    client.command(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 0 }));
    client.setChain(0, [client.header(0, FLUSH, 0), client.statusByte(0)]);
    client.offer(0);
    client.kick();
    Bun.sleepSync(50);
    expect(client.usedIndex()).toBe(0);
    client.command(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 1 }));
    expect(client.waitUsed().id).toBe(0);
  });

  test.each([
    { name: "with EVENT_IDX", features: [FEATURE.RING_EVENT_IDX] },
    { name: "without EVENT_IDX", features: [] },
  ])("stopping a busy ring $name answers everything it took first", ({ features }) => {
    using client = disk.attach([FEATURE.RING_INDIRECT_DESC, ...features]);
    offerManyReads(client);
    client.waitUsed(); // the others are under way
    const base = client.stopRing();
    expect(client.usedIndex()).toBe(base);
    client.bytes.fill(0x11, TABLES);
    Bun.sleepSync(100);
    expect(client.bytes.subarray(TABLES).every((byte) => byte === 0x11)).toBe(true);
    client.restartRing();
    expect(client.isServed()).toBe(true);
  });

  test("a client that goes with requests in flight is no harm to the next", () => {
    for (let i = 0; i < 10; i++) {
      using client = disk.attach([FEATURE.RING_INDIRECT_DESC]);
      offerManyReads(client);
    }
  });

  test("shared memory that is cut off breaks that client only", () => {
    using client = disk.connect();
    const path = join(disk.files.configPath, "..", "memory");
    const fd = openSync(path, "w+");
    ftruncateSync(fd, MEMORY_BYTES);
    client.negotiate([]);
    client.send(REQUEST.SET_MEM_TABLE, encodeMemoryTable([client.region]), [fd], 8);
    expect(client.reply()).toBeDefined();
    ftruncateSync(fd, 0);
    client.send(REQUEST.SET_VRING_NUM, encodeVringState({ index: 0, value: ENTRIES }));
    client.send(REQUEST.SET_VRING_ADDR, client.ringAddress(0));
    client.send(REQUEST.SET_VRING_KICK, new Uint8Array(8), [client.kickFd]);
    client.send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 1 }));
    client.kick();
    Bun.sleepSync(100);
    closeSync(fd);
    rmSync(path);
  });

  test("a read into memory that is cut off is no success, and ends the ring", () => {
    using client = disk.connect();
    const path = join(disk.files.configPath, "..", "memory");
    const fd = openSync(path, "w+");
    ftruncateSync(fd, MEMORY_BYTES);
    client.negotiate([]);
    const cutOff = { ...client.region, guestAddress: NOWHERE, userAddress: 0x1000 };
    const table = encodeMemoryTable([client.region, cutOff]);
    client.command(REQUEST.SET_MEM_TABLE, table, [client.memoryFd, fd]);
    client.startRing(0);
    ftruncateSync(fd, 0);
    const data = { address: NOWHERE, length: 512, flags: WRITE };
    client.submit([client.header(0, IN, 1), data, client.statusByte(0)]);
    expect(client.status(0)).toBe(STATUS.IOERR);
    expect(client.isRingBroken()).toBe(true);
    closeSync(fd);
    rmSync(path);
  });

  test("the memory table may be sent again while the ring runs", () => {
    using client = disk.attach();
    expect(client.isServed()).toBe(true);
    const table = encodeMemoryTable([client.region]);
    client.command(REQUEST.SET_MEM_TABLE, table, [client.memoryFd]);
    expect(client.isServed()).toBe(true);
  });
});

describe("a queue_size of 1", () => {
  let disk: HostileDisk;

  beforeAll(async () => {
    disk = await serveHostileDisk({ isEncrypted: true, tuning: "queue_size = 1" });
  });

  afterAll(async () => {
    expect(await disk.close()).toBe(0);
  });

  test("a ring of 256 entries with 80 requests at once is served in full", () => {
    using client = disk.attach([FEATURE.RING_INDIRECT_DESC]);
    offerManyReads(client);
    const used = Array.from({ length: IN_FLIGHT }, () => client.waitUsed().id);
    expect(used.sort((a, b) => a - b)).toEqual(Array.from({ length: IN_FLIGHT }, (_, i) => i));
    expect(client.isServed()).toBe(true);
  });
});

/** 80 reads of 64 KiB, all through one indirect table. */
function offerManyReads(client: HostileClient): void {
  client.setIndirect(TABLES, 0, { ...client.header(0, IN, 0), flags: NEXT, next: 1 });
  client.setIndirect(TABLES, 1, { ...intoMemory(65536), flags: 3, next: 2 });
  client.setIndirect(TABLES, 2, client.statusByte(0));
  const heads = Array.from({ length: IN_FLIGHT }, (_, head) => head);
  for (const head of heads) {
    client.setDescriptor(head, { address: at(TABLES), length: 48, flags: INDIRECT });
  }
  client.offer(...heads);
  client.kick();
}
