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
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  read,
  renameSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { assert, errnoText, errorText, UbiError } from "../errors.ts";
import { beginWriteback, lockFile } from "../ffi/file.ts";
import { FolderReader, syncFilesystem } from "../ffi/folder.ts";
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
  readonly #path: string;
  readonly #isWriter: boolean;
  /** Open for life: only then `syncFilesystem` tells of writes that failed in the background. */
  #folderFd: number;
  readonly #runName = randomBytes(8).toString("hex");
  #putCount = 0;
  /** Folders that were made or seen. */
  readonly #folders = new Set<string>();

  private constructor(description: FilesystemStoreDescription, folderFd: number) {
    this.name = description.path;
    this.#path = description.path;
    this.#isWriter = description.role === "write";
    this.#folderFd = folderFd;
  }

  /** @throws UbiError E_STORE when the folder is missing (a reader) or cannot be made (a writer) */
  static open(description: FilesystemStoreDescription): FilesystemStore {
    const { path, role } = description;
    try {
      if (role === "write") {
        mkdirSync(path, { recursive: true, mode: FOLDER_MODE });
      }
      const flags = constants.O_RDONLY | constants.O_DIRECTORY;
      return new FilesystemStore(description, openSync(path, flags));
    } catch (error) {
      const advice =
        role === "read" ? "; name the folder that an archive was written to" : "; mend its path";
      throw failure(`cannot open the archive folder ${path}`, error, advice);
    }
  }

  async get(key: string, options: GetOptions): Promise<Uint8Array | undefined> {
    assertObjectKey(key);
    options.signal?.throwIfAborted();
    let fd: number | undefined;
    try {
      fd = openObject(join(this.#path, key));
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
        linkSync(incomplete, join(this.#path, key)); // fails where there is one, as no rename does
      } finally {
        removeFile(incomplete);
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
    const stats = statOf(() => statSync(join(this.#path, key)), `object ${key} in ${this.name}`);
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
      removeFile(join(this.#path, key));
    } catch (error) {
      throw failure(`cannot remove object ${key} in ${this.name}`, error);
    }
  }

  /** Blocks this thread until all of the file system is on disk, which may take seconds. */
  async sync(): Promise<void> {
    assert(this.#folderFd >= 0, "a closed store is not used");
    const result = syncFilesystem(this.#folderFd);
    if (result === -ENOSYS || result === -EPERM) {
      return this.#syncEach();
    }
    if (result < 0) {
      throw new UbiError("E_STORE", `cannot bring ${this.name} to disk: ${errnoText(result)}`);
    }
  }

  /** Network file systems lock no folder, or for one machine only. */
  lock(): "locked" | "busy" | "unsupported" {
    assert(this.#folderFd >= 0, "a closed store is not used");
    const result = lockFile(this.#folderFd, "exclusive");
    return result === 0 ? "locked" : result === -EAGAIN ? "busy" : "unsupported";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#folderFd >= 0) {
      closeSync(this.#folderFd);
      this.#folderFd = -1;
    }
  }

  // --- internal ---

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
        renameSync(path, join(this.#path, key));
      }
      if (isDurable) {
        this.#syncFolders(objects.map(({ key }) => key));
      }
    } catch (error) {
      this.#folders.clear();
      for (const { path } of staged) {
        removeFile(path);
      }
      throw failure(`cannot write object ${current} in ${this.name}`, error);
    }
  }

  /** Writes a file that has no key yet, and returns its path. */
  #stage(key: string, bytes: Uint8Array, isDurable: boolean): string {
    this.#putCount += 1;
    const path = join(this.#path, INCOMPLETE_FOLDER, `${this.#runName}-${this.#putCount}`);
    this.#makeFolder(dirname(path));
    this.#makeFolder(dirname(join(this.#path, key)));
    const fd = openSync(path, CREATE_FLAGS, FILE_MODE);
    try {
      writeWhole(fd, bytes);
      if (isDurable) {
        fdatasyncSync(fd);
      } else if (bytes.length >= WRITEBACK_BYTES_MIN) {
        beginWriteback(fd, 0, 0); // the disk works while the next object is made
      }
    } catch (error) {
      removeFile(path);
      throw error;
    } finally {
      closeSync(fd);
    }
    return path;
  }

  #syncFolders(keys: readonly string[]): void {
    for (const folder of new Set(keys.map((key) => dirname(join(this.#path, key))))) {
      this.#syncOne(folder);
    }
  }

  #makeFolder(path: string): void {
    if (!this.#folders.has(path)) {
      mkdirSync(path, { recursive: true, mode: FOLDER_MODE });
      this.#folders.add(path);
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
      const stats = statOf(() => lstatSync(join(this.#path, key)), `${key} in ${this.name}`);
      if (stats?.isFile() === true) {
        yield { key, sizeBytes: stats.size };
      } else if (stats?.isDirectory() === true) {
        yield* this.#listFolder(`${key}/`, prefix, signal);
      }
    }
  }

  /** Other work of this thread goes on between the portions. */
  async *#namesIn(folder: string): AsyncGenerator<string> {
    const place = `folder ${join(this.#path, folder)}`;
    let fd: number;
    try {
      fd = openSync(join(this.#path, folder), constants.O_RDONLY | constants.O_DIRECTORY);
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
    const folders = new Set([this.#path]);
    for await (const { key } of this.list("")) {
      const path = join(this.#path, key);
      this.#syncOne(path);
      folders.add(dirname(path));
    }
    for (const folder of folders) {
      this.#syncOne(folder);
    }
  }

  #syncOne(path: string): void {
    try {
      const fd = openSync(path, constants.O_RDONLY);
      try {
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw failure(`cannot bring ${path} to disk`, error);
    }
  }
}

const readAsync = promisify(read);

/** Smaller objects are left to the kernel: it brings many of them to disk in one go. */
const WRITEBACK_BYTES_MIN = 128 * 1024;
const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;
const EPERM = 1;
const EAGAIN = 11;
const ENOSYS = 38;
const CREATE_FLAGS =
  constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** undefined: there is none. A pipe in the place of an object does not hold this thread up. */
function openObject(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    if (isAbsent(error)) {
      return undefined;
    }
    throw error;
  }
}

async function readWhole(fd: number, sizeBytes: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(sizeBytes);
  let done = 0;
  while (done < sizeBytes) {
    const { bytesRead } = await readAsync(fd, bytes, done, sizeBytes - done, done);
    if (bytesRead === 0) {
      throw new Error(`it became shorter than ${sizeBytes} bytes while it was read`);
    }
    done += bytesRead;
  }
  return bytes;
}

function writeWhole(fd: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) {
    done += writeSync(fd, bytes, done, bytes.length - done);
  }
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!isAbsent(error)) {
      throw error;
    }
  }
}

function statOf(stat: () => Stats, what: string): Stats | undefined {
  try {
    return stat();
  } catch (error) {
    if (isAbsent(error)) {
      return undefined;
    }
    throw failure(`cannot look at ${what}`, error);
  }
}

function isAbsent(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

function failure(what: string, error: unknown, advice = ""): UbiError {
  return error instanceof UbiError
    ? error
    : new UbiError("E_STORE", `${what}: ${errorText(error)}${advice}`, { cause: error });
}
