/**
 * The program that a process was started with, and the one that lies there now: a package, or a symbolic link, may have
 * brought another version to its place.
 */
import { type Stats, statSync } from "node:fs";
import { resolve } from "node:path";
import { errorText, UbiError } from "../errors.ts";

/** What is needed to start it once more. */
export interface StartedProgram {
  /** By which it was started: it may lead to another file by now. */
  readonly path: string;
  /** Which may say what it is to do. */
  readonly name: string;
  readonly words: readonly string[];
  readonly owner: number;
  readonly mode: number;
}

/** Call it early: later the working directory may be another one. */
export function startedProgram(): StartedProgram {
  const name = process.argv0;
  const own = statSync("/proc/self/exe");
  const named = name.includes("/") ? resolve(name) : Bun.which(name);
  const found = named === null ? undefined : statSync(named, { throwIfNoEntry: false });
  const isOurs = found !== undefined && found.ino === own.ino && found.dev === own.dev;
  return {
    path: isOurs && named !== null ? named : process.execPath,
    name,
    words: process.argv.slice(2),
    owner: own.uid,
    mode: own.mode,
  };
}

/**
 * Looks whether what lies there now may be started: only what belongs to root, to this user or to the owner of the
 * running program, and what nobody may write who could not write that.
 * @throws UbiError E_UPGRADE
 */
export function checkProgram({ path, owner, mode }: StartedProgram): void {
  const file = lookAt(path);
  if (!file.isFile() || (file.mode & 0o111) === 0) {
    throw new UbiError("E_UPGRADE", `cannot start ${path}: it is no program`);
  }
  const owners = [0, owner, process.getuid?.()];
  if (!owners.includes(file.uid)) {
    const why = `it belongs to user ${file.uid}, not to root or whom the running program belongs to`;
    throw new UbiError("E_UPGRADE", `${path} is not started: ${why}`);
  }
  if ((file.mode & ~mode & 0o022) !== 0) {
    const why = "others may write to it; chmod go-w";
    throw new UbiError("E_UPGRADE", `${path} is not started: ${why}`);
  }
}

// --- internal ---

function lookAt(path: string): Stats {
  try {
    return statSync(path);
  } catch (error) {
    throw new UbiError("E_UPGRADE", `cannot start ${path}: ${errorText(error)}`, { cause: error });
  }
}
