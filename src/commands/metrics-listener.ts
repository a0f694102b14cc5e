/** The listener for metrics of a command that serves. Its code is loaded only for a config that names a place. */
import { socketRights } from "../config/index.ts";
import type { MetricsListener } from "../metrics/listener.ts";
import type { AnswerRequest } from "../rpc/index.ts";

/** Of a section, however it is called. */
interface MetricsSettings {
  readonly metricsSocket?: string | undefined;
  readonly metricsSocketMode?: string | undefined;
  readonly metricsSocketOwner?: string | undefined;
  readonly metricsSocketGroup?: string | undefined;
  readonly metricsAddress?: string | undefined;
}

/** Undefined when the config names no place. */
export async function startMetrics(
  section: "device" | "server",
  settings: MetricsSettings,
  answer: AnswerRequest,
): Promise<MetricsListener | undefined> {
  const { metricsSocket: path, metricsAddress: address } = settings;
  if (path === undefined && address === undefined) {
    return undefined;
  }
  const {
    metricsSocketMode: mode,
    metricsSocketOwner: owner,
    metricsSocketGroup: group,
  } = settings;
  const rights = socketRights(`${section}.metrics_socket`, { mode, owner, group });
  const socket = path === undefined ? undefined : { path, rights };
  const { MetricsListener: Listener } = await import("../metrics/listener.ts");
  return Listener.start({ section, socket, address }, answer);
}
