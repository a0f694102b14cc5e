/**
 * A listening Unix socket and its file: private from birth, never in place of anything but the socket of
 * a dead process, removed at the end unless another program has put its own there.
 */
import { lstatSync, type Stats, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { errnoText, errorText, UbiError } from "../errors.ts";
import { acceptSocket, closeDescriptor, listenSocket, probeSocket } from "./socket.ts";

const SOCKET_MODE = 0o660;
const BACKLOG = 16;
/** sun_path less its NUL (unix(7)). */
const PATH_BYTES_MAX = 107;
const ENOENT = 2;
const ECONNREFUSED = 111;

export class ListeningSocket implements Disposable {
  readonly path: string;
  readonly fd: number;
  readonly #file: Stats;
  #isOurs = true;
  #isDisposed = false;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.fd = fd;
    this.#file = lstatSync(path);
  }

  /**
   * Listens at `path`, in place of an orphaned socket if there is one.
   * @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS
   */
  static open(path: string): ListeningSocket {
    if (new TextEncoder().encode(path).length > PATH_BYTES_MAX) {
      throw new UbiError(
        "E_SOCKET",
        `the socket path ${path} is longer than ${PATH_BYTES_MAX} bytes`,
      );
    }
    removeOrphan(path);
    const fd = listenSocket(path, SOCKET_MODE, BACKLOG);
    if (fd < 0) {
      const isMissing = fd === -ENOENT;
      const why = isMissing ? `the folder ${dirname(path)} is missing; make it` : errnoText(fd);
      throw new UbiError("E_SOCKET", `cannot listen at ${path}: ${why}`);
    }
    return new ListeningSocket(path, fd);
  }

  /** A non-blocking connection, or a negative errno when nobody waits. */
  accept(): number {
    return acceptSocket(this.fd);
  }

  /** Somebody else closes the descriptor from now on; the file stays ours to remove. */
  giveAwayDescriptor(): void {
    this.#isOurs = false;
  }

  /** Closes the socket and removes its file, unless another program put its own there. */
  [Symbol.dispose](): void {
    if (this.#isDisposed) {
      return;
    }
    this.#isDisposed = true;
    if (this.#isOurs) {
      closeDescriptor(this.fd);
    }
    const file = lstatSync(this.path, { throwIfNoEntry: false });
    if (file?.isSocket() === true && file.ino === this.#file.ino && file.dev === this.#file.dev) {
      unlinkSync(this.path);
    }
  }
}

// --- internal ---

/** Makes way for a new socket: removes the socket of a dead process, refuses anything else. */
function removeOrphan(path: string): void {
  const file = look(path);
  if (file === undefined) {
    return;
  }
  if (!file.isSocket()) {
    throw new UbiError("E_SOCKET_NOT_OURS", `${path} exists and is not a socket; it is left alone`);
  }
  const result = probeSocket(path);
  if (result === 0) {
    throw new UbiError("E_SOCKET_IN_USE", `another program listens at ${path}`);
  }
  if (result === -ENOENT) {
    return;
  }
  if (result !== -ECONNREFUSED) {
    throw new UbiError(
      "E_SOCKET",
      `cannot tell whether a program listens at ${path}: ${errnoText(result)}; remove it if none does`,
    );
  }
  try {
    unlinkSync(path);
  } catch (error) {
    throw new UbiError(
      "E_SOCKET",
      `cannot remove the orphaned socket ${path}: ${errorText(error)}`,
    );
  }
}

function look(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw new UbiError("E_SOCKET", `cannot listen at ${path}: ${errorText(error)}`);
  }
}
