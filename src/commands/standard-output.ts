/**
 * Writing to standard output and standard error: whole, also where a pipe takes a part only. A reader that has gone
 * (`| head -1`) is no failure, and changes no exit code; one of standard error that stands still does not keep the
 * program from its end.
 */
import { readFileSync, writeSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";
import { standardErrorFd } from "../log.ts";

/** Writes pieces as they are made; stops making them when the reader has gone. @throws UbiError E_DISK_IO */
export function writePieces(fd: 1 | 2, pieces: Iterable<string>): void {
  for (const piece of pieces) {
    if (!writeWhole(fd, new TextEncoder().encode(piece))) {
      return;
    }
  }
}

/** `writePieces` for bytes that are nowhere else; false when nobody reads them. @throws UbiError E_DISK_IO */
export function writeBytes(fd: 1 | 2, bytes: Uint8Array): boolean {
  return !isClosedAtStart(fd) && writeWhole(fd, bytes);
}

/** The runtime opens /dev/null in the place of a descriptor that the program was started without, and for itself only. */
function isClosedAtStart(fd: 1 | 2): boolean {
  const flags = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1];
  return (Number.parseInt(flags ?? "0", 8) & O_CLOEXEC) !== 0;
}

// --- internal ---

const RETRY_MS = 1;
const O_CLOEXEC = 0o2_000_000;
const STANDARD_ERROR_TIMEOUT_MS = 1_000;

/** False when nobody reads any more. */
function writeWhole(fd: 1 | 2, bytes: Uint8Array): boolean {
  const target = fd === 2 ? standardErrorFd : fd;
  const deadlineMs =
    fd === 2 ? performance.now() + STANDARD_ERROR_TIMEOUT_MS : Number.POSITIVE_INFINITY;
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(target, bytes, done);
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "EPIPE") {
        return false;
      }
      if (code !== "EAGAIN") {
        const message = `cannot write to standard ${fd === 1 ? "output" : "error"}: ${errorText(error)}`;
        throw new UbiError("E_DISK_IO", message, { cause: error });
      }
      if (performance.now() > deadlineMs) {
        return false;
      }
      Bun.sleepSync(RETRY_MS); // a pipe that somebody made non-blocking: as slow as its reader
    }
  }
  return true;
}
