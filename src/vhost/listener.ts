/** The listening socket: stays open between front ends, is private from birth, and never replaces a file. */
import { lstatSync, unlinkSync } from "node:fs";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { acceptSocket, closeDescriptor, listenSocket, probeSocket } from "../ffi/socket.ts";

const SOCKET_MODE = 0o660;
const BACKLOG = 16;
/** sun_path less its NUL (unix(7)). */
const PATH_BYTES_MAX = 107;

export class Listener implements Disposable {
  readonly path: string;
  readonly fd: number;
  readonly #inode: number;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.fd = fd;
    this.#inode = lstatSync(path).ino;
  }

  /**
   * Listens at `path`, in place of an orphaned socket if there is one.
   * @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS
   */
  static open(path: string): Listener {
    if (new TextEncoder().encode(path).length > PATH_BYTES_MAX) {
      throw new UbiError("E_SOCKET", `the socket path ${path} is longer than ${PATH_BYTES_MAX} bytes`);
    }
    removeOrphan(path);
    const fd = listenSocket(path, SOCKET_MODE, BACKLOG);
    if (fd < 0) {
      throw new UbiError("E_SOCKET", `cannot listen at ${path}: ${errnoText(fd)}`);
    }
    return new Listener(path, fd);
  }

  /** A non-blocking connection, or a negative errno when nobody waits. */
  accept(): number {
    return acceptSocket(this.fd);
  }

  /** Closes the socket and removes its file, unless another program put its own there. */
  [Symbol.dispose](): void {
    closeDescriptor(this.fd);
    const info = lstatSync(this.path, { throwIfNoEntry: false });
    if (info?.isSocket() === true && info.ino === this.#inode) {
      unlinkSync(this.path);
    }
  }
}

/**
 * Makes way for a new socket: removes the socket of a dead process, refuses anything else.
 * @throws UbiError E_SOCKET_IN_USE, E_SOCKET_NOT_OURS, E_SOCKET
 */
export function removeOrphan(path: string): void {
  const info = lstatSync(path, { throwIfNoEntry: false });
  if (info === undefined) {
    return;
  }
  if (!info.isSocket()) {
    throw new UbiError("E_SOCKET_NOT_OURS", `${path} exists and is not a socket; it is left alone`);
  }
  if (probeSocket(path) === 0) {
    throw new UbiError("E_SOCKET_IN_USE", `another program listens at ${path}`);
  }
  try {
    unlinkSync(path);
  } catch (error) {
    throw new UbiError("E_SOCKET", `cannot remove the orphaned socket ${path}: ${errorText(error)}`);
  }
}
