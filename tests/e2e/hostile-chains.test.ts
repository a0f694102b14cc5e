/**
 * Every malformed chain, against the running executable: it ends with a used element and a call, with a
 * status byte where there is a place for one, and the same queue goes on.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { statSync, truncateSync } from "node:fs";
import { FEATURE, REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import {
  ANSWERED,
  fromMemory,
  INDIRECT_TABLES,
  intoMemory,
  MALFORMED,
  PACKED_MALFORMED,
} from "../support/hostile-chains.ts";
import {
  at,
  DATA,
  HEADERS,
  type HostileClient,
  INDIRECT,
  NEXT,
  STATUS_UNSET,
  TABLES,
  WRITE,
} from "../support/hostile-client.ts";
import {
  DISK_BYTES,
  DISK_SECTORS,
  type HostileDisk,
  serveHostileDisk,
} from "../support/hostile-disk.ts";

const { IN, OUT, DISCARD, WRITE_ZEROES } = REQUEST_TYPE;

const SPLIT: readonly number[] = [];
const PACKED: readonly number[] = [FEATURE.RING_PACKED];

describe.each([
  { kind: "split ring, plain disk", isEncrypted: false, features: SPLIT },
  { kind: "split ring, encrypted disk", isEncrypted: true, features: SPLIT },
  { kind: "packed ring, plain disk", isEncrypted: false, features: PACKED },
])("hostile chains, $kind", ({ isEncrypted, features }) => {
  const isPacked = features.includes(FEATURE.RING_PACKED);
  let disk: HostileDisk;

  beforeAll(async () => {
    disk = await serveHostileDisk({ isEncrypted, features });
  });

  afterAll(async () => {
    expect(await disk.close()).toBe(0);
  });

  test.each(MALFORMED.filter(({ isSplitOnly }) => !(isPacked && isSplitOnly === true)))(
    "$name is used, called and survived",
    ({ chain, status, length }) => {
      using client = disk.attach();
      client.statusByte(0);
      expect(client.submit(chain(client))).toEqual({ id: 0, length, isCalled: true });
      expect(client.status(0)).toBe(status);
      expect(client.isServed()).toBe(true);
    },
  );

  test.each([...INDIRECT_TABLES])("an indirect table $name is survived", ({ chain }) => {
    using client = disk.attach([FEATURE.RING_INDIRECT_DESC]);
    client.statusByte(0);
    expect(client.submit(chain(client))).toEqual({ id: 0, length: 0, isCalled: true });
    expect(client.status(0)).toBe(STATUS_UNSET);
    expect(client.isServed()).toBe(true);
  });

  test.each(isPacked ? [...PACKED_MALFORMED] : [])("$name is used and survived", ({ chain }) => {
    using client = disk.attach([FEATURE.RING_INDIRECT_DESC]);
    expect(client.submit(chain(client))).toEqual({ id: 0, length: 0, isCalled: true });
    expect(client.isServed()).toBe(true);
  });

  test.each([...ANSWERED])("$name has status $status", ({ chain, status, length }) => {
    using client = disk.attach();
    expect(client.submit(chain(client))).toEqual({ id: 0, length, isCalled: true });
    expect(client.status(0)).toBe(status);
    expect(client.isServed()).toBe(true);
  });

  test.each([
    { name: "at the end of the disk", sector: BigInt(DISK_SECTORS), bytes: 512 },
    { name: "across the end of the disk", sector: BigInt(DISK_SECTORS - 1), bytes: 1024 },
    { name: "at sector 2^55", sector: 2n ** 55n, bytes: 512 },
    { name: "at sector 2^64 - 1", sector: 2n ** 64n - 1n, bytes: 1024 },
  ])("a read and a write $name are I/O errors that touch nothing", ({ sector, bytes }) => {
    using client = disk.attach();
    client.bytes.fill(0x77, DATA, DATA + bytes);
    const read = client.header(0, IN, 0);
    client.memory.setBigUint64(HEADERS + 8, sector, true);
    client.submit([read, intoMemory(bytes), client.statusByte(0)]);
    expect(client.status(0)).toBe(STATUS.IOERR);
    expect(client.bytes.subarray(DATA, DATA + bytes).every((byte) => byte === 0x77)).toBe(true);

    const write = client.header(0, OUT, 0);
    client.memory.setBigUint64(HEADERS + 8, sector, true);
    client.submit([write, fromMemory(bytes), client.statusByte(0)]);
    expect(client.status(0)).toBe(STATUS.IOERR);
    expect(statSync(disk.files.dataPath).size).toBe(DISK_BYTES);
    expect(client.isServed()).toBe(true);
  });

  test.each([
    { type: IN, name: "read" },
    { type: OUT, name: "write" },
  ])("a $name of no sectors is answered", ({ type }) => {
    using client = disk.attach();
    client.submit([client.header(0, type, 0), client.statusByte(0)]);
    expect(client.status(0)).toBeOneOf([STATUS.OK, STATUS.IOERR]);
    expect(client.isServed()).toBe(true);
  });

  test.each([
    { name: "no range", bytes: 0 },
    { name: "15 bytes of a range", bytes: 15 },
    { name: "a range of absurd places", bytes: 16 },
    { name: "4096 ranges of absurd places", bytes: 65536 },
  ])("discard and write-zeroes with $name fail and touch nothing", ({ bytes }) => {
    using client = disk.attach([FEATURE.BLK_DISCARD, FEATURE.BLK_WRITE_ZEROES]);
    client.bytes.fill(0xff, DATA, DATA + 65536);
    for (const type of [DISCARD, WRITE_ZEROES]) {
      const data = bytes === 0 ? [] : [fromMemory(bytes)];
      client.submit([client.header(0, type, 0), ...data, client.statusByte(0)]);
      expect(client.status(0)).toBeOneOf([STATUS.IOERR, STATUS.UNSUPPORTED]);
    }
    expect(statSync(disk.files.dataPath).size).toBe(DISK_BYTES);
    expect(client.isServed()).toBe(true);
  });

  test("a file cut off under the backend: reads fail, and stale bytes never show", () => {
    using client = disk.attach();
    truncateSync(disk.files.dataPath, DISK_BYTES - 2 ** 20);
    client.bytes.fill(0x33, DATA, DATA + 4096);
    const header = client.header(0, IN, DISK_SECTORS - 16);
    client.submit([header, intoMemory(4096), client.statusByte(0)]);
    truncateSync(disk.files.dataPath, DISK_BYTES);
    expect(client.status(0)).toBe(STATUS.IOERR);
    expect(client.isServed()).toBe(true);
  });

  test("a second request behind a bad chain is served, in one batch", () => {
    using client = disk.attach();
    client.setChain(0, [client.header(0, IN, 1)]);
    client.setChain(4, [client.header(4, IN, 1), intoMemory(512), client.statusByte(4)]);
    client.offer(0, 4);
    client.kick();
    const ids = [client.waitUsed().id, client.waitUsed().id];
    expect(ids.sort()).toEqual([0, 4]);
    expect(client.status(4)).toBe(STATUS.OK);
  });

  test("32 requests of 56 MiB each out of 1 MiB of memory: all answered in bounded memory", () => {
    using client = disk.attach([FEATURE.RING_INDIRECT_DESC]);
    const before = disk.peakMemoryBytes();
    fillWithOneHugeRead(client);
    const heads = Array.from({ length: 32 }, (_, head) => head);
    for (const head of heads) {
      client.setDescriptor(head, { address: at(TABLES), length: 66 * 16, flags: INDIRECT });
    }
    client.offer(...heads);
    client.kick();
    const used = heads.map(() => client.waitUsed().id);
    expect(used.sort((a, b) => a - b)).toEqual(heads);
    expect(client.status(0)).toBeOneOf([STATUS.OK, STATUS.IOERR]);
    expect(disk.peakMemoryBytes() - before).toBeLessThan(192 * 2 ** 20);
    expect(client.isServed()).toBe(true);
  }, 60_000);
});

/** An indirect table: 64 times the same 896 KiB of data, so 56 MiB with one header and status. */
function fillWithOneHugeRead(client: HostileClient): void {
  client.setIndirect(TABLES, 0, { ...client.header(0, IN, 0), flags: NEXT, next: 1 });
  for (let i = 1; i <= 64; i++) {
    client.setIndirect(TABLES, i, { ...intoMemory(917_504), flags: WRITE | NEXT, next: i + 1 });
  }
  client.setIndirect(TABLES, 65, client.statusByte(0));
}
