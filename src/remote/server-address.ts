/** Where a stripe server listens: a host and port, or a Unix socket; and the addresses behind a host name. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { assert, errorText, UbiError } from "../errors.ts";

export type ServerAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** @param address `HOST:PORT` or `[IPv6]:PORT`, as the config was checked to have it */
export function parseServerAddress(address: string): ServerAddress {
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, "$1");
  const port = Number(address.slice(colon + 1));
  assert(colon > 0, "an address has a host");
  assert(Number.isInteger(port), "an address has a port");
  return { kind: "tcp", host, port };
}

/** As messages name it. */
export function serverName(address: ServerAddress): string {
  if (address.kind === "unix") {
    return address.path;
  }
  const { host, port } = address;
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether the address can be connected to without asking a name server. */
export function isLiteral(address: ServerAddress): boolean {
  return address.kind === "unix" || isIP(withoutZone(address.host)) !== 0;
}

/**
 * What can be connected to, in the order to try: a Unix path, or literal IP addresses.
 * @throws UbiError E_REMOTE when the name is not known
 */
export async function resolveServer(address: ServerAddress): Promise<readonly string[]> {
  if (address.kind === "unix") {
    return [address.path];
  }
  if (isLiteral(address)) {
    return [address.host];
  }
  const found = await addressesOf(address.host);
  if (found.length === 0) {
    throw unknownHost(address.host, "it has no address");
  }
  return found.slice(0, ADDRESSES_MAX);
}

// --- internal ---

const ADDRESSES_MAX = 16;
const LOOKUP_TIMEOUT_MS = 10_000;

async function addressesOf(host: string): Promise<readonly string[]> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(unknownHost(host, `no answer in ${LOOKUP_TIMEOUT_MS / 1000} s`)),
    LOOKUP_TIMEOUT_MS,
  );
  try {
    const found = await Promise.race([
      lookup(host, { all: true, order: "verbatim" }),
      late.promise,
    ]);
    return found.map((entry) => entry.address);
  } catch (error) {
    throw error instanceof UbiError ? error : unknownHost(host, errorText(error));
  } finally {
    clearTimeout(timer);
  }
}

function unknownHost(host: string, why: string): UbiError {
  return new UbiError(
    "E_REMOTE",
    `cannot find the address of the stripe server ${host}: ${why}; check the name and the resolver`,
  );
}

/** fe80::1%eth0 names an interface behind the address. */
function withoutZone(host: string): string {
  return host.replace(/%.*$/, "");
}
