import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UbiError } from "../errors.ts";
import { createSharedMemory, PAGE_SIZE, store8, viewOf } from "../ffi/memory.ts";
import type { MemoryRegion } from "../formats/vhost-user.ts";
import { GuestMemory } from "../virtio/guest-memory.ts";
import { MemoryMap } from "./memory-map.ts";
import { MemoryTables } from "./memory-tables.ts";

const BYTES = 16 * PAGE_SIZE;
const USER = 0x7f00_0000_0000;

let shared: SharedArrayBuffer;
let map: MemoryMap;
let fd: number;

beforeEach(() => {
  shared = new SharedArrayBuffer(MemoryTables.sharedBytes);
  map = new MemoryMap(shared);
  fd = createSharedMemory(BYTES);
});

afterEach(() => {
  map.replace([], []);
  map.unmapRetired(map.table);
  closeSync(fd);
});

test("memory map: two tables' views of one file are the same memory", () => {
  map.replace([region({ guestAddress: 0 }), region({ guestAddress: BYTES })], [fd, fd]);
  const memory = loaded();
  store8(memory.translate(5, 1), 0x5a);
  expect(byteAt(memory.translate(BYTES + 5, 1))).toBe(0x5a);
});

test("memory map: the descriptor may be closed once its region is mapped", () => {
  const own = createSharedMemory(BYTES);
  map.replace([region({})], [own]);
  closeSync(own);
  expect(byteAt(loaded().translate(0, 1))).toBe(0);
});

test("memory map: an offset that is no page boundary leads to the right byte", () => {
  map.replace([region({ guestAddress: 0 })], [fd]);
  store8(loaded().translate(PAGE_SIZE + 24, 1), 0x77);
  const offset = PAGE_SIZE + 24;
  map.add(region({ guestAddress: 2 ** 30, sizeBytes: 100, mmapOffset: offset }), fd);
  expect(byteAt(loaded().translate(2 ** 30, 100))).toBe(0x77);
});

test.each([
  { name: "no size", wrong: { sizeBytes: 0 }, message: "no size" },
  { name: "a guest address that wraps", wrong: { guestAddress: 2 ** 53 - 4096 }, message: "wraps" },
  { name: "a user address that wraps", wrong: { userAddress: 2 ** 53 - 4096 }, message: "wraps" },
  { name: "a file offset that wraps", wrong: { mmapOffset: 2 ** 53 - 4096 }, message: "wraps" },
  { name: "an end beyond its file", wrong: { sizeBytes: BYTES + 1 }, message: "of a file of" },
  { name: "a start beyond its file", wrong: { mmapOffset: BYTES }, message: "of a file of" },
])("memory map: a region with $name is refused", ({ wrong, message }) => {
  expect(() => map.replace([region(wrong)], [fd])).toThrow(message);
  expect(map.count).toBe(0);
});

test("memory map: regions that overlap by one byte are refused, those that touch are not", () => {
  map.add(region({ guestAddress: 0 }), fd);
  expect(() => map.add(region({ guestAddress: BYTES - 1 }), fd)).toThrow("overlap");
  map.add(region({ guestAddress: BYTES }), fd);
  expect(map.count).toBe(2);
});

test("memory map: an empty file holds no region", () => {
  using folder = new Folder();
  const empty = openSync(folder.file("empty", ""), "r+");
  expect(() => map.add(region({}), empty)).toThrow("of a file of 0 bytes");
  closeSync(empty);
});

test("memory map: a descriptor that cannot be written is refused", () => {
  using folder = new Folder();
  const readOnly = openSync(folder.file("image", Buffer.alloc(BYTES)), "r");
  expect(() => map.add(region({}), readOnly)).toThrow(UbiError);
  closeSync(readOnly);
  expect(map.count).toBe(0);
});

test("memory map: a descriptor that is none is refused", () => {
  expect(() => map.add(region({}), 99_999)).toThrow("no usable descriptor");
});

test("memory map: a table with one bad region leaves the old one as it is, and maps nothing", () => {
  map.replace([region({ guestAddress: 0x1000_0000 })], [fd]);
  const mappings = mappingCount();
  const bad = region({ guestAddress: BYTES, sizeBytes: 0 });
  expect(() => map.replace([region({ guestAddress: 0 }), bad], [fd, fd])).toThrow(UbiError);
  expect(map.count).toBe(1);
  expect(loaded().translate(0x1000_0000, 1)).toBeGreaterThan(0);
  expect(mappingCount()).toBe(mappings);
});

test("memory map: what was taken out stays mapped until the queues let go of it", () => {
  map.replace([region({})], [fd]);
  const mappings = mappingCount();
  map.remove(region({}));
  expect(map.count).toBe(0);
  expect(loaded().translate(0, 1)).toBe(-1);
  expect(mappingCount()).toBe(mappings);
  map.unmapRetired(map.table);
  expect(mappingCount()).toBe(mappings - 1);
});

