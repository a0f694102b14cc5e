/** For programs that serve: whoever reads the log and stands still, such as the journal, must not hold the disk up. */
import { isStandardErrorSocket, setLineSender } from "../log.ts";

/** Of this thread; each worker sees to itself. */
export async function logWithoutWaiting(): Promise<void> {
  if (isStandardErrorSocket()) {
    setLineSender((await import("../ffi/socket.ts")).sendBytes);
  }
}
