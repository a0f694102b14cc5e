import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UbiError } from "../errors.ts";
import { Arena } from "./arena.ts";
import {
  copyMemory,
  createSharedMemory,
  F_SEAL_SHRINK,
  fillMemory,
  guardMemory,
  installMemoryGuard,
  isZeroMemory,
  load16,
  mapAnonymous,
  mapFile,
  memoryFaults,
  PAGE_SIZE,
  pageSizeOf,
  sealsOf,
  store8,
  store32,
  unguardMemory,
  unmap,
  viewOf,
  wipeMemory,
} from "./memory.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-memory-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

test("zeros are told from memory with a single bit set, wherever it is, at any length and alignment", () => {
  using arena = new Arena(PAGE_SIZE);
  const { address, view } = arena.bytes(1024);
  for (let length = 0; length < 200; length++) {
    const start = length % 9;
    expect(isZeroMemory(address + start, length)).toBe(true);
    view[start + length] = 1; // behind the end
    expect(isZeroMemory(address + start, length)).toBe(true);
    view[start + length] = 0;
    for (let at = 0; at < length; at++) {
      view[start + at] = 0x80;
      expect(isZeroMemory(address + start, length)).toBe(false);
      view[start + at] = 0;
    }
  }
});

test("anonymous memory: zeroed and page-aligned", () => {
  const address = mapAnonymous(2 * PAGE_SIZE);
  expect(address % PAGE_SIZE).toBe(0);
  expect(bytesAt(address, 2 * PAGE_SIZE).every((byte) => byte === 0)).toBe(true);
  unmap(address, 2 * PAGE_SIZE);
});

test("a mapping that the system refuses is an operating error", () => {
  expect(() => mapAnonymous(2 ** 52)).toThrow(UbiError);
  expect(() => mapFile({ fd: -1, offsetBytes: 0, lengthBytes: 4096, writable: true })).toThrow(
    UbiError,
  );
});

test("shared memory: two mappings of it see each other, and it cannot shrink", () => {
  const fd = createSharedMemory(PAGE_SIZE);
  const options = { fd, offsetBytes: 0, lengthBytes: PAGE_SIZE, writable: true };
  const [one, other] = [mapFile(options), mapFile(options)];
  store32(one + 100, 0xdead_beef);
  expect([...bytesAt(other + 100, 4)]).toEqual([0xef, 0xbe, 0xad, 0xde]);
  expect(sealsOf(fd) & F_SEAL_SHRINK).toBe(F_SEAL_SHRINK);
  expect(() => ftruncateSync(fd, 0)).toThrow();
  expect(pageSizeOf(fd)).toBe(PAGE_SIZE);
  for (const address of [one, other]) {
    unmap(address, PAGE_SIZE);
  }
  closeSync(fd);
});

test("copies, fills and single stores touch their bytes and no others", () => {
  using arena = new Arena(PAGE_SIZE);
  const { address } = arena;
  fillMemory(address + 16, 0x11, 32);
  copyMemory(address + 20, address + 16, 28); // the areas overlap
  store8(address + 17, 0x1ff);
  load16(address + 101, address + 15); // from and to odd addresses
  expect([...bytesAt(address + 14, 5)]).toEqual([0, 0, 0x11, 0xff, 0x11]);
  expect([...bytesAt(address + 47, 3)]).toEqual([0x11, 0, 0]);
  expect([...bytesAt(address + 101, 4)]).toEqual([0, 0x11, 0xff, 0x11]);
  wipeMemory(address, PAGE_SIZE);
  expect(bytesAt(address, PAGE_SIZE).every((byte) => byte === 0)).toBe(true);
});

test("guard: memory that its owner cut off reads as zeros, can be written, and is counted", () => {
  installMemoryGuard();
  installMemoryGuard();
  using cut = new CutOff(4 * PAGE_SIZE);
  guardMemory(cut.address, cut.lengthBytes, PAGE_SIZE);
  const before = memoryFaults();
  cut.shrink(PAGE_SIZE);
  expect(bytesAt(cut.address, PAGE_SIZE).every((byte) => byte === 7)).toBe(true);
  expect(memoryFaults()).toBe(before);
  expect(bytesAt(cut.address + PAGE_SIZE, PAGE_SIZE).every((byte) => byte === 0)).toBe(true);
  store8(cut.address + 3 * PAGE_SIZE + 5, 0x21);
  expect([...bytesAt(cut.address + 3 * PAGE_SIZE + 5, 1)]).toEqual([0x21]);
  expect(memoryFaults()).toBe(before + 2);
  unguardMemory(cut.address);
});

test("guard: a copy by native code over the cut goes on", () => {
  installMemoryGuard();
  using cut = new CutOff(2 * PAGE_SIZE);
  using arena = new Arena(2 * PAGE_SIZE);
  guardMemory(cut.address, cut.lengthBytes, PAGE_SIZE);
  cut.shrink(PAGE_SIZE);
  copyMemory(arena.address, cut.address, 2 * PAGE_SIZE);
  expect([...bytesAt(arena.address + PAGE_SIZE - 1, 2)]).toEqual([7, 0]);
  unguardMemory(cut.address);
});

test("guard: outside guarded ranges the signal ends the process as ever", async () => {
  const script = `
    import { ftruncateSync, openSync } from "node:fs";
    import { installMemoryGuard, mapFile, copyMemory, mapAnonymous } from "${import.meta.dir}/memory.ts";
    installMemoryGuard();
    const fd = openSync("${join(folder, "other")}", "w+");
    ftruncateSync(fd, 4096);
    const address = mapFile({ fd, offsetBytes: 0, lengthBytes: 4096, writable: true });
    ftruncateSync(fd, 0);
    copyMemory(mapAnonymous(4096), address, 16);
    console.log("went on");`;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "ignore" });
  expect(await child.stdout.text()).toBe("");
  expect(await child.exited).not.toBe(0);
});

test("guard: its table has places for two memory maps, and says when it is full", () => {
  const start = 2 ** 46;
  const guarded: number[] = [];
  expect(() => {
    for (let i = 0; i < 4096; i++) {
      guardMemory(start + i * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE);
      guarded.push(start + i * PAGE_SIZE);
    }
  }).toThrow("too many memory regions");
  expect(guarded.length).toBeGreaterThanOrEqual(2 * 509);
  for (const address of guarded) {
    unguardMemory(address);
  }
});

// --- internal ---

function bytesAt(address: number, lengthBytes: number): Uint8Array {
  using arena = new Arena(Math.max(lengthBytes, PAGE_SIZE));
  copyMemory(arena.address, address, lengthBytes);
  return new Uint8Array(viewOf(arena.address, lengthBytes)).slice();
}

/** Memory of a file, full of sevens, that can be cut off. */
class CutOff implements Disposable {
  readonly address: number;
  readonly lengthBytes: number;
  readonly #fd: number;

  constructor(lengthBytes: number) {
    this.lengthBytes = lengthBytes;
    this.#fd = openSync(join(folder, "cut"), "w+");
    ftruncateSync(this.#fd, lengthBytes);
    this.address = mapFile({ fd: this.#fd, offsetBytes: 0, lengthBytes, writable: true });
    fillMemory(this.address, 7, lengthBytes);
  }

  shrink(bytes: number): void {
    ftruncateSync(this.#fd, bytes);
  }

  [Symbol.dispose](): void {
    unmap(this.address, this.lengthBytes);
    closeSync(this.#fd);
  }
}
