/** A TCP address to listen at, as a config has it: `IP:PORT`, `[IPv6]:PORT` or `localhost:PORT`. */
import { errnoText, UbiError } from "../errors.ts";
import { listenStream } from "./stream.ts";

const BACKLOG = 16;
const EADDRINUSE = -98;

/** Returns a descriptor, which the caller closes. @throws UbiError E_SOCKET, E_SOCKET_IN_USE */
export function listenAt(address: string): number {
  const name = hostOf(address);
  const host = name === "localhost" ? "127.0.0.1" : name.replace(/^\[(.*)\]$/, "$1");
  const fd = listenStream(host, Number(address.slice(name.length + 1)), BACKLOG);
  if (fd < 0) {
    const isTaken = fd === EADDRINUSE;
    const why = isTaken ? "another program listens there; choose another port" : errnoText(fd);
    throw new UbiError(
      isTaken ? "E_SOCKET_IN_USE" : "E_SOCKET",
      `cannot listen at ${address}: ${why}`,
    );
  }
  return fd;
}

/** An IPv6 address with its brackets. */
export function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(":"));
}
