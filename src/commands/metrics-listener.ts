/** The listener for metrics of a command that serves. Its code is loaded only for a config that names a place. */
import { socketRights } from "../config/index.ts";
import type { SocketPlace } from "../ffi/socket-file.ts";
import type { MetricPlaces, MetricsListener } from "../metrics/listener.ts";
import type { AnswerRequest } from "../rpc/index.ts";

/** Of a section, however it is called. */
interface MetricsSettings {
  readonly metricsSocket?: string | undefined;
  readonly metricsSocketMode?: string | undefined;
  readonly metricsSocketOwner?: string | undefined;
  readonly metricsSocketGroup?: string | undefined;
  readonly metricsAddress?: string | undefined;
}

/** Sockets that are open already. */
interface GivenMetrics {
  placeOf(name: "metrics", wanted: { readonly path: string | undefined }): SocketPlace | undefined;
  metricsAddressFd(address: string | undefined): number | undefined;
}

/** Undefined when the config names no place. @throws UbiError E_CONFIG_VALUE, E_UPGRADE */
export function metricPlaces(
  section: "device" | "server",
  settings: MetricsSettings,
  given?: GivenMetrics,
): MetricPlaces | undefined {
  const { metricsSocket: path, metricsAddress: address } = settings;
  const {
    metricsSocketMode: mode,
    metricsSocketOwner: owner,
    metricsSocketGroup: group,
  } = settings;
  const rights = socketRights(`${section}.metrics_socket`, { mode, owner, group });
  const addressFd = given?.metricsAddressFd(address);
  const open = given?.placeOf("metrics", { path });
  const socket = open ?? (path === undefined ? undefined : { path, rights });
  return socket === undefined && address === undefined
    ? undefined
    : { section, socket, address, addressFd };
}

export async function startMetrics(
  places: MetricPlaces | undefined,
  answer: AnswerRequest,
): Promise<MetricsListener | undefined> {
  if (places === undefined) {
    return undefined;
  }
  const { MetricsListener: Listener } = await import("../metrics/listener.ts");
  return Listener.start(places, answer);
}
