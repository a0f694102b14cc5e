/**
 * What a program that serves has of a service manager: whom to tell, and sockets. Without one, which the environment
 * shows, none of it is loaded.
 */
import type { SocketRights } from "../ffi/socket.ts";
import type { SocketPlace } from "../ffi/socket-file.ts";
import type { InheritedSocket, SocketName } from "./inherited-sockets.ts";
import type { ServiceManager } from "./service-manager.ts";

export type { InheritedSocket };

export interface Service {
  readonly manager: ServiceManager | undefined;
  readonly inherited: GivenSockets | undefined;
}

/** Sockets that the process was given. */
export interface GivenSockets {
  all(name: SocketName): readonly InheritedSocket[];
  has(name: SocketName): boolean;
  placeOf(
    name: "vhost" | "rpc",
    wanted: { readonly key: string; readonly path: string | undefined },
  ): SocketPlace | undefined;
}

/**
 * @param names of sockets that the command knows; a single socket of another name is the first of them
 * @throws UbiError E_SOCKET
 */
export async function openService(names: readonly [SocketName, ...SocketName[]]): Promise<Service> {
  const { NOTIFY_SOCKET: path = "", LISTEN_PID: pid = "" } = process.env;
  return {
    manager:
      path === "" ? undefined : new (await import("./service-manager.ts")).ServiceManager(path),
    inherited:
      pid === ""
        ? undefined
        : (await import("./inherited-sockets.ts")).InheritedSockets.take(names),
  };
}

/** A socket as the document has it. */
export interface WantedSocket {
  /** For messages. */
  readonly key: string;
  readonly path: string | undefined;
  readonly rights: SocketRights;
}

/** The socket that there is already, or the path that the document says; undefined when there is neither. */
export function socketPlace(
  { inherited }: Service,
  name: "vhost" | "rpc",
  wanted: WantedSocket,
): SocketPlace | undefined {
  const { path, rights } = wanted;
  return inherited?.placeOf(name, wanted) ?? (path === undefined ? undefined : { path, rights });
}
