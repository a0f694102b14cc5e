/**
 * Listening sockets that systemd opened before it started this process (sd_listen_fds(3)): descriptors from 3 on, each
 * with the name that its socket unit gives it by `FileDescriptorName=`.
 *
 *   LISTEN_PID      whom they are meant for
 *   LISTEN_FDS      how many
 *   LISTEN_FDNAMES  vhost:rpc
 */
import { resolve } from "node:path";
import { UbiError } from "../errors.ts";
import { adoptSocket, pathOfSocket } from "../ffi/socket.ts";
import type { SocketPlace } from "../ffi/socket-file.ts";
import { localNameOf } from "../ffi/stream.ts";
import { log } from "../log.ts";

/** What a socket can be for. */
export type SocketName = "vhost" | "rpc" | "stripes";

export interface InheritedSocket {
  readonly fd: number;
  readonly kind: "unix" | "internet";
  /** A path, or `address:port`. */
  readonly address: string;
}

export class InheritedSockets {
  readonly #sockets: ReadonlyMap<SocketName, readonly InheritedSocket[]>;

  private constructor(sockets: ReadonlyMap<SocketName, readonly InheritedSocket[]>) {
    this.#sockets = sockets;
  }

  /**
   * Those that this process was started with; nobody finds them in the environment any more.
   * @param names that the command knows; a single socket of another name is the first of them
   * @throws UbiError E_SOCKET
   */
  static take(names: readonly [SocketName, ...SocketName[]]): InheritedSockets {
    const sockets = new Map<SocketName, InheritedSocket[]>();
    const given = takeDescriptors();
    for (const { fd, name } of given) {
      const known = names.find((each) => each === name);
      if (known === undefined && given.length > 1) {
        const expected = names.join(" or ");
        const message = `it is named ${JSON.stringify(name)}, and FileDescriptorName= has to be ${expected}`;
        throw unusable(fd, message);
      }
      const use = known ?? names[0];
      const others = sockets.get(use) ?? [];
      sockets.set(use, [...others, adopt(fd, use, others.length)]);
    }
    return new InheritedSockets(sockets);
  }

  has(name: SocketName): boolean {
    return this.all(name).length > 0;
  }

  all(name: SocketName): readonly InheritedSocket[] {
    return this.#sockets.get(name) ?? [];
  }

  /** The socket of that name, which counts before the path that the document says. */
  placeOf(
    name: "vhost" | "rpc",
    { key, path }: { readonly key: string; readonly path: string | undefined },
  ): SocketPlace | undefined {
    const [socket] = this.all(name);
    if (socket === undefined) {
      return undefined;
    }
    if (path !== undefined && socket.address !== resolve(path)) {
      const paths = { socket: socket.address, configured: path };
      log.warn(`the socket that this program was started with is not at ${key}`, paths);
    }
    return { path: socket.address, inheritedFd: socket.fd };
  }
}

// --- internal ---

const FIRST_FD = 3;
/** More than that nobody passes on. */
const SOCKETS_MAX = 64;

interface NamedDescriptor {
  readonly fd: number;
  readonly name: string;
}

function takeDescriptors(): readonly NamedDescriptor[] {
  const { LISTEN_PID: pid, LISTEN_FDS: fds, LISTEN_FDNAMES: names = "" } = process.env;
  for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) {
    delete process.env[name];
  }
  if (pid !== String(process.pid)) {
    return []; // none, or meant for another program
  }
  const count = /^[0-9]{1,4}$/.test(fds ?? "") ? Number(fds) : -1;
  if (count < 0 || count > SOCKETS_MAX) {
    const value = JSON.stringify(fds ?? "");
    throw new UbiError("E_SOCKET", `LISTEN_FDS is ${value}; 0 to ${SOCKETS_MAX} is expected`);
  }
  const named = names.split(":");
  return Array.from({ length: count }, (_, i) => ({ fd: FIRST_FD + i, name: named[i] ?? "" }));
}

function adopt(fd: number, use: SocketName, before: number): InheritedSocket {
  const kind = adoptSocket(fd);
  if (kind === undefined) {
    throw unusable(fd, "it is no stream socket that listens");
  }
  if (use !== "stripes" && kind !== "unix") {
    throw unusable(fd, `the ${use} socket is a Unix socket, ListenStream= has to be a path`);
  }
  if (use !== "stripes" && before > 0) {
    throw unusable(fd, `there is another ${use} socket already`);
  }
  return { fd, kind, address: kind === "unix" ? pathOfSocket(fd) : localNameOf(fd) };
}

function unusable(fd: number, why: string): UbiError {
  const what = `cannot use descriptor ${fd}, which this program was started with`;
  return new UbiError("E_SOCKET", `${what}: ${why}; mend the socket unit`);
}
