/**
 * Folders (ffi/folder.h, ffi/file.h): work inside of one that never follows a link out of it, entries in small
 * portions, which Bun's `opendir` does not do (it holds the whole folder), and durability of all that was written.
 */
import type { Pointer } from "bun:ffi";
import { constants } from "node:fs";
import { assert } from "../errors.ts";
import { Arena } from "./arena.ts";
import { link } from "./library.ts";

const native = link({
  ubi_file_sync_filesystem: { args: ["i32"], returns: "i32" },
  ubi_file_read_entries: { args: ["i32", "ptr", "u32"], returns: "i32" },
  ubi_folder_open: { args: ["i32", "ptr", "u32", "u32"], returns: "i32" },
  ubi_folder_make: { args: ["i32", "ptr", "u32"], returns: "i32" },
  ubi_folder_rename: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  ubi_folder_link: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  ubi_folder_unlink: { args: ["i32", "ptr"], returns: "i32" },
  ubi_folder_rename_new: { args: ["ptr", "ptr"], returns: "i32" },
});

/** Flags to look at what is there, also at a link or a pipe, without opening it. */
export const OPEN_TO_LOOK = 0o10000000 /* O_PATH */ | constants.O_NOFOLLOW;

/**
 * Brings everything that was written to the file system of `fd` to disk: 0 or a negative errno. Blocks this
 * thread. A write that failed in the background is told if `fd` was open at that time (since Linux 5.8).
 */
export function syncFilesystem(fd: number): number {
  return native.ubi_file_sync_filesystem(fd);
}

/**
 * Opens `path` in the folder open as `fd`: a descriptor or a negative errno; -ELOOP (-40) where a part of the path is
 * a symbolic link. "." is the folder itself. `mode` is that of a file that is made.
 */
export function openInside(fd: number, path: string, flags: number, mode = 0): number {
  return native.ubi_folder_open(fd, pathBytes(path), flags, mode);
}

/** Makes a folder and those above it, as far as they are missing. 0 or a negative errno, as the next ones. */
export function makeFolderInside(fd: number, path: string, mode: number): number {
  return native.ubi_folder_make(fd, pathBytes(path), mode);
}

/** Replaces what is there; a link is replaced itself. */
export function renameInside(fd: number, from: string, to: string): number {
  return native.ubi_folder_rename(fd, pathBytes(from), pathBytes(to));
}

/** -EEXIST (-17) where there is something. */
export function linkInside(fd: number, from: string, to: string): number {
  return native.ubi_folder_link(fd, pathBytes(from), pathBytes(to));
}

export function unlinkInside(fd: number, path: string): number {
  return native.ubi_folder_unlink(fd, pathBytes(path));
}

/**
 * Gives a file its name, of whole paths, unless there is something of that name, also a link that leads nowhere:
 * -EEXIST (-17). -EINVAL (-22) or -ENOSYS (-38) where the file system or the kernel cannot do it.
 */
export function renameNew(from: string, to: string): number {
  return native.ubi_folder_rename_new(pathBytes(from), pathBytes(to));
}

/** Reads an open folder from where its descriptor stands. */
export class FolderReader implements Disposable {
  readonly #fd: number;
  readonly #arena = new Arena(ENTRIES_BYTES);
  readonly #bytes: Uint8Array;
  readonly #address: number;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });

  /** The descriptor stays the caller's. */
  constructor(fd: number) {
    this.#fd = fd;
    const { view, address } = this.#arena.bytes(ENTRIES_BYTES);
    this.#bytes = view;
    this.#address = address;
  }

  /**
   * The next names, without `.` and `..` and those that are not UTF-8; undefined at the end, or a negative
   * errno. A name that is added or removed meanwhile may be told or not.
   */
  next(): readonly string[] | undefined | number {
    const filled = native.ubi_file_read_entries(this.#fd, this.#address as Pointer, ENTRIES_BYTES);
    if (filled <= 0) {
      return filled === 0 ? undefined : filled;
    }
    const names: string[] = [];
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, filled);
    let offset = 0;
    while (offset < filled) {
      const recordBytes = view.getUint16(offset + RECORD_LENGTH_OFFSET, true);
      assert(recordBytes > NAME_OFFSET, "the kernel's records are as struct linux_dirent64 says");
      const name = this.#nameAt(offset + NAME_OFFSET, offset + recordBytes);
      if (name !== undefined && name !== "." && name !== "..") {
        names.push(name);
      }
      offset += recordBytes;
    }
    return names;
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }

  #nameAt(start: number, end: number): string | undefined {
    const stop = this.#bytes.indexOf(0, start);
    assert(stop >= start && stop < end, "a name ends in NUL within its record");
    try {
      return this.#decoder.decode(this.#bytes.subarray(start, stop));
    } catch {
      return undefined; // no name of ours
    }
  }
}

// --- internal ---

const ENTRIES_BYTES = 64 * 1024;
/** Ended by NUL. Large enough for Bun not to move it: see arena.ts. */
function pathBytes(path: string): Uint8Array {
  assert(!path.includes("\0"), "a path has no NUL");
  const encoded = new TextEncoder().encode(path);
  const bytes = new Uint8Array(Math.max(1024, encoded.length + 1));
  bytes.set(encoded);
  return bytes;
}

/** struct linux_dirent64: inode u64, offset u64, record length u16, type u8, name. */
const RECORD_LENGTH_OFFSET = 16;
const NAME_OFFSET = 19;
