/** Rules of the keys that say where metrics can be scraped, in whatever section. */
import { isIP } from "node:net";
import type { DangerGate } from "./danger-zone.ts";
import type { Findings } from "./findings.ts";
import { isLoopback } from "./loopback.ts";
import { checkSocketRights } from "./socket-rights.ts";

interface MetricsKeys {
  readonly metrics_socket?: string;
  readonly metrics_socket_mode?: string;
  readonly metrics_socket_owner?: string;
  readonly metrics_socket_group?: string;
}

export function checkMetricsSocket(section: string, keys: MetricsKeys, findings: Findings): void {
  checkSocketRights(
    [section, "metrics_socket"],
    {
      path: keys.metrics_socket,
      mode: keys.metrics_socket_mode,
      owner: keys.metrics_socket_owner,
      group: keys.metrics_socket_group,
    },
    findings,
  );
}

/** Metrics are for programs of this machine, unless others are let in. */
export function checkMetricsAddress(
  section: string,
  address: string,
  gate: DangerGate,
  findings: Findings,
): void {
  const path = [section, "metrics_address"];
  const host = hostOf(address);
  if (host === undefined) {
    findings.error("E_CONFIG_VALUE", path, ADDRESS_EXPECTED);
  } else if (!isLoopback(host) && !gate.allows("allow_remote_metrics", path.join("."))) {
    findings.error("E_CONFIG_DANGER", path, REFUSED);
  }
}

// --- internal ---

const ADDRESS_EXPECTED =
  "not an address to listen at; IP:PORT, [IPv6]:PORT or localhost:PORT is expected, with a PORT up to 65535";
const REFUSED =
  "other machines could read the metrics, without encryption; use 127.0.0.1, or set danger_zone.enabled with " +
  "danger_zone.allow_remote_metrics";

/** An IPv6 address in its brackets; undefined for what is no address to listen at. */
function hostOf(address: string): string | undefined {
  const [, host = "", port = ""] = /^(.+):([0-9]{1,5})$/.exec(address) ?? [];
  const [, bracketed = ""] = /^\[(.*)\]$/.exec(host) ?? [];
  const isHost = host === "localhost" || isIP(host) === 4 || isIP(bracketed) === 6;
  return isHost && Number(port) <= 65535 ? host : undefined;
}
