/** The listener for metrics of a command that serves. Its code is loaded only for a config that names a place. */
import type { MetricsListener } from "../metrics/listener.ts";
import type { AnswerRequest } from "../rpc/index.ts";

/** Undefined when the config names no place. */
export async function startMetrics(
  section: "device" | "server",
  keys: {
    readonly metricsSocket?: string | undefined;
    readonly metricsAddress?: string | undefined;
  },
  answer: AnswerRequest,
): Promise<MetricsListener | undefined> {
  const { metricsSocket: socket, metricsAddress: address } = keys;
  if (socket === undefined && address === undefined) {
    return undefined;
  }
  const { MetricsListener: Listener } = await import("../metrics/listener.ts");
  return Listener.start({ section, socket, address }, answer);
}
