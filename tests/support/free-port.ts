/**
 * Ports for servers that are started later, or again. Those that the kernel gives by itself would not do: it gives them to
 * others meanwhile, who connect or ask for any.
 */
import { readFileSync } from "node:fs";

const FIRST = 10_000;
const RANGE = "/proc/sys/net/ipv4/ip_local_port_range";
const TRIES = 100;

/** One that nobody listens at, below those that the kernel gives. @throws Error when there is none */
export function freePort(): number {
  const lowest = Number(readFileSync(RANGE, "utf8").trim().split(/\s+/)[0]);
  for (let tries = 0; tries < TRIES && lowest > FIRST; tries++) {
    const port = FIRST + Math.floor(Math.random() * (lowest - FIRST));
    if (isFree(port)) {
      return port;
    }
  }
  throw new Error(`no port is free between ${FIRST} and ${lowest}`);
}

function isFree(port: number): boolean {
  try {
    using _probe = Bun.listen({ hostname: "127.0.0.1", port, socket: { data: () => {} } });
    return true;
  } catch {
    return false;
  }
}
