/** Which host names of URLs are this machine: what goes there needs no encryption. */

/** @param hostname as `URL` has it: IPv6 in brackets */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}
