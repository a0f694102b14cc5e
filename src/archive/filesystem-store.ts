/**
 * An archive in a folder: an object is a file, its key the path in the folder.
 *
 *   folder/metadata.json            0600
 *   folder/data/<64 hex digits>     0600
 *   folder/.incomplete/<random>     what is being written; renamed to its key when it is whole
 *
 * A run that was killed leaves files in `.incomplete`. They are no objects: `list` tells them only to those who
 * ask for that prefix, to remove them.
 *
 * Who writes archives may not be who runs this: below the folder, which may be reached through links, no link is
 * followed, so that nothing outside of it is read, written or removed.
 *
 * Opening, writing and renaming are synchronous: a store belongs to a worker thread, and a put shall cost little
 * more than its write(2). Nothing is brought to disk before `sync`, which does it for the whole file system in one
 * go, also for what other threads wrote. But a durable put is on disk when it is done, first the file, then its
 * name: after a loss of power there is the old object or the new one, never an empty file.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  type Stats,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path/posix";
import { assert, errnoText, errorText, UbiError } from "../errors.ts";
import { beginWriteback, lockFile } from "../ffi/file.ts";
import {
  FolderReader,
  linkInside,
  makeFolderInside,
  openInside,
  renameInside,
  syncFilesystem,
} from "../ffi/folder.ts";
import {
  check,
  codeOf,
  isAbsent,
  openFile,
  READ_FLAGS,
  readWhole,
  removeFile,
  statsInside,
  writeWhole,
} from "./inside-folder.ts";
import { assertKeyPrefix, assertObjectKey, isObjectKey } from "./object-key.ts";
import type {
  GetOptions,
  NewObject,
  ObjectEntry,
  ObjectStore,
  PutNewResult,
  PutOptions,
  StoreOptions,
  StoreRole,
} from "./object-store.ts";

export interface FilesystemStoreDescription {
  readonly kind: "filesystem";
  /** Absolute. */
  readonly path: string;
  readonly role: StoreRole;
}

/** Where unfinished objects lie: the prefix to list for removing what a killed run left. */
export const INCOMPLETE_FOLDER = ".incomplete";

/** Whether a writer of archives made it, and not somebody else. */
export function isIncompleteKey(key: string): boolean {
  return /^\.incomplete\/[0-9a-f]{16}-[1-9][0-9]*$/.test(key);
}

export class FilesystemStore implements ObjectStore {
  readonly name: string;
  readonly #isWriter: boolean;
  /** Open for life: only then `syncFilesystem` tells of writes that failed in the background. */
  #folderFd: number;
  readonly #runName = randomBytes(8).toString("hex");
  #putCount = 0;
  /** Folders that were made or seen. */
  readonly #folders = new Set<string>();

  private constructor(description: FilesystemStoreDescription, folderFd: number) {
    this.name = description.path;
    this.#isWriter = description.role === "write";
    this.#folderFd = folderFd;
  }

  /** @throws UbiError E_STORE when the folder is missing (a reader) or cannot be made (a writer) */
  static open(description: FilesystemStoreDescription): FilesystemStore {
    const { path, role } = description;
    try {
      if (role === "write") {
        makeDurableFolder(path);
        refuseOtherPlace(path, join(path, "data"));
      }
      const flags = constants.O_RDONLY | constants.O_DIRECTORY;
      return new FilesystemStore(description, openSync(path, flags));
    } catch (error) {
      const advice =
        role === "read" ? "; name the folder that an archive was written to" : "; mend its path";
      throw failure(`cannot open the archive folder ${path}`, asNoFolder(error), advice);
    }
  }

