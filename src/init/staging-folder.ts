/**
 * The folder that a new disk is made in before it has its place: `.ubiblk-init.<12 digits>` in the folder that was
 * asked for. All of it is moved out when it is whole; until then, and whatever ends the work, nothing is left:
 *
 *     FOLDER/.ubiblk-init.0123456789ab/disk.raw ...   made here
 *     FOLDER/.ubiblk-init.0123456789ab/old/disk.raw   what is replaced, until everything is in its place
 *     FOLDER/disk.raw ...                             where it goes
 *
 * It is locked meanwhile, so that a later run can tell what a killed process left, and removes it.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { syncFolder } from "../copy/output-file.ts";
import { errorText, UbiError } from "../errors.ts";
import { lockFile } from "../ffi/file.ts";
import { renameNew } from "../ffi/folder.ts";
import { log } from "../log.ts";

export class StagingFolder implements Disposable {
  readonly path: string;
  readonly #folder: string;
  readonly #fd: number;
  /** The outermost folder that was made; undefined when all were there. */
  #madeFolder: string | undefined;
  readonly #atExit = () => this[Symbol.dispose]();
  #isDisposed = false;
  /** It has the only copy of something that was to be replaced. */
  #keepsOld = false;

  private constructor(folder: string, madeFolder: string | undefined) {
    this.#folder = folder;
    this.#madeFolder = madeFolder;
    this.path = join(folder, `${PREFIX}${randomBytes(SUFFIX_BYTES).toString("hex")}`);
    try {
      mkdirSync(this.path, FOLDER_MODE);
      this.#fd = openSync(this.path, constants.O_RDONLY | constants.O_DIRECTORY);
      lockFile(this.#fd, "exclusive");
    } catch (error) {
      removeMade(folder, madeFolder);
      throw failure(`cannot make a disk in ${folder}`, error);
    }
    process.on("exit", this.#atExit); // a second signal ends the process at once
  }

  /** Makes `folder`, with those above it, as far as it is missing. @throws UbiError E_INIT */
  static make(folder: string): StagingFolder {
    let made: string | undefined;
    try {
      made = mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
    } catch (error) {
      throw failure(`cannot make the folder ${folder}`, error);
    }
    removeAbandoned(folder);
    return new StagingFolder(folder, made);
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** A new file that only its owner reads. The caller closes it. @throws UbiError E_INIT */
  open(name: string): number {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
    try {
      const fd = openSync(this.file(name), flags, FILE_MODE);
      fchmodSync(fd, FILE_MODE); // whatever the umask took away
      return fd;
    } catch (error) {
      throw failure(`cannot make ${join(this.#folder, name)}`, error);
    }
  }

  /** @throws UbiError E_INIT */
  write(name: string, content: Uint8Array): void {
    const fd = this.open(name);
    try {
      for (let done = 0; done < content.length; ) {
        done += writeSync(fd, content, done);
      }
      fsyncSync(fd);
    } catch (error) {
      throw failure(`cannot write ${join(this.#folder, name)}`, error);
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Gives the files their names, and takes those of `retired` out of the way. All of it or nothing: where one cannot
   * be moved the others go back.
   * @param names those that are not retired must not be there
   * @param finish is done when all else is, and may fail
   * @throws UbiError E_INIT, or what `finish` throws
   */
  publish(names: readonly string[], retired: readonly string[], finish?: () => void): void {
    const undo: (() => void)[] = [];
    const move = (from: string, to: string) => {
      moveNew(from, to);
      undo.unshift(() => moveNew(to, from));
    };
    try {
      syncFolder(this.path);
      mkdirSync(this.file(OLD), FOLDER_MODE);
      for (const name of retired) {
        move(join(this.#folder, name), join(this.path, OLD, name));
      }
      for (const name of names) {
        move(this.file(name), join(this.#folder, name));
      }
      syncFolder(this.#folder);
      this.#syncParents();
      finish?.();
    } catch (error) {
      this.#takeBack(undo);
      throw failure(`cannot move the new disk to ${this.#folder}`, error);
    }
    this.#madeFolder = undefined;
  }

  /** As far as it can be: what was replaced and cannot go back is kept here. */
  #takeBack(steps: readonly (() => void)[]): void {
    for (const step of steps) {
      try {
        step();
      } catch {
        // it is gone, or somebody else's is in its place: the others go back all the same
      }
    }
    const old = this.file(OLD);
    if (namesIn(old).length > 0) {
      this.#keepsOld = true;
      log.warn("what was to be replaced could not go back", { folder: old });
    }
  }

  /** Removes what is still in it, and the folders that were made for nothing. */
  [Symbol.dispose](): void {
    if (this.#isDisposed) {
      return;
    }
    this.#isDisposed = true;
    process.off("exit", this.#atExit);
    if (!this.#keepsOld) {
      rmSync(this.path, { recursive: true, force: true });
    }
    closeSync(this.#fd);
    removeMade(this.#folder, this.#madeFolder);
  }

  // --- internal ---

  /** The names of folders that were made. */
  #syncParents(): void {
    if (this.#madeFolder === undefined) {
      return;
    }
    for (let path = this.#folder; ; path = dirname(path)) {
      syncFolder(dirname(path));
      if (path === this.#madeFolder) {
        return;
      }
    }
  }
}

// --- internal ---

const PREFIX = ".ubiblk-init.";
const SUFFIX_BYTES = 6;
const OLD = "old";
const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;

/** Never in place of something. @throws the system's error */
function moveNew(from: string, to: string): void {
  const result = renameNew(from, to);
  if (result === 0) {
    return;
  }
  if (lstatSync(to, { throwIfNoEntry: false }) !== undefined) {
    throw new Error(`${to} is there already`);
  }
  linkSync(from, to); // where the file system cannot: this fails too if there is one
  unlinkSync(from);
}

/** It may not be empty any more: then it is somebody's. */
function removeMade(folder: string, made: string | undefined): void {
  if (made === undefined) {
    return;
  }
  try {
    for (let path = folder; ; path = dirname(path)) {
      rmdirSync(path);
      if (path === made) {
        return;
      }
    }
  } catch {
    // what is in use stays
  }
}

/** What was replaced is never removed here: a killed process may have left the only copy of it. */
function removeAbandoned(folder: string): void {
  for (const name of namesIn(folder)) {
    const path = join(folder, name);
    if (name.startsWith(PREFIX) && !existsSync(join(path, OLD))) {
      removeUnlocked(path);
    }
  }
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // to make something there will tell why
  }
}

function removeUnlocked(path: string): void {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    try {
      const isOurs = fstatSync(fd).uid === process.geteuid?.(); // who else may change it could lead rmSync elsewhere
      if (isOurs && lockFile(fd, "exclusive") === 0) {
        rmSync(path, { recursive: true });
      }
    } finally {
      closeSync(fd);
    }
  } catch {
    // somebody else's, or gone meanwhile
  }
}

function failure(what: string, error: unknown): UbiError {
  return error instanceof UbiError
    ? error
    : new UbiError("E_INIT", `${what}: ${errorText(error)}`, { cause: error });
}
