/**
 * Metrics for Prometheus and what understands its formats: one text, made of what a process answers on its RPC socket.
 * docs/metrics.md lists them. The listener is not among these: whoever serves metrics imports it alone.
 */
export { type CollectedTarget, collect, type MetricSocket, namedSockets } from "./collect.ts";
export { replaceFile } from "./output-file.ts";
export { type MetricFormat, metricText } from "./text.ts";
