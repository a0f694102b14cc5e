/** The RPC socket of a command that serves a disk. */
import packageJson from "../../package.json" with { type: "json" };
import type { DeviceConfig } from "../config/index.ts";
import type { DiskDevice } from "../device/disk-device.ts";
import { clockNs } from "../ffi/event.ts";
import { diskAnswer, RpcServer } from "../rpc/index.ts";

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
