/**
 * Standard error, written synchronously from whatever thread. A reader that stands still must not hold the disk
 * up: into a full pipe or a stopped terminal nothing is written, and who finds room next is told how many lines
 * were lost.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";

/**
 * Standard error as a descriptor that does not wait for its reader, where the system has one: writing fails
 * with EAGAIN instead. It is opened anew, because O_NONBLOCK on descriptor 2 itself would change it for all
 * programs that share it. Files never wait; a socket cannot be opened anew, and stays as it is.
 */
export const standardErrorFd = openStandardError();

/** Writes a line. `lostText` makes a line of the number of those that found no room before it. */
export function writeLogLine(line: string, lostText: (lines: number) => string): void {
  const lost = lostLines === 0 ? "" : lostText(lostLines);
  try {
    writeSync(standardErrorFd, lost + line);
    lostLines = 0;
  } catch (error) {
    // A closed or full standard error must not take the disk down with it.
    if (!(error instanceof Error && "code" in error)) {
      throw error;
    }
    lostLines += 1;
  }
}

// --- internal ---

/** Of this thread, since the last line that found room. */
let lostLines = 0;

function openStandardError(): number {
  try {
    const stats = fstatSync(2);
    if (!stats.isFIFO() && !stats.isCharacterDevice()) {
      return 2;
    }
    const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
    return openSync("/proc/self/fd/2", flags);
  } catch {
    return 2; // closed, nobody reads it, no /proc, or another user's
  }
}
