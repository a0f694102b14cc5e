/**
 * A file that a tool writes: it appears under its name whole or not at all. Written beside its place under a
 * name of its own, readable by its owner only, then brought to disk and renamed. A block device, which
 * cannot be replaced, is written directly, if nothing else has it open for itself.
 */
import {
  type BigIntStats,
  closeSync,
  constants,
  fsyncSync,
  linkSync,
  lstatSync,
  openSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { lockHolder } from "../disk/disk-lock.ts";
import { type ErrorCode, errnoText, errorText, UbiError } from "../errors.ts";
import { lockFile, probeFile, syncFileData } from "../ffi/file.ts";
import { renameNew } from "../ffi/folder.ts";
import { isSameFile, statusIfSeen } from "./input-file.ts";
import { makeUnfinished, type UnfinishedFile } from "./unfinished-file.ts";

/** What a failure to write is called: each tool has its own. */
type OutputErrorCode = Extract<
  ErrorCode,
  "E_XTS_OUTPUT" | "E_EXPORT" | "E_SECRET_OUTPUT" | "E_INIT"
>;

export interface OutputOptions {
  /** Paths of what is being read; none may be the same file. */
  readonly inputs: readonly string[];
  /** Else there must be nothing of that name, neither before nor when the file is whole. */
  readonly mayReplace: boolean;
  /** Said behind "is there already". */
  readonly whyKept?: string;
  /** Of failures to write. */
  readonly code: OutputErrorCode;
}

export class OutputFile implements Disposable {
  /** As the user named it. */
  readonly path: string;
  readonly fd: number;
  /** What can be written: the size of a block device, or no limit. */
  readonly capacityBytes: number;
  readonly #code: OutputErrorCode;
  readonly #temporaryPath: string | undefined;
  readonly #finalPath: string;
  readonly #mayReplace: boolean;
  readonly #whyKept: string;
  #isDone = false;

  private constructor(
    code: OutputErrorCode,
    options: {
      readonly path: string;
      readonly fd: number;
      readonly capacityBytes: number;
      readonly temporaryPath: string | undefined;
      readonly finalPath: string;
      readonly mayReplace: boolean;
      readonly whyKept: string;
    },
  ) {
    this.#code = code;
    this.path = options.path;
    this.fd = options.fd;
    this.capacityBytes = options.capacityBytes;
    this.#temporaryPath = options.temporaryPath;
    this.#finalPath = options.finalPath;
    this.#mayReplace = options.mayReplace;
    this.#whyKept = options.whyKept;
  }

  /**
   * Begins a file that will be `path`. What is there stays as it is until `commit`.
   * @throws UbiError the code of the options, E_DISK_LOCKED
   */
  static create(
    path: string,
    { inputs, mayReplace, whyKept = "and --no-clobber was given", code }: OutputOptions,
  ): OutputFile {
    if (path === "" || path.endsWith("/")) {
      throw new UbiError(code, `${JSON.stringify(path)} is no name of a file`);
    }
    const existing = statOf(path, code);
    if (!mayReplace && lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
      throw existsAlready(path, whyKept, code);
    }
    for (const input of inputs) {
      const read = statusIfSeen(input);
      if (existing !== undefined && read !== undefined && isSameFile(read, existing)) {
        throw new UbiError(
          code,
          `${path} is the same file as the input ${input}, which would be destroyed; write elsewhere`,
        );
      }
    }
    if (existing?.isBlockDevice() === true) {
      return openDevice(path, code, (options) => new OutputFile(code, options));
    }
    if (existing !== undefined && !existing.isFile()) {
      throw new UbiError(code, `${path} is neither a file nor a block device`);
    }
    if (existing !== undefined) {
      checkUnlocked(path, code);
    }
    const finalPath = existing === undefined ? path : realpathSync(path);
    const { path: temporaryPath, fd } = unfinishedFile(path, finalPath, code);
    const names = { path, temporaryPath, finalPath, mayReplace, whyKept };
    return new OutputFile(code, { ...names, fd, capacityBytes: Infinity });
  }

  /** Writes all of a small file. @throws UbiError of the code */
  write(content: Uint8Array): void {
    try {
      for (let done = 0; done < content.length; ) {
        done += writeSync(this.fd, content, done);
      }
    } catch (error) {
      throw failure(this.path, error, this.#code);
    }
  }

  /** Brings everything to disk and gives the file its name. @throws UbiError of the code */
  commit(): void {
    const result = syncFileData(this.fd);
    if (result < 0) {
      throw new UbiError(this.#code, `cannot bring ${this.path} to disk: ${errnoText(result)}`);
    }
    if (this.#temporaryPath !== undefined) {
      try {
        this.#name(this.#temporaryPath);
        this.#isDone = true;
        syncFolder(dirname(this.#finalPath));
      } catch (error) {
        throw failure(this.path, error, this.#code);
      }
    }
    this.#isDone = true;
  }

  #name(temporaryPath: string): void {
    if (this.#mayReplace) {
      renameSync(temporaryPath, this.#finalPath);
      return;
    }
    const result = renameNew(temporaryPath, this.#finalPath);
    if (result === -EEXIST) {
      throw existsAlready(this.path, this.#whyKept, this.#code);
    }
    if (result < 0) {
      linkSync(temporaryPath, this.#finalPath); // where the file system cannot: this fails too if there is one
      unlinkSync(temporaryPath);
    }
  }

  /** Without `commit` nothing is left of the file. */
  [Symbol.dispose](): void {
    closeSync(this.fd);
    if (!this.#isDone && this.#temporaryPath !== undefined) {
      unlinkSync(this.#temporaryPath);
    }
    this.#isDone = true;
  }
}

/** Makes the names in a folder durable. */
export function syncFolder(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

// --- internal ---

const EEXIST = 17;

type Make = (options: {
  readonly path: string;
  readonly fd: number;
  readonly capacityBytes: number;
  readonly temporaryPath: undefined;
  readonly finalPath: string;
  readonly mayReplace: boolean;
  readonly whyKept: string;
}) => OutputFile;

/** O_EXCL: refused while the device is mounted or otherwise claimed. */
function openDevice(path: string, code: OutputErrorCode, make: Make): OutputFile {
  const fd = open(path, code, constants.O_RDWR | constants.O_EXCL);
  const geometry = probeFile(fd);
  if (typeof geometry === "number" || lockFile(fd, "exclusive") < 0) {
    throw inUse(path, fd);
  }
  const capacityBytes = geometry.sizeBytes;
  return make({
    path,
    fd,
    capacityBytes,
    temporaryPath: undefined,
    finalPath: path,
    mayReplace: true,
    whyKept: "",
  });
}

/** The disk of a running backend is locked: replacing its file would cut the guest off from its data. */
function checkUnlocked(path: string, code: OutputErrorCode): void {
  const fd = open(path, code, constants.O_RDONLY);
  if (lockFile(fd, "exclusive") < 0) {
    throw inUse(path, fd);
  }
  closeSync(fd);
}

/** Closes it. */
function inUse(path: string, fd: number): UbiError {
  const user = lockHolder(fd);
  closeSync(fd);
  return new UbiError("E_DISK_LOCKED", `${path} is in use by ${user}; stop it first`);
}

function open(path: string, code: OutputErrorCode, flags: number): number {
  try {
    return openSync(path, flags | constants.O_NOCTTY);
  } catch (error) {
    throw failure(path, error, code);
  }
}

function unfinishedFile(path: string, finalPath: string, code: OutputErrorCode): UnfinishedFile {
  try {
    return makeUnfinished(finalPath);
  } catch (error) {
    throw failure(path, error, code);
  }
}

function existsAlready(path: string, whyKept: string, code: OutputErrorCode): UbiError {
  return new UbiError(code, `${path} is there already, ${whyKept}`);
}

function failure(path: string, error: unknown, code: OutputErrorCode): UbiError {
  if (error instanceof UbiError) {
    return error;
  }
  return new UbiError(code, `cannot write ${path}: ${errorText(error)}`, {
    cause: error,
  });
}

function statOf(path: string, code: OutputErrorCode): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return undefined;
    }
    throw failure(path, error, code);
  }
}
