/** Bun takes proxies from the environment; what is not encrypted shall go straight to its host. */

/** @param url of requests that this thread will make */
export function keepFromProxy(url: string): void {
  const { protocol, hostname } = new URL(url);
  const exempt = (process.env.NO_PROXY ?? "").split(",").filter((host) => host !== "");
  if (protocol === "http:" && !exempt.includes(hostname)) {
    process.env.NO_PROXY = [...exempt, hostname].join(",");
  }
}
