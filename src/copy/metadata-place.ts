/**
 * Where a metadata file is or will be. What is there is opened and locked before anything is decided; it is
 * made, given its mode and its length only when all else was found right.
 *
 * Rules: no symbolic link, a regular file, mode exactly 0600, grown and never shrunk, its folder brought to disk.
 */
import {
  accessSync,
  type BigIntStats,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  rmSync,
} from "node:fs";
import { dirname } from "node:path";
import { lockDisk } from "../disk/disk-lock.ts";
import { errorText, UbiError } from "../errors.ts";
import { metadataBytes, STRIPE_COUNT_MAX } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { type InputFile, isSameFile } from "./input-file.ts";
import { syncFolder } from "./output-file.ts";

export interface OpenFile {
  readonly fd: number;
  readonly sizeBytes: number;
}

export class MetadataPlace implements Disposable {
  readonly path: string;
  #existing: OpenFile | undefined;
  #fd: number | undefined;
  #isMade = false;

  private constructor(path: string, existing: OpenFile | undefined) {
    this.path = path;
    this.#existing = existing;
    this.#fd = existing?.fd;
  }

  /**
   * Looks what is at `path`, and locks it.
   * @param others files that it must not be
   * @throws UbiError E_METADATA_FILE, E_DISK_LOCKED
   */
  static find(path: string, others: readonly InputFile[]): MetadataPlace {
    const fd = openIfThere(path);
    if (fd === undefined) {
      return new MetadataPlace(path, undefined);
    }
    try {
      checkStatus(path, fstatSync(fd, { bigint: true }), others);
      lockDisk(fd, `metadata ${path}`, "exclusive");
      return new MetadataPlace(path, { fd, sizeBytes: fstatSync(fd).size });
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** What is there; undefined when there is nothing. */
  get existing(): OpenFile | undefined {
    return this.#existing;
  }

  /**
   * Makes the file when there is none, and gives it its mode and its length.
   * @throws UbiError E_METADATA_FILE, E_DISK_LOCKED
   */
  prepare(neededBytes: number): OpenFile {
    const fd = this.#fd ?? this.#create();
    const sizeBytes = Math.max(neededBytes, roundUp(this.#existing?.sizeBytes ?? 0));
    try {
      fchmodSync(fd, MODE);
      if (sizeBytes !== this.#existing?.sizeBytes) {
        ftruncateSync(fd, sizeBytes);
      }
      fsyncSync(fd);
      if (this.#existing === undefined) {
        syncFolder(dirname(this.path));
      }
    } catch (error) {
      throw failure(this.path, "make", error);
    }
    this.#existing = { fd, sizeBytes };
    return this.#existing;
  }

  /** Removes the file if it was made here: what it should hold could not be written. */
  discard(): void {
    if (this.#isMade) {
      rmSync(this.path, { force: true });
    }
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) {
      closeSync(this.#fd);
      this.#fd = undefined;
    }
  }

  // --- internal ---

  #create(): number {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    try {
      this.#fd = openSync(this.path, flags, MODE);
      this.#isMade = true;
    } catch (error) {
      throw failure(this.path, "make", error);
    }
    lockDisk(this.#fd, `metadata ${this.path}`, "exclusive");
    return this.#fd;
  }
}

// --- internal ---

const MODE = 0o600;
/** What the largest disk needs. A longer file is something else, which nobody wants to have overwritten. */
const SIZE_BYTES_MAX = metadataBytes(STRIPE_COUNT_MAX);

function openIfThere(path: string): number | undefined {
  const { O_RDWR, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;
  try {
    return openSync(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT") {
      checkFolder(path);
      return undefined;
    }
    if (code === "ELOOP") {
      throw refusal(path, "is a symbolic link; name the file itself");
    }
    if (code === "EISDIR") {
      throw refusal(path, "is a folder, not a regular file; name a file in it");
    }
    throw failure(path, "open", error);
  }
}

/** Noticed before a key is read, which may be possible only once. */
function checkFolder(path: string): void {
  try {
    accessSync(dirname(path), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw failure(path, "make", error);
  }
}

function checkStatus(path: string, status: BigIntStats, others: readonly InputFile[]): void {
  for (const other of others) {
    if (isSameFile(status, other.status())) {
      throw refusal(path, `is the same file as ${other.path}, which would be destroyed`);
    }
  }
  if (!status.isFile()) {
    throw refusal(path, "is not a regular file; name one, or a path where there is none yet");
  }
  if (status.size > SIZE_BYTES_MAX) {
    const size = `has ${status.size} bytes, more than any metadata file`;
    throw refusal(path, `${size}: it is something else; remove it yourself if it is not needed`);
  }
}

function refusal(path: string, why: string): UbiError {
  return new UbiError("E_METADATA_FILE", `metadata ${path} ${why}`);
}

function failure(path: string, verb: string, error: unknown): UbiError {
  const message = `cannot ${verb} metadata ${path}: ${errorText(error)}`;
  return new UbiError("E_METADATA_FILE", message, { cause: error });
}

function roundUp(sizeBytes: number): number {
  return Math.ceil(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
}
