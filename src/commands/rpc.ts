/** The RPC sockets of commands: what each of them tells there. */
import packageJson from "../../package.json" with { type: "json" };
import type { DeviceConfig, ServerConfig } from "../config/index.ts";
import type { DiskDevice } from "../device/disk-device.ts";
import { clockNs } from "../ffi/event.ts";
import { countStripes, stripeBytes } from "../formats/metadata.ts";
import { diskAnswer, RpcServer } from "../rpc/index.ts";
import type { ServedDisk } from "../serve/served-disk.ts";
import { type ServerFacts, serverAnswer } from "../serve/server-answers.ts";
import type { ServerStatistics } from "../serve/server-statistics.ts";
import { buffersFor } from "../serve/stripe-reads.ts";
import type { StripeServer } from "../serve/stripe-server.ts";

/** Undefined when the config names no socket. */
export function startRpc(config: DeviceConfig, device: DiskDevice): RpcServer | undefined {
  const path = config.device.rpcSocket;
  if (path === undefined) {
    return undefined;
  }
  const facts = {
    version: packageJson.version,
    queues: device.statistics,
    stripes: () => device.stripeCounts,
    fetch: () => device.stripes,
    nowNs: clockNs,
  };
  return RpcServer.start(path, "device.rpc_socket", (request) => diskAnswer(facts, request));
}

export interface WatchedServer {
  readonly disk: ServedDisk;
  readonly statistics: ServerStatistics;
  /** Undefined until it listens. */
  readonly server: () => StripeServer | undefined;
}

/** Undefined when the config names no socket. */
export function startServerRpc(
  config: ServerConfig,
  { disk, statistics, server }: WatchedServer,
): RpcServer | undefined {
  const path = config.server.rpcSocket;
  if (path === undefined) {
    return undefined;
  }
  const { metadata } = disk;
  const bytes = stripeBytes(metadata);
  const nowMs = () => clockNs() / 1e6;
  const facts: ServerFacts = {
    version: packageJson.version,
    serves: disk.name,
    stripeCount: metadata.stripeCount,
    stripeBytes: bytes,
    fromSource: countStripes(metadata.flags).unfetched,
    sourceState: () => disk.sourceState,
    isTls: config.server.psk !== undefined,
    listeners: () => server()?.places.map(({ name }) => name) ?? [],
    isDraining: () => server()?.isStopping === true,
    statistics,
    bufferCount: buffersFor(bytes),
    nowMs,
    startMs: nowMs(),
  };
  return RpcServer.start(path, "server.rpc_socket", ({ command }) => serverAnswer(facts, command));
}
