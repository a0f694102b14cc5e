/**
 * A listening Unix socket and its file: private from birth, never in place of anything but the socket of
 * a dead process, removed at the end unless another program has put its own there. A socket that this process
 * was started with is its starter's: its file stays.
 */
import { lstatSync, type Stats, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { errnoText, errorText, UbiError } from "../errors.ts";
import {
  acceptSocket,
  closeDescriptor,
  listenSocket,
  probeSocket,
  type SocketRights,
} from "./socket.ts";

/** For owner and group of the process. */
const SOCKET_MODE = 0o660;
const BACKLOG = 16;
/** sun_path less its NUL (unix(7)). */
const PATH_BYTES_MAX = 107;
const EPERM = 1;
const ENOENT = 2;
const ECONNREFUSED = 111;

/** Where to listen: a path and who may connect there, or a socket that this process was started with. */
export interface SocketPlace {
  /** For messages, where the socket was there before. */
  readonly path: string;
  readonly rights?: SocketRights | undefined;
  readonly inheritedFd?: number | undefined;
  /** The inherited socket's file was made by us, and is ours to remove. */
  readonly isFileOurs?: boolean | undefined;
}

/** A listening socket on its way to another process of ours. */
export interface HandedSocket {
  readonly fd: number;
  /** Or an address with a port. */
  readonly path: string;
  readonly isFileOurs: boolean;
}

export class ListeningSocket implements Disposable {
  readonly path: string;
  readonly fd: number;
  /** Undefined where it is not ours to remove. */
  #file: Stats | undefined;
  #isOurs = true;
  #isDisposed = false;

  private constructor(path: string, fd: number, file: Stats | undefined) {
    this.path = path;
    this.fd = fd;
    this.#file = file;
  }

  /**
   * Listens at a path, in place of an orphaned socket if there is one, or takes over the inherited socket.
   * @throws UbiError E_SOCKET, E_SOCKET_IN_USE, E_SOCKET_NOT_OURS
   */
  static open(place: string | SocketPlace): ListeningSocket {
    const given: SocketPlace = typeof place === "string" ? { path: place } : place;
    const { path, rights, inheritedFd, isFileOurs } = given;
    if (inheritedFd !== undefined) {
      const file = isFileOurs === true ? lstatSync(path, { throwIfNoEntry: false }) : undefined;
      return new ListeningSocket(path, inheritedFd, file);
    }
    if (new TextEncoder().encode(path).length > PATH_BYTES_MAX) {
      throw new UbiError(
        "E_SOCKET",
        `the socket path ${path} is longer than ${PATH_BYTES_MAX} bytes`,
      );
    }
    removeOrphan(path);
    const fd = listenSocket(path, rights ?? { mode: SOCKET_MODE }, BACKLOG);
    if (fd < 0) {
      throw new UbiError("E_SOCKET", `cannot listen at ${path}: ${reasonOf(fd, path, rights)}`);
    }
    return new ListeningSocket(path, fd, lstatSync(path));
  }

  /** A non-blocking connection, or a negative errno when nobody waits. */
  accept(): number {
    return acceptSocket(this.fd);
  }

  /** Another process serves the socket from now on: the file stays. */
  leaveFile(): void {
    this.#file = undefined;
  }

  /** For another process, to serve in place of this one. */
  get handed(): HandedSocket {
    return { fd: this.fd, path: this.path, isFileOurs: this.#file !== undefined };
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
    const made = this.#file;
    if (made === undefined) {
      return;
    }
    const file = lstatSync(this.path, { throwIfNoEntry: false });
    if (file?.isSocket() === true && file.ino === made.ino && file.dev === made.dev) {
      unlinkSync(this.path);
    }
  }
}

// --- internal ---

function reasonOf(result: number, path: string, rights: SocketRights | undefined): string {
  if (result === -ENOENT) {
    return `the folder ${dirname(path)} is missing; make it`;
  }
  const isGiven = rights?.owner !== undefined || rights?.group !== undefined;
  const hint = result === -EPERM && isGiven ? "; only root gives a socket to others" : "";
  return errnoText(result) + hint;
}

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
