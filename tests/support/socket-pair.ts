/** Two Unix sockets that are connected with each other. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  acceptSocket,
  closeDescriptor,
  connectSocket,
  listenSocket,
} from "../../src/ffi/socket.ts";

/** `given` is the end that is passed to somebody, a blocking socket; both are the caller's to close. */
export function socketPair(): { readonly own: number; readonly given: number } {
  const folder = mkdtempSync(join(tmpdir(), "ubiblk-pair-"));
  try {
    const path = join(folder, "socket");
    const listener = listenSocket(path, { mode: 0o600 }, 1);
    const given = connectSocket(path);
    const own = acceptSocket(listener);
    closeDescriptor(listener);
    if (given < 0 || own < 0) {
      throw new Error(`cannot connect two sockets: ${given}, ${own}`);
    }
    return { own, given };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
