/** Memory by address (ffi/memory.h): arenas, guest mappings, copies, the SIGBUS guard. */
import { type Pointer, ptr, toArrayBuffer } from "bun:ffi";
import { assert, errnoText, UbiError } from "../errors.ts";
import { link } from "./library.ts";

const native = link({
  ubi_memory_map_anonymous: { args: ["f64"], returns: "f64" },
  ubi_memory_map_file: { args: ["i32", "f64", "f64", "u32"], returns: "f64" },
  ubi_memory_unmap: { args: ["f64", "f64"], returns: "i32" },
  ubi_memory_create_shared: { args: ["f64"], returns: "i32" },
  ubi_memory_seals: { args: ["i32"], returns: "i32" },
  ubi_memory_page_size: { args: ["i32"], returns: "f64" },
  ubi_memory_copy: { args: ["ptr", "ptr", "u32"], returns: "void" },
  ubi_memory_fill: { args: ["ptr", "u32", "u32"], returns: "void" },
  ubi_memory_is_zero: { args: ["ptr", "u32"], returns: "i32" },
  ubi_memory_wipe: { args: ["ptr", "u32"], returns: "void" },
  ubi_memory_load16: { args: ["ptr", "ptr"], returns: "void" },
  ubi_memory_store8: { args: ["ptr", "u32"], returns: "void" },
  ubi_memory_store32: { args: ["ptr", "u32"], returns: "void" },
  ubi_memory_mark_dirty: { args: ["ptr", "f64", "f64", "f64"], returns: "void" },
  ubi_memory_guard_install: { args: [], returns: "i32" },
  ubi_memory_guard_add: { args: ["f64", "f64", "f64"], returns: "i32" },
  ubi_memory_guard_remove: { args: ["f64"], returns: "i32" },
  ubi_memory_guard_faults: { args: [], returns: "f64" },
});

export const PAGE_SIZE = 4096;
export const F_SEAL_SHRINK = 2;
/** `toArrayBuffer` counts as heap of this thread's collector: views stay small, guest memory has none. */
const VIEW_BYTES_MAX = 64 * 2 ** 20;

/** Zeroed, page-aligned, private memory. @throws UbiError E_MEMORY */
export function mapAnonymous(lengthBytes: number): number {
  return mapped(native.ubi_memory_map_anonymous(lengthBytes), `${lengthBytes} bytes`);
}

/** Maps a descriptor, shared. `offsetBytes` is a multiple of the page size. @throws UbiError E_MEMORY */
export function mapFile(options: {
  readonly fd: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly writable: boolean;
}): number {
  const { fd, offsetBytes, lengthBytes, writable } = options;
  const address = native.ubi_memory_map_file(fd, offsetBytes, lengthBytes, writable ? 1 : 0);
  return mapped(address, `${lengthBytes} bytes of descriptor ${fd}`);
}

/** Views of this memory must not be used afterwards. */
export function unmap(address: number, lengthBytes: number): void {
  assert(native.ubi_memory_unmap(address, lengthBytes) === 0, "a mapping of ours is unmapped once");
}

/** A memfd that cannot shrink, for memory shared with another process. @throws UbiError E_MEMORY */
export function createSharedMemory(lengthBytes: number): number {
  const fd = native.ubi_memory_create_shared(lengthBytes);
  if (fd < 0) {
    throw new UbiError("E_MEMORY", `cannot create shared memory: ${errnoText(fd)}`);
  }
  return fd;
}

/** The seals of a memfd, or a negative errno where the descriptor has none. */
export function sealsOf(fd: number): number {
  return native.ubi_memory_seals(fd);
}

/** Bytes of a page behind `fd`: larger than 4096 for huge pages. */
export function pageSizeOf(fd: number): number {
  return native.ubi_memory_page_size(fd);
}

/** An ArrayBuffer over `lengthBytes` at `address`. It dangles after `unmap`. */
export function viewOf(address: number, lengthBytes: number): ArrayBuffer {
  assert(address > 0, "a view needs an address");
  assert(lengthBytes <= VIEW_BYTES_MAX, "guest memory is never viewed as a whole");
  return toArrayBuffer(address as Pointer, 0, lengthBytes);
}

/** Where bytes lie, for a call that ends before anything else happens: a collector may own, and move, them. */
export function addressOf(bytes: Uint8Array): number {
  return ptr(bytes);
}

/** Copies between addresses; the areas may overlap. */
export function copyMemory(target: number, source: number, lengthBytes: number): void {
  native.ubi_memory_copy(target as Pointer, source as Pointer, lengthBytes);
}

export function fillMemory(target: number, value: number, lengthBytes: number): void {
  native.ubi_memory_fill(target as Pointer, value, lengthBytes);
}

export function isZeroMemory(address: number, lengthBytes: number): boolean {
  return native.ubi_memory_is_zero(address as Pointer, lengthBytes) === 1;
}

/** Zeroes what held a key. */
export function wipeMemory(target: number, lengthBytes: number): void {
  native.ubi_memory_wipe(target as Pointer, lengthBytes);
}

/** Copies 16 bytes from any alignment: one snapshot of what its owner may be changing. */
export function load16(target: number, source: number): void {
  native.ubi_memory_load16(target as Pointer, source as Pointer);
}

export function store8(target: number, value: number): void {
  native.ubi_memory_store8(target as Pointer, value);
}

export function store32(target: number, value: number): void {
  native.ubi_memory_store32(target as Pointer, value);
}

/** A log of dirty pages: one bit for each 4096 bytes from address 0 on. */
export interface PageLog {
  readonly address: number;
  readonly sizeBytes: number;
}

/** Marks the pages of `lengthBytes` at `place` in a log that others read and clear; none behind its end. */
export function markDirty(log: PageLog, place: number, lengthBytes: number): void {
  native.ubi_memory_mark_dirty(log.address as Pointer, log.sizeBytes, place, lengthBytes);
}

/** From here on a front end that truncates its shared memory breaks its own disk, not this process. */
export function installMemoryGuard(): void {
  const result = native.ubi_memory_guard_install();
  if (result < 0) {
    throw new UbiError("E_MEMORY", `cannot guard against SIGBUS: ${errnoText(result)}`);
  }
}

/** Guards a mapping; `pageSizeBytes` as `pageSizeOf` tells. @throws UbiError E_MEMORY when the table is full */
export function guardMemory(address: number, lengthBytes: number, pageSizeBytes: number): void {
  const result = native.ubi_memory_guard_add(address, lengthBytes, pageSizeBytes);
  if (result < 0) {
    throw new UbiError("E_MEMORY", `too many memory regions to guard: ${errnoText(result)}`);
  }
}

export function unguardMemory(address: number): void {
  native.ubi_memory_guard_remove(address);
}

/** Number of cut-off pages met so far by any thread. */
export function memoryFaults(): number {
  return native.ubi_memory_guard_faults();
}

// --- internal ---

function mapped(address: number, what: string): number {
  if (address < 0) {
    throw new UbiError("E_MEMORY", `cannot map ${what}: ${errnoText(address)}`);
  }
  return address;
}
