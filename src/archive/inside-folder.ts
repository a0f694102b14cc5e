/**
 * Files inside of a folder that is open, named by paths that follow no link (see ../ffi/folder.ts): what the file
 * functions of the platform do with whole paths. Throws what the kernel refuses, as those do.
 */
import { closeSync, constants, fstatSync, read, type Stats, writeSync } from "node:fs";
import { promisify } from "node:util";
import { errnoText } from "../errors.ts";
import { OPEN_TO_LOOK, openInside, unlinkInside } from "../ffi/folder.ts";

export const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/** undefined: there is none. A pipe in the place of a file does not hold this thread up. */
export function openFile(folderFd: number, path: string): number | undefined {
  try {
    return check(openInside(folderFd, path, READ_FLAGS));
  } catch (error) {
    if (isAbsent(error)) {
      return undefined;
    }
    throw error;
  }
}

/** Of a link itself, where one is in the place of a file. undefined: there is nothing. */
export function statsInside(folderFd: number, path: string): Stats | undefined {
  try {
    const fd = check(openInside(folderFd, path, OPEN_TO_LOOK));
    try {
      return fstatSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (isAbsent(error)) {
      return undefined;
    }
    throw error;
  }
}

export async function readWhole(fd: number, sizeBytes: number): Promise<Uint8Array> {
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

export function writeWhole(fd: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) {
    done += writeSync(fd, bytes, done, bytes.length - done);
  }
}

export function removeFile(folderFd: number, path: string): void {
  try {
    check(unlinkInside(folderFd, path));
  } catch (error) {
    if (!isAbsent(error)) {
      throw error;
    }
  }
}

export function check(result: number): number {
  if (result < 0) {
    throw new KernelRefusal(result);
  }
  return result;
}

export function isAbsent(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

export function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

// --- internal ---

/** What the kernel refused, with the name of its errno as the file functions of the platform tell it. */
class KernelRefusal extends Error {
  readonly code: string | undefined;

  constructor(errno: number) {
    super(errnoText(errno));
    this.code = errnoText(errno).split(" ")[0];
  }
}

const readAsync = promisify(read);
