/**
 * Opens and locks the file or block device that holds a disk. The exclusive lock is taken on the very
 * open file description that all queues do their I/O with: it is free again only when the last I/O of a
 * dead process is done.
 */
import { closeSync, constants, fstatSync, openSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { type FileGeometry, makeBlocking, probeFile, retireFile, unlockFile } from "../ffi/file.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { log } from "../log.ts";
import { claimDevice, type LockWait, lockDisk, markHolder } from "./disk-lock.ts";

export interface DataFileOptions {
  readonly path: string;
  /** What it is to the user: "data", "metadata", "image". */
  readonly what: string;
  readonly isReadOnly: boolean;
  /** Uses the page cache even where there is direct I/O. */
  readonly isBuffered?: boolean;
  /** The file may end anywhere: then the page cache is used, which reads less than a block. */
  readonly isAnySize?: boolean;
  /** Who reads beside the process that has it locked: no lock is asked for. */
  readonly isUnlocked?: boolean;
  /** Hears now and then that the last I/O of a dead process is waited for. */
  readonly onLockWait?: LockWait | undefined;
}

/**
 * A file that another process of ours opened, and hands over: the same open file description, so that its lock is
 * nobody else's for a moment.
 */
export interface HandedFile {
  readonly fd: number;
  /** Holds the claim on a block device; -1 for none. */
  readonly claimFd: number;
  readonly isDirect: boolean;
  readonly isReadOnly: boolean;
}

export class DataFile implements Disposable {
  readonly path: string;
  readonly fd: number;
  readonly geometry: FileGeometry;
  /** False where the file system has no direct I/O: the page cache is used. */
  readonly isDirect: boolean;
  /** When it was opened. */
  readonly sectors: number;
  /** Holds the claim on a block device; -1 for none. */
  #claimFd = -1;
  #isReadOnly = false;
  #isAdopted = false;

  private constructor(path: string, fd: number, geometry: FileGeometry, isDirect: boolean) {
    this.path = path;
    this.fd = fd;
    this.geometry = geometry;
    this.isDirect = isDirect;
    this.sectors = geometry.sizeBytes / SECTOR_BYTES;
  }

  /**
   * Opens with direct I/O where there is any, and locks: exclusively, or shared when read-only, or not at all when that
   * is asked for. A block device that is to be written must not be mounted.
   * @throws UbiError E_DISK_OPEN, E_DISK_SIZE, E_DISK_LOCKED, E_METADATA
   */
  static open(options: DataFileOptions): DataFile {
    const { path, what } = options;
    const { fd, isDirect } = openFile(options);
    try {
      const geometry = probeFile(fd);
      if (typeof geometry === "number" || makeBlocking(fd) < 0) {
        throw new UbiError("E_DISK_OPEN", `${what} ${path} is neither a file nor a block device`);
      }
      const isUsedDirectly = isDirect && geometry.isDirectIoSupported;
      const file = new DataFile(path, fd, geometry, isUsedDirectly);
      file.#isReadOnly = options.isReadOnly;
      if (options.isAnySize !== true || !isUsedDirectly || isWholeBlocks(file)) {
        checkSize(file, options);
        if (options.isUnlocked !== true) {
          const mode = options.isReadOnly ? "shared" : "exclusive";
          lockDisk(fd, `${what} ${path}`, mode, options.onLockWait);
        }
        if (geometry.isBlockDevice && !options.isReadOnly) {
          file.#claimFd = claimDevice(fd, `${what} ${path}`);
        }
        return file;
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
    return DataFile.open({ ...options, isBuffered: true });
  }

  /**
   * Takes over what another process hands over, which has to be what `open` would open.
   * @throws UbiError E_UPGRADE, E_DISK_OPEN, E_DISK_SIZE, E_METADATA
   */
  static adopt(options: DataFileOptions, handed: HandedFile): DataFile {
    const { path, what, isReadOnly } = options;
    const { fd, claimFd, isDirect } = handed;
    const geometry = probeFile(fd);
    if (typeof geometry === "number") {
      throw new UbiError("E_UPGRADE", `the ${what} that was handed over is no file of a disk`);
    }
    if (!isSameFile(path, fd)) {
      throw new UbiError(
        "E_UPGRADE",
        `${what} ${path} is another file than the one that is served; that needs a restart`,
      );
    }
    if (handed.isReadOnly !== isReadOnly) {
      const was = handed.isReadOnly ? "only read" : "written";
      throw new UbiError(
        "E_UPGRADE",
        `${what} ${path} is ${was} by the process that serves it, and the configuration says otherwise by now; ` +
          "that needs a restart",
      );
    }
    const file = new DataFile(path, fd, geometry, isDirect);
    checkSize(file, options);
    file.#claimFd = claimFd;
    file.#isReadOnly = isReadOnly;
    file.#isAdopted = true;
    markHolder(fd);
    return file;
  }

  /** For another process, to `adopt`: it has the lock as well then, and this one must not `unlock`. */
  get handed(): HandedFile {
    const { fd, isDirect } = this;
    return { fd, claimFd: this.#claimFd, isDirect, isReadOnly: this.#isReadOnly };
  }

  /** Smallest unit of I/O, bytes: at least a sector. */
  get blockBytes(): number {
    return this.isDirect ? Math.max(SECTOR_BYTES, this.geometry.logicalBlockBytes) : SECTOR_BYTES;
  }

  /** How large it is now. @throws UbiError E_DISK_IO */
  measure(): number {
    const geometry = probeFile(this.fd);
    if (typeof geometry === "number") {
      throw new UbiError("E_DISK_IO", `cannot look at ${this.path}: ${errnoText(geometry)}`);
    }
    return geometry.sizeBytes;
  }

  /**
   * Makes its size durable. On a description of its own: each is told of lost writes by itself, so that a sync of the
   * queues still hears of theirs.
   * @throws UbiError E_DISK_IO
   */
  async syncSize(): Promise<void> {
    try {
      await syncThrough(`/proc/self/fd/${this.fd}`);
    } catch (error) {
      throw new UbiError("E_DISK_IO", `cannot bring ${this.path} to disk: ${errorText(error)}`, {
        cause: error,
      });
    } finally {
      if (this.#isAdopted) {
        markHolder(this.fd); // the mark went with the other descriptor
      }
    }
  }

  /**
   * Lets the next program in. Only when no I/O is under way any more: the ring of a process that ended is
   * torn down some time later, and would keep the lock so long.
   */
  unlock(): void {
    this.#disclaim();
    unlockFile(this.fd);
  }

  /**
   * Lets go of the file while other threads may still have the number of its descriptor: they read nothing from
   * here on.
   */
  retire(): void {
    this.unlock();
    const result = retireFile(this.fd);
    if (result < 0) {
      log.warn("cannot let go of a file, which stays open to the end", {
        file: this.path,
        cause: errnoText(result),
      });
    }
  }

  [Symbol.dispose](): void {
    this.#disclaim();
    closeSync(this.fd);
  }

  // --- internal ---

  #disclaim(): void {
    if (this.#claimFd >= 0) {
      closeSync(this.#claimFd);
      this.#claimFd = -1;
    }
  }
}

// --- internal ---

function openFile(options: DataFileOptions): { readonly fd: number; readonly isDirect: boolean } {
  const access = options.isReadOnly ? constants.O_RDONLY : constants.O_RDWR;
  const flags = access | constants.O_NONBLOCK;
  const isDirect = options.isBuffered !== true;
  try {
    return { fd: openSync(options.path, isDirect ? flags | constants.O_DIRECT : flags), isDirect };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" && options.what === "metadata") {
      const message = `there is no metadata ${options.path} yet; run init-metadata first`;
      throw new UbiError("E_DISK_OPEN", message, { cause: error });
    }
    if (code === "EISDIR") {
      const message = `${options.what} ${options.path} is a folder, neither a file nor a block device`;
      throw new UbiError("E_DISK_OPEN", message, { cause: error });
    }
    if (code !== "EINVAL") {
      const message = `cannot open ${options.what} ${options.path}: ${errorText(error)}`;
      throw new UbiError("E_DISK_OPEN", message, { cause: error });
    }
  }
  log.warn("no direct I/O on this file system, using the page cache", { path: options.path });
  return { fd: openSync(options.path, flags), isDirect: false };
}

function isWholeBlocks({ geometry, blockBytes }: DataFile): boolean {
  return geometry.sizeBytes % blockBytes === 0;
}

async function syncThrough(path: string): Promise<void> {
  await using file = await open(path, constants.O_RDONLY);
  await file.sync();
}

function isSameFile(path: string, fd: number): boolean {
  const own = fstatSync(fd, { bigint: true });
  const other = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (other?.isBlockDevice() === true && own.isBlockDevice()) {
    return other.rdev === own.rdev;
  }
  return other?.dev === own.dev && other.ino === own.ino;
}

/** A last block that is only half there could be neither read nor written directly. */
function checkSize(file: DataFile, { what, isAnySize }: DataFileOptions): void {
  const { path, blockBytes } = file;
  const { sizeBytes } = file.geometry;
  if (sizeBytes === 0) {
    throw emptyError(what, path);
  }
  if (isAnySize !== true && !isWholeBlocks(file)) {
    throw new UbiError(
      "E_DISK_SIZE",
      `${what} ${path} has ${sizeBytes} bytes, which is not a multiple of ${blockBytes}`,
    );
  }
}

/** What the metadata of a disk told is lost with it: only of a new disk can it be made anew. */
function emptyError(what: string, path: string): UbiError {
  return what === "metadata"
    ? new UbiError(
        "E_METADATA",
        `metadata ${path} is empty; run init-metadata for a new disk, or bring the file back from a copy`,
      )
    : new UbiError(
        "E_DISK_SIZE",
        `${what} ${path} is empty; make it as large as the disk shall be`,
      );
}