  async get(key: string, options: GetOptions): Promise<Uint8Array | undefined> {
    assertObjectKey(key);
    options.signal?.throwIfAborted();
    let fd: number | undefined;
    try {
      fd = openFile(this.#root, key);
      if (fd === undefined) {
        return undefined;
      }
      const sizeBytes = this.#sizeOfOpen(fd, key);
      if (sizeBytes > options.lengthMax) {
        const message = `${sizeBytes} bytes, at most ${options.lengthMax} are expected there`;
        throw new UbiError("E_STORE_OBJECT", `object ${key} in ${this.name} has ${message}`);
      }
      const bytes = await readWhole(fd, sizeBytes);
      options.signal?.throwIfAborted();
      return bytes;
    } catch (error) {
      options.signal?.throwIfAborted();
      throw failure(`cannot read object ${key} in ${this.name}`, error);
    } finally {
      if (fd !== undefined) {
        closeSync(fd);
      }
    }
  }

  async put(key: string, bytes: Uint8Array, options: PutOptions = {}): Promise<void> {
    await this.#putTogether([{ key, bytes }], options);
  }

  async putAll(objects: readonly NewObject[], options: StoreOptions = {}): Promise<void> {
    await this.#putTogether(objects, { ...options, isDurable: true });
  }

  async putNew(key: string, bytes: Uint8Array, options: StoreOptions = {}): Promise<PutNewResult> {
    this.#assertWritable(key, options);
    try {
      const incomplete = this.#stage(key, bytes, true);
      try {
        check(linkInside(this.#root, incomplete, key)); // fails where there is one, as no rename does
      } finally {
        removeFile(this.#root, incomplete);
      }
      this.#syncFolders([key]);
      return "put";
    } catch (error) {
      const code = codeOf(error);
      if (code === "EEXIST") {
        return "exists";
      }
      if (code === "EPERM" || code === "EOPNOTSUPP" || code === "ENOSYS") {
        return "unsupported"; // a file system without links
      }
      throw failure(`cannot write object ${key} in ${this.name}`, error);
    }
  }

  async sizeOf(key: string, options: StoreOptions = {}): Promise<number | undefined> {
    assertObjectKey(key);
    options.signal?.throwIfAborted();
    const stats = this.#statsOf(key);
    return stats?.isFile() === true ? stats.size : undefined;
  }

  /** Of a file only its content counts: after a loss of power its name may be there, and its length, without it. */
  async holds(key: string, bytes: Uint8Array, options: StoreOptions = {}): Promise<boolean> {
    if ((await this.sizeOf(key, options)) !== bytes.length) {
      return false;
    }
    const stored = await this.get(key, { ...options, lengthMax: bytes.length });
    return stored !== undefined && Buffer.compare(stored, bytes) === 0;
  }

  async *list(prefix: string, options: StoreOptions = {}): AsyncGenerator<ObjectEntry> {
    assertKeyPrefix(prefix);
    const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    for await (const entry of this.#listFolder(folder, prefix, options.signal)) {
      yield entry;
    }
  }

  async remove(key: string, options: StoreOptions = {}): Promise<void> {
    assertObjectKey(key);
    assert(this.#isWriter, "a store opened for reading is not written");
    options.signal?.throwIfAborted();
    try {
      removeFile(this.#root, key);
    } catch (error) {
      throw failure(`cannot remove object ${key} in ${this.name}`, error);
    }
  }

  /** Blocks this thread until all of the file system is on disk, which may take seconds. */
  async sync(): Promise<void> {
    const result = syncFilesystem(this.#root);
    if (result === -ENOSYS || result === -EPERM) {
      return this.#syncEach();
    }
    if (result < 0) {
      throw new UbiError("E_STORE", `cannot bring ${this.name} to disk: ${errnoText(result)}`);
    }
  }

  /** Network file systems lock no folder, or for one machine only. */
  lock(): "locked" | "busy" | "unsupported" {
    const result = lockFile(this.#root, "exclusive");
    return result === 0 ? "locked" : result === -EAGAIN ? "busy" : "unsupported";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#folderFd >= 0) {
      closeSync(this.#folderFd);
      this.#folderFd = -1;
    }
  }

  // --- internal ---

  get #root(): number {
    assert(this.#folderFd >= 0, "a closed store is not used");
    return this.#folderFd;
  }

  #assertWritable(key: string, { signal }: StoreOptions): void {
    assertObjectKey(key);
    assert(this.#isWriter, "a store opened for reading is not written");
    signal?.throwIfAborted();
  }

  /** All are whole before one has its name. */
  async #putTogether(objects: readonly NewObject[], options: PutOptions): Promise<void> {
    const isDurable = options.isDurable === true;
    for (const { key } of objects) {
      this.#assertWritable(key, options);
    }
    const staged: { readonly key: string; readonly path: string }[] = [];
    let current = "";
    try {
      for (const { key, bytes } of objects) {
        current = key;
        staged.push({ key, path: this.#stage(key, bytes, isDurable) });
      }
      for (const { key, path } of staged) {
        current = key;
        check(renameInside(this.#root, path, key));
      }
      if (isDurable) {
        this.#syncFolders(objects.map(({ key }) => key));
      }
    } catch (error) {
      this.#folders.clear();
      for (const { path } of staged) {
        removeFile(this.#root, path);
      }
      throw failure(`cannot write object ${current} in ${this.name}`, asFolder(error));
    }
  }

  /** Writes a file that has no key yet, and returns its path in the folder. */
  #stage(key: string, bytes: Uint8Array, isDurable: boolean): string {
    this.#putCount += 1;
    const path = `${INCOMPLETE_FOLDER}/${this.#runName}-${this.#putCount}`;
    this.#makeFolder(INCOMPLETE_FOLDER);
    this.#makeFolder(dirname(key));
    const fd = check(openInside(this.#root, path, CREATE_FLAGS, FILE_MODE));
    try {
      writeWhole(fd, bytes);
      if (isDurable) {
        fdatasyncSync(fd);
      } else if (bytes.length >= WRITEBACK_BYTES_MIN) {
        beginWriteback(fd, 0, 0); // the disk works while the next object is made
      }
    } catch (error) {
      removeFile(this.#root, path);
      throw error;
    } finally {
      closeSync(fd);
    }
    return path;
  }

  #syncFolders(keys: readonly string[]): void {
    for (const folder of new Set(keys.map((key) => dirname(key)))) {
      this.#syncOne(folder);
    }
  }

  #makeFolder(path: string): void {
    if (path !== "." && !this.#folders.has(path)) {
      check(makeFolderInside(this.#root, path, FOLDER_MODE));
      this.#folders.add(path);
    }
  }

  #statsOf(key: string): Stats | undefined {
    try {
      return statsInside(this.#root, key);
    } catch (error) {
      throw failure(`cannot look at object ${key} in ${this.name}`, error);
    }
  }

  #sizeOfOpen(fd: number, key: string): number {
    const stats = fstatSync(fd);
    if (!stats.isFile()) {
      throw new UbiError("E_STORE_OBJECT", `object ${key} in ${this.name} is no regular file`);
    }
    return stats.size;
  }

  /** `folder` is empty or ends in "/". Links are not followed. */
  async *#listFolder(
    folder: string,
    prefix: string,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<ObjectEntry> {
    for await (const name of this.#namesIn(folder)) {
      signal?.throwIfAborted();
      const key = `${folder}${name}`;
      const isWanted = key.startsWith(prefix) && (!name.startsWith(".") || prefix.startsWith("."));
      if (!isWanted || !isObjectKey(key)) {
        continue;
      }
      if (folder === `${INCOMPLETE_FOLDER}/` && !isIncompleteKey(key)) {
        continue; // somebody else's, whatever it is
      }
      const stats = this.#statsOf(key);
      if (stats?.isFile() === true) {
        yield { key, sizeBytes: stats.size };
      } else if (stats?.isDirectory() === true) {
        yield* this.#listFolder(`${key}/`, prefix, signal);
      }
    }
  }

  /** Other work of this thread goes on between the portions. */
  async *#namesIn(folder: string): AsyncGenerator<string> {
    const place = `folder ${join(this.name, folder)}`;
    let fd: number;
    try {
      fd = check(openInside(this.#root, join("./", folder).replace(/\/$/, ""), FOLDER_FLAGS));
    } catch (error) {
      if (isAbsent(error)) {
        return;
      }
      throw failure(`cannot list ${place}`, error);
    }
    try {
      using reader = new FolderReader(fd);
      for (let names = reader.next(); names !== undefined; names = reader.next()) {
        if (typeof names === "number") {
          throw new UbiError("E_STORE", `cannot list ${place}: ${errnoText(names)}`);
        }
        yield* names;
        await new Promise((resolve) => setImmediate(resolve));
      }
    } finally {
      closeSync(fd);
    }
  }

  /** Where the kernel (or what confines this process) has no syncfs: file by file, then the folders. */
  async #syncEach(): Promise<void> {
    const folders = new Set(["."]);
    for await (const { key } of this.list("")) {
      this.#syncOne(key);
      folders.add(dirname(key));
    }
    for (const folder of folders) {
      this.#syncOne(folder);
    }
  }

  #syncOne(path: string): void {
    try {
      const fd = check(openInside(this.#root, path, READ_FLAGS));
      try {
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw failure(`cannot bring ${join(this.name, path)} to disk`, error);
    }
  }
}

/** Smaller objects are left to the kernel: it brings many of them to disk in one go. */
const WRITEBACK_BYTES_MIN = 128 * 1024;
const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;
const EPERM = 1;
const EAGAIN = 11;
const ENOSYS = 38;
const CREATE_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
const FOLDER_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY;

/** The names of new folders are brought to disk here: `sync` covers what lies below them. */
function makeDurableFolder(path: string): void {
  const first = mkdirSync(path, { recursive: true, mode: FOLDER_MODE });
  if (first === undefined) {
    return;
  }
  for (let folder = path; folder.length >= first.length; folder = dirname(folder)) {
    const fd = openSync(dirname(folder), constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }
}

/** A link is not followed when objects are listed, and another file system is not brought to disk by `sync`. */
function refuseOtherPlace(path: string, dataPath: string): void {
  const data = lstatSync(dataPath, { throwIfNoEntry: false });
  if (data !== undefined && (!data.isDirectory() || data.dev !== statSync(path).dev)) {
    const message = `${dataPath} is no folder of the same file system, but a link, a mount or a file`;
    throw new UbiError("E_STORE", `${message}; give the archive one folder for all of it`);
  }
}

/** For what the kernel says where the path, or a part of it, is something else. */
function asNoFolder(error: unknown): unknown {
  const code = codeOf(error);
  return code === "EEXIST" || code === "ENOTDIR"
    ? new Error("it is no folder", { cause: error })
    : error;
}

/** Of a rename: nothing replaces a folder, however often it is tried. */
function asFolder(error: unknown): unknown {
  return codeOf(error) === "EISDIR"
    ? new Error("a folder is in its place; remove that folder", { cause: error })
    : error;
}

function failure(what: string, error: unknown, advice = ""): UbiError {
  return error instanceof UbiError
    ? error
    : new UbiError("E_STORE", `${what}: ${errorText(error)}${advice}`, { cause: error });
}
