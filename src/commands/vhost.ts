/** `ubiblk vhost`: serves a disk to a virtual machine over vhost-user-blk. */
import { defineCommand } from "citty";
import { type DeviceConfig, loadDeviceConfig, socketRights } from "../config/index.ts";
import { DiskDevice } from "../device/disk-device.ts";
import { DiskGrowth } from "../device/disk-growth.ts";
import { assert } from "../errors.ts";
import type { SocketPlace } from "../ffi/socket-file.ts";
import { log } from "../log.ts";
import { openService, type Service, socketPlace } from "../service/index.ts";
import { VhostBackend } from "../vhost/backend.ts";
import { diskAnswers } from "./disk-answers.ts";
import { hardenOrWarn } from "./hardening.ts";
import { logWithoutWaiting } from "./log-without-waiting.ts";
import { startMetrics } from "./metrics-listener.ts";
import { rpcPlace, startRpc } from "./rpc-socket.ts";
import { dropStartLeftovers } from "./start-leftovers.ts";
import { StopSignals } from "./stop-signals.ts";

export default defineCommand({
  meta: {
    name: "vhost",
    description:
      "Serves a disk to a virtual machine over vhost-user-blk, at device.vhost_socket of its configuration, to one " +
      "front end after the other, until SIGTERM or SIGINT",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      required: true,
      valueHint: "FILE",
      description: "device configuration",
    },
    "null-disk": {
      type: "boolean",
      default: false,
      description: "completes every request at once, for measuring the front end alone",
    },
  },
  run: ({ args }) => serve(args.config, args["null-disk"]),
});

// --- internal ---

async function serve(configPath: string, isNull: boolean): Promise<void> {
  await logWithoutWaiting();
  hardenOrWarn();
  const service = await openService(["vhost", "rpc"]);
  const { manager } = service;
  const config = await loadDeviceConfig(configPath, {
    require: service.inherited?.has("vhost") === true ? [] : ["vhost_socket"],
    backend: "vhost",
  });
  const socket = vhostPlace(config, service);
  const rpcSocket = rpcPlace("device", config.device, service);
  manager?.tell(`opening ${config.device.dataPath}`);
  // Not `using`: after a failure queue workers may be enciphering until the process ends, and what they
  // encipher with wiped keys would reach the disk. The kernel clears the memory of an ended process.
  const device = await DiskDevice.open(config, { isNull });
  const signals = new StopSignals();
  const growth = new DiskGrowth(device);
  // Before the backend, so that no front end sees a disk whose start fails; after it at the stop, so
  // that the drain can be watched.
  const answer = diskAnswers(config, device, "vhost", { growth, signals });
  using rpc = startRpc("device", rpcSocket, answer);
  using metrics = await startMetrics("device", config.device, answer);
  const backend = await VhostBackend.start(config, device, socket);
  growth.open(backend);
  log.info("ready", {
    socket: socket.path,
    disk: config.device.dataPath,
    sectors: device.description.sectors,
    cipher: device.cipherProvider,
    queues: config.tuning.numQueues,
    ...(rpc === undefined ? {} : { rpc: rpc.path }),
    ...(metrics === undefined ? {} : { metrics: metrics.places.join(",") }),
  });
  manager?.ready(`serving ${config.device.dataPath} at ${socket.path}`, backend.heartbeat);
  dropStartLeftovers();
  await Promise.race([signals.first, backend.ended]);
  log.info("stopping", { signal: signals.name });
  manager?.stopping("requests under way end, the disk is flushed");
  growth.close();
  await backend.stop();
  await device.release();
  device[Symbol.dispose]();
  signals.end();
  log.info("stopped");
}

function vhostPlace({ device }: DeviceConfig, service: Service): SocketPlace {
  const key = "device.vhost_socket";
  const { vhostSocketMode: mode, vhostSocketOwner: owner, vhostSocketGroup: group } = device;
  const rights = socketRights(key, { mode, owner, group });
  const place = socketPlace(service, "vhost", { key, path: device.vhostSocket, rights });
  assert(place !== undefined, "a demanded key is there");
  return place;
}
