/** The disk's file (ffi/file.h): geometry, locks and synchronous I/O. Results: 0, counts or negative errno. */
import type { Pointer } from "bun:ffi";
import { Arena } from "./arena.ts";
import { link } from "./library.ts";
import { f64 } from "./view.ts";

const native = link({
  ubi_file_probe: { args: ["i32", "ptr"], returns: "i32" },
  ubi_file_make_blocking: { args: ["i32"], returns: "i32" },
  ubi_file_retire: { args: ["i32"], returns: "i32" },
  ubi_file_lock: { args: ["i32", "u32"], returns: "i32" },
  ubi_file_mark: { args: ["i32", "f64"], returns: "i32" },
  ubi_file_unlock: { args: ["i32"], returns: "i32" },
  ubi_file_read: { args: ["i32", "f64", "ptr", "u32"], returns: "i32" },
  ubi_file_write: { args: ["i32", "f64", "ptr", "u32", "u32"], returns: "i32" },
  ubi_file_read_vector: { args: ["i32", "f64", "ptr", "u32"], returns: "i32" },
  ubi_file_write_vector: { args: ["i32", "f64", "ptr", "u32", "u32"], returns: "i32" },
  ubi_file_datasync: { args: ["i32"], returns: "i32" },
  ubi_file_will_need: { args: ["i32", "f64", "f64"], returns: "i32" },
  ubi_file_forget: { args: ["i32", "f64", "f64"], returns: "i32" },
  ubi_file_begin_writeback: { args: ["i32", "f64", "f64"], returns: "i32" },
  ubi_file_allocate: { args: ["i32", "u32", "f64", "f64"], returns: "i32" },
});

export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 16;

/** What a file or block device tells of itself; all sizes in bytes. */
export interface FileGeometry {
  readonly sizeBytes: number;
  readonly isBlockDevice: boolean;
  /** Smallest unit of direct I/O, for offset and length. */
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  /** 0 when the device does not tell. */
  readonly optimalIoBytes: number;
  /** What addresses of direct I/O must be a multiple of. */
  readonly memoryAlignBytes: number;
  readonly isDirectIoSupported: boolean;
  readonly discardUnitBytes: number;
}

/** The geometry of an open file or block device, or a negative errno (-EINVAL: neither of them). */
export function probeFile(fd: number): FileGeometry | number {
  using arena = new Arena(4096);
  const fields = arena.doubles(8);
  const result = native.ubi_file_probe(fd, fields.address as Pointer);
  if (result < 0) {
    return result;
  }
  return {
    sizeBytes: f64(fields.view, 0),
    isBlockDevice: f64(fields.view, 1) === 1,
    logicalBlockBytes: f64(fields.view, 2),
    physicalBlockBytes: f64(fields.view, 3),
    optimalIoBytes: f64(fields.view, 4),
    memoryAlignBytes: f64(fields.view, 5),
    isDirectIoSupported: f64(fields.view, 6) === 1,
    discardUnitBytes: f64(fields.view, 7),
  };
}

/**
 * Clears O_NONBLOCK, which only the opening needs: with it io_uring fails requests with EAGAIN, instead of
 * waiting, on file systems without asynchronous I/O of their own (NFS, FUSE). 0 or a negative errno.
 */
export function makeBlocking(fd: number): number {
  return native.ubi_file_make_blocking(fd);
}

/** Takes the lock without waiting: 0, or -EAGAIN (-11) when another open description holds it. */
export function lockFile(fd: number, mode: "exclusive" | "shared"): number {
  return native.ubi_file_lock(fd, mode === "exclusive" ? 1 : 0);
}

/**
 * Names this process in /proc/locks as who has the file, beside the lock itself, until it ends or closes any descriptor of
 * the file. 0 or a negative errno.
 */
export function markFile(fd: number, offset: number): number {
  return native.ubi_file_mark(fd, offset);
}

/** Gives the lock up before the description is closed. */
export function unlockFile(fd: number): void {
  native.ubi_file_unlock(fd);
}

/**
 * Closes the file, but keeps the number of its descriptor taken until `closeSync`: a thread that still has the
 * number reads nothing instead of another file. 0 or a negative errno.
 */
export function retireFile(fd: number): number {
  return native.ubi_file_retire(fd);
}

/** Reads exactly `lengthBytes`: 0, or a negative errno (-ENODATA at the end of the file). */
export function readFileAt(
  fd: number,
  offset: number,
  address: number,
  lengthBytes: number,
): number {
  return native.ubi_file_read(fd, offset, address as Pointer, lengthBytes);
}

/** Writes exactly `lengthBytes`, through to the medium when `isDurable`. */
export function writeFileAt(
  fd: number,
  offset: number,
  address: number,
  lengthBytes: number,
  isDurable: boolean,
): number {
  return native.ubi_file_write(fd, offset, address as Pointer, lengthBytes, isDurable ? 1 : 0);
}

/** One preadv of `count` struct iovec: bytes moved or a negative errno. */
export function readVectorAt(fd: number, offset: number, vector: number, count: number): number {
  return native.ubi_file_read_vector(fd, offset, vector as Pointer, count);
}

/** One pwritev of `count` struct iovec: bytes moved or a negative errno. */
export function writeVectorAt(
  fd: number,
  offset: number,
  vector: number,
  count: number,
  isDurable: boolean,
): number {
  return native.ubi_file_write_vector(fd, offset, vector as Pointer, count, isDurable ? 1 : 0);
}

/** Asks the kernel to read a range into the page cache meanwhile. Only advice: what comes of it is not told. */
export function willNeedFile(fd: number, offset: number, lengthBytes: number): void {
  native.ubi_file_will_need(fd, offset, lengthBytes);
}

/**
 * Lets the page cache drop a range, what is not on disk excepted: a read from here on asks the medium. Only advice: a
 * length of 0 reaches to the end of the file.
 */
export function forgetFile(fd: number, offset: number, lengthBytes: number): void {
  native.ubi_file_forget(fd, offset, lengthBytes);
}

/**
 * Asks the kernel to bring a range to disk meanwhile, so that a sync later has less to do. Only advice: a length of 0
 * reaches to the end of the file.
 */
export function beginWriteback(fd: number, offset: number, lengthBytes: number): void {
  native.ubi_file_begin_writeback(fd, offset, lengthBytes);
}

export function syncFileData(fd: number): number {
  return native.ubi_file_datasync(fd);
}

/** fallocate(2) with `mode` of FALLOC_FL bits. */
export function allocateFile(
  fd: number,
  mode: number,
  offset: number,
  lengthBytes: number,
): number {
  return native.ubi_file_allocate(fd, mode, offset, lengthBytes);
}
