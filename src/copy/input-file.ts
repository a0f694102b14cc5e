/** A file or block device that a tool reads, and never writes. */
import { type BigIntStats, closeSync, constants, fstatSync, openSync, statSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import { probeFile } from "../ffi/file.ts";

export class InputFile implements Disposable {
  readonly path: string;
  readonly fd: number;
  readonly sizeBytes: number;

  /**
   * @param what it is to the user, such as "data"; for messages
   * @throws UbiError E_DISK_OPEN
   */
  constructor(path: string, what?: string) {
    const name = what === undefined ? path : `${what} ${path}`;
    this.path = path;
    try {
      this.fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    } catch (error) {
      throw new UbiError("E_DISK_OPEN", `cannot open ${name}: ${errorText(error)}`, {
        cause: error,
      });
    }
    const geometry = probeFile(this.fd);
    if (typeof geometry === "number") {
      closeSync(this.fd);
      throw new UbiError("E_DISK_OPEN", `${name} is neither a file nor a block device`);
    }
    this.sizeBytes = geometry.sizeBytes;
  }

  status(): BigIntStats {
    return fstatSync(this.fd, { bigint: true });
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

/** Undefined when nothing can be seen there, for whatever reason: to open it tells which. */
export function statusIfSeen(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return undefined;
  }
}

/** Whether two names lead to one file, or to one device. */
export function isSameFile(a: BigIntStats, b: BigIntStats): boolean {
  const isSameDevice = a.isBlockDevice() && b.isBlockDevice() && a.rdev === b.rdev;
  return isSameDevice || (a.dev === b.dev && a.ino === b.ino);
}
