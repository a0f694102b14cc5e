/** Bun takes proxies from the environment; what is not encrypted shall go straight to its host. */

/** @param url of requests that this thread will make */
export function keepFromProxy(url: string): void {
  const { protocol, hostname } = new URL(url);
  // Bun looks at one of the two only: that in small letters, if it says anything.
  const name = process.env.no_proxy ? "no_proxy" : "NO_PROXY";
  const exempt = (process.env[name] ?? "").split(",").filter((host) => host !== "");
  if (protocol === "http:" && !exempt.includes(hostname)) {
    process.env[name] = [...exempt, hostname].join(",");
  }
}
