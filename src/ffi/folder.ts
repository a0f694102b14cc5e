/**
 * Folders (ffi/file.h): their entries in small portions, which Bun's `opendir` does not do (it holds the whole
 * folder), and durability of everything that was written.
 */
import type { Pointer } from "bun:ffi";
import { assert } from "../errors.ts";
import { Arena } from "./arena.ts";
import { link } from "./library.ts";

const native = link({
  ubi_file_sync_filesystem: { args: ["i32"], returns: "i32" },
  ubi_file_read_entries: { args: ["i32", "ptr", "u32"], returns: "i32" },
});

/**
 * Brings everything that was written to the file system of `fd` to disk: 0 or a negative errno. Blocks this
 * thread. A write that failed in the background is told if `fd` was open at that time (since Linux 5.8).
 */
export function syncFilesystem(fd: number): number {
  return native.ubi_file_sync_filesystem(fd);
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
/** struct linux_dirent64: inode u64, offset u64, record length u16, type u8, name. */
const RECORD_LENGTH_OFFSET = 16;
const NAME_OFFSET = 19;
