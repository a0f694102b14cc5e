/**
 * The file that an output is written to before it has its name: `.NAME.<12 digits>.tmp` beside it. It is locked as
 * long as it is written, so that a later output of that name can tell what a killed process left, and remove it.
 */
import { randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readdirSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { lockFile } from "../ffi/file.ts";

export interface UnfinishedFile {
  readonly path: string;
  readonly fd: number;
}

/** Makes one for `finalPath`, readable by its owner only. @throws the system's error */
export function makeUnfinished(finalPath: string): UnfinishedFile {
  removeAbandoned(finalPath);
  for (;;) {
    const name = `.${basename(finalPath)}.${randomBytes(SUFFIX_BYTES).toString("hex")}.tmp`;
    const path = join(dirname(finalPath), name);
    const fd = openSync(path, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o600);
    lockFile(fd, "exclusive"); // where that is not to be had nobody else gets the lock, and removes nothing
    if (fstatSync(fd).nlink > 0) {
      return { path, fd };
    }
    closeSync(fd); // another one took it for abandoned, in the moment before it was locked
  }
}

// --- internal ---

const SUFFIX_BYTES = 6;

/** It is no failure of the work ahead that something cannot be removed. */
function removeAbandoned(finalPath: string): void {
  const folder = dirname(finalPath);
  const start = `.${basename(finalPath)}.`;
  for (const name of namesIn(folder)) {
    if (name.startsWith(start) && /^[0-9a-f]{12}\.tmp$/.test(name.slice(start.length))) {
      removeUnlocked(join(folder, name));
    }
  }
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // to make the file will tell why
  }
}

function removeUnlocked(path: string): void {
  try {
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    try {
      if (fstatSync(fd).isFile() && lockFile(fd, "exclusive") === 0) {
        unlinkSync(path);
      }
    } finally {
      closeSync(fd);
    }
  } catch {
    // somebody else's, or gone meanwhile
  }
}
