/**
 * Standard error, written synchronously from whatever thread. A reader that stands still must not hold the disk
 * up: into a full pipe or a stopped terminal nothing is written, and who finds room next is told how many lines
 * were lost.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";

/**
 * Standard error as a descriptor that does not wait for its reader, where the system has one: writing fails
 * with EAGAIN instead. It is opened anew, because O_NONBLOCK on descriptor 2 itself would change it for all
 * programs that share it. Files never wait; a socket cannot be opened anew: see `setLineSender`.
 */
export const standardErrorFd = openStandardError();

/** Sends what there is room for, without waiting: how many bytes that was, or a negative errno. */
export type LineSender = (fd: number, bytes: Uint8Array) => number;

/** Whether lines go to a socket, as the journal's is one. */
export function isStandardErrorSocket(): boolean {
  try {
    return fstatSync(standardErrorFd).isSocket();
  } catch {
    return false; // closed
  }
}

/** For a socket, of this thread: the system's own writing would wait for its reader. */
export function setLineSender(send: LineSender): void {
  sender = send;
}

/** Writes a line. `lostText` makes a line of the number of those that found no room before it. */
export function writeLogLine(line: string, lostText: (lines: number) => string): void {
  const lost = lostLines === 0 ? "" : lostText(lostLines);
  try {
    if (sender === undefined) {
      writeSync(standardErrorFd, lost + line);
    } else if (!sendLine(sender, lost + line)) {
      lostLines += 1;
      return;
    }
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
let sender: LineSender | undefined;
/** Of a line that found room in part: its end goes first. */
let rest = new Uint8Array(0);

/** Whether there was room for its beginning. */
function sendLine(send: LineSender, line: string): boolean {
  if (rest.length > 0) {
    rest = rest.subarray(Math.max(0, send(standardErrorFd, rest)));
    if (rest.length > 0) {
      return false;
    }
  }
  const bytes = new TextEncoder().encode(line);
  const sent = send(standardErrorFd, bytes);
  rest = bytes.subarray(sent > 0 ? sent : bytes.length);
  return sent > 0;
}

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