test("memory map: what an older table had stays mapped while that table is in use", () => {
  map.replace([region({})], [fd]);
  const used = map.table;
  const mappings = mappingCount();
  map.remove(region({}));
  map.add(region({}), fd);
  map.remove(region({}));
  map.unmapRetired(used);
  expect(mappingCount()).toBe(mappings + 1);
  map.unmapRetired(used + 2);
  expect(mappingCount()).toBe(mappings);
  map.unmapRetired(used + 3);
  expect(mappingCount()).toBe(mappings - 1);
});

test("memory map: a region that is the same in the new table keeps its mapping, one of another file does not", () => {
  const other = createSharedMemory(BYTES);
  const high = { guestAddress: 2 ** 30, userAddress: USER + 2 ** 30 };
  map.replace([region({}), region(high)], [fd, fd]);
  const before = loaded();
  const again = openSync(`/proc/self/fd/${fd}`, "r+");
  map.replace([region(high), region({})], [other, again]);
  closeSync(again);
  closeSync(other);
  expect(loaded().translate(0, 1)).toBe(before.translate(0, 1));
  expect(loaded().translate(2 ** 30, 1)).not.toBe(before.translate(2 ** 30, 1));
});

test.each([
  { name: "elsewhere for the guest", change: { guestAddress: PAGE_SIZE } },
  { name: "elsewhere for the front end", change: { userAddress: USER + PAGE_SIZE } },
  { name: "of another size", change: { sizeBytes: BYTES / 4 } },
  { name: "at another offset of its file", change: { mmapOffset: BYTES / 2 } },
])("memory map: a region that is $name is mapped anew", ({ change }) => {
  const half = { sizeBytes: BYTES / 2 };
  map.replace([region(half)], [fd]);
  const before = loaded().translate(0, 1);
  map.replace([region({ ...half, ...change })], [fd]);
  const { guestAddress } = { guestAddress: 0, ...change };
  expect(loaded().translate(guestAddress, 1)).not.toBe(before);
});

test("memory map: a front end that takes memory away again and again under requests is refused", () => {
  const exchange = () => {
    for (let i = 0; i < 600; i++) {
      map.add(region({ sizeBytes: PAGE_SIZE }), fd);
      map.remove(region({ sizeBytes: PAGE_SIZE }));
    }
  };
  expect(exchange).toThrow("more than 512 memory regions");
  map.unmapRetired(map.table);
  map.replace([], []);
});

test("memory map: a region that is not there is not removed", () => {
  map.replace([region({})], [fd]);
  expect(() => map.remove(region({ sizeBytes: PAGE_SIZE }))).toThrow("no such memory region");
  expect(map.count).toBe(1);
});

test("memory map: a full table refuses one more region", () => {
  for (let i = 0; i < 509; i++) {
    map.add(region({ guestAddress: i * PAGE_SIZE, sizeBytes: PAGE_SIZE }), fd);
  }
  const more = region({ guestAddress: 2 ** 40, sizeBytes: PAGE_SIZE });
  expect(() => map.add(more, fd)).toThrow("more than 509");
});

test("user addresses: a range in one region, on its alignment", () => {
  map.replace([region({ guestAddress: 0 })], [fd]);
  const host = loaded().translate(0, 1);
  expect(map.translateUser("ring", USER + 64, 16, 16)).toBe(host + 64);
  expect(() => map.translateUser("ring", USER + 8, 16, 16)).toThrow("not aligned to 16");
  expect(map.translateUser("ring", USER + BYTES - 16, 16, 16)).toBe(host + BYTES - 16);
});

test("user addresses: outside, or over the end of a region, is refused", () => {
  map.replace([region({})], [fd]);
  for (const address of [USER - 16, USER + BYTES - 8, USER + BYTES, 0, 2 ** 53 - 2]) {
    expect(() => map.translateUser("ring", address, 16, 2)).toThrow("outside the shared memory");
  }
});

// --- internal ---

function region(fields: Partial<MemoryRegion>): MemoryRegion {
  return { guestAddress: 0, sizeBytes: BYTES, userAddress: USER, mmapOffset: 0, ...fields };
}

/** The table as a queue worker reads it. */
function loaded(): GuestMemory {
  const memory = new GuestMemory();
  new MemoryTables(shared).loadInForce(memory);
  return memory;
}

function byteAt(address: number): number {
  return new Uint8Array(viewOf(address, 1))[0] ?? -1;
}

/** Shared memory files mapped into this process. */
function mappingCount(): number {
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  return maps.filter((line) => line.includes("/memfd:ubiblk-shared")).length;
}

class Folder implements Disposable {
  readonly #path = mkdtempSync(join(tmpdir(), "ubiblk-map-"));

  file(name: string, content: string | Buffer): string {
    const path = join(this.#path, name);
    writeFileSync(path, content);
    return path;
  }

  [Symbol.dispose](): void {
    rmSync(this.#path, { recursive: true });
  }
}
