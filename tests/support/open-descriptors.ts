/** Descriptors that the product can leak: sockets, events, shared memory. The runtime opens files of its own when it likes. */
import { readdirSync, readlinkSync } from "node:fs";

/** How many sockets, eventfds and memory files this process has open. */
export function openDescriptors(): number {
  const links = readdirSync("/proc/self/fd").map(linkOf);
  return links.filter((link) => /^socket:|^anon_inode:\[eventfd\]|^\/memfd:/.test(link)).length;
}

function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ""; // the descriptor of the listing itself
  }
}
