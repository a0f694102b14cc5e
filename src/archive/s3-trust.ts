/** Which certificate authorities are trusted for a URL. Bun has a list of its own; the machine's owner decides better. */
import * as tls from "node:tls";

/** @param ownFile certificates that are named in the settings */
export function trustedAuthorities(url: string, ownFile: string | undefined): string | undefined {
  if (!url.startsWith("https:") || ownFile !== undefined) {
    return ownFile;
  }
  const system = tls.getCACertificates("system");
  return system.length === 0 ? undefined : system.join("\n");
}
