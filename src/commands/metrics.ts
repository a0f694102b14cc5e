/** `ubiblk metrics`: what running backends and stripe servers do, once, as metrics in text. */
import { resolve } from "node:path";
import { defineCommand } from "citty";
import { loadDeviceConfig, loadServerConfig } from "../config/index.ts";
import { assert, UbiError } from "../errors.ts";
import { log, quietLog } from "../log.ts";
import {
  type CollectedTarget,
  collect,
  type MetricFormat,
  type MetricSocket,
  metricText,
  namedSockets,
  replaceFile,
} from "../metrics/index.ts";
import { writePieces } from "./standard-output.ts";

export default defineCommand({
  meta: {
    name: "metrics",
    description: "Writes the metrics of running backends and stripe servers, for Prometheus",
  },
  args: {
    sockets: {
      type: "positional",
      required: false,
      isRepeated: true,
      valueHint: "SOCKET",
      description:
        "RPC sockets; also several with commas, or patterns such as '/run/ubiblk/*/rpc.sock'",
    },
    config: {
      type: "string",
      alias: "f",
      valueHint: "FILE",
      description: "device configuration of a backend: its rpc_socket",
    },
    "listen-config": {
      type: "string",
      valueHint: "FILE",
      description: "configuration of a stripe server: its rpc_socket",
    },
    output: {
      type: "string",
      alias: "o",
      valueHint: "FILE",
      description: "replace this file as a whole, instead of writing to standard output",
    },
    format: {
      type: "enum",
      options: ["openmetrics", "prometheus"],
      description: "form of the text; without it prometheus for a FILE.prom, else openmetrics",
    },
  },
  run: async ({ args }) => {
    quietLog();
    const { config, "listen-config": listenConfig, output } = args;
    const named = args._.length === 0 ? [] : namedSockets(args._);
    const sockets = [
      ...(config === undefined ? [] : [await deviceSocket(config)]),
      ...(listenConfig === undefined ? [] : [await serverSocket(listenConfig)]),
      ...named,
    ];
    if (sockets.length === 0 && args._.length === 0) {
      throw new UbiError("E_USAGE", "SOCKETS: missing, and no --config; see ubiblk metrics --help");
    }
    const targets = await collect(onceEach(sockets));
    write(targets, { output, format: formatFor(args.format, output) });
    tellAbsent(targets);
  },
});

// --- internal ---

async function deviceSocket(path: string): Promise<MetricSocket> {
  const { device } = await loadDeviceConfig(path, { require: ["rpc_socket"] });
  assert(device.rpcSocket !== undefined, "a demanded key is there");
  return { path: resolve(device.rpcSocket), labels: { device: device.deviceId } };
}

async function serverSocket(path: string): Promise<MetricSocket> {
  const { server } = await loadServerConfig(path);
  if (server.rpcSocket === undefined) {
    throw new UbiError("E_CONFIG", `${path}: server.rpc_socket: missing: this command needs it`);
  }
  return { path: resolve(server.rpcSocket), labels: {} };
}

/** The first of those that name the same socket. */
function onceEach(sockets: readonly MetricSocket[]): readonly MetricSocket[] {
  const unique = new Map<string, MetricSocket>();
  for (const socket of sockets) {
    if (!unique.has(socket.path)) {
      unique.set(socket.path, socket);
    }
  }
  return [...unique.values()];
}

/** node_exporter, which reads FILE.prom, knows the older format only. */
function formatFor(asked: string | undefined, output: string | undefined): MetricFormat {
  if (asked === "openmetrics" || asked === "prometheus") {
    return asked;
  }
  return output?.endsWith(".prom") === true ? "prometheus" : "openmetrics";
}

function write(
  targets: readonly CollectedTarget[],
  { output, format }: { readonly output: string | undefined; readonly format: MetricFormat },
): void {
  const text = metricText(targets, { format, processPrefix: "ubiblk_" });
  if (output === undefined) {
    writePieces(1, [text]);
  } else {
    replaceFile(output, text);
  }
}

/**
 * One that is away is told in the text, and noted: whoever collects goes on. When all are, the names may be wrong.
 * @throws UbiError E_METRICS
 */
function tellAbsent(targets: readonly CollectedTarget[]): void {
  const absent = targets.filter(({ answers }) => answers === undefined);
  if (absent.length > 0 && absent.length === targets.length) {
    const reasons = absent.map(({ path, reason }) => `${path}: ${reason}`);
    const more = absent.length > 3 ? `; and ${absent.length - 3} more` : "";
    const message = `nobody answered: ${reasons.slice(0, 3).join("; ")}${more}; is it an rpc_socket, and does the process run?`;
    throw new UbiError("E_METRICS", message);
  }
  for (const { path, reason } of absent) {
    log.warn("no answer", { socket: path, cause: reason ?? "" });
  }
}
