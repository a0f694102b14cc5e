/** `ubiblk vhost`: serves a disk to a virtual machine over vhost-user-blk. */
import { defineCommand } from "citty";
import { type DeviceConfig, loadDeviceConfig, socketRights } from "../config/index.ts";
import { keepSecrets } from "../config/kept-secrets.ts";
import { DiskDevice } from "../device/disk-device.ts";
import { DiskGrowth } from "../device/disk-growth.ts";
import { OverdueWatch } from "../device/overdue-watch.ts";
import { assert } from "../errors.ts";
import type { SocketPlace } from "../ffi/socket-file.ts";
import { log } from "../log.ts";
import { openService, type Service, socketPlace } from "../service/index.ts";
import { startedProgram } from "../upgrade/program.ts";
import type { Takeover } from "../upgrade/takeover.ts";
import { TAKEOVER_VARIABLE } from "../upgrade/variable.ts";
import { VhostBackend } from "../vhost/backend.ts";
import { FrontEndState } from "../vhost/front-end-state.ts";
import { diskAnswers } from "./disk-answers.ts";
import { DiskSockets } from "./disk-sockets.ts";
import { hardenOrWarn } from "./hardening.ts";
import { logWithoutWaiting } from "./log-without-waiting.ts";
import { metricPlaces } from "./metrics-listener.ts";
import { rpcPlace } from "./rpc-socket.ts";
import { dropStartLeftovers } from "./start-leftovers.ts";
import { StopSignals } from "./stop-signals.ts";
import { type Upgradable, Upgrades } from "./upgrades.ts";

export default defineCommand({
  meta: {
    name: "vhost",
    description:
      "Serves a disk to a virtual machine over vhost-user-blk, at device.vhost_socket of its configuration, to one " +
      "front end after the other, until SIGTERM or SIGINT; SIGUSR2 hands it over to the program that is installed by now",
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
  const upgrades = new Upgrades(startedProgram());
  const takeover = await receiveTakeover();
  try {
    await serveDisk({ configPath, isNull, upgrades, takeover });
  } catch (error) {
    takeover?.refuse(error);
    throw error;
  }
}

/** Its code is loaded only where another process hands its disk over. @throws UbiError E_UPGRADE */
async function receiveTakeover(): Promise<Takeover | undefined> {
  if (process.env[TAKEOVER_VARIABLE] === undefined) {
    return undefined;
  }
  return await (await import("../upgrade/takeover.ts")).Takeover.receive();
}

async function serveDisk(options: {
  readonly configPath: string;
  readonly isNull: boolean;
  readonly upgrades: Upgrades;
  readonly takeover: Takeover | undefined;
}): Promise<void> {
  const { configPath, isNull, upgrades, takeover } = options;
  const opened = await openService(["vhost", "rpc"]);
  const { manager } = opened;
  const service = { manager, inherited: takeover ?? opened.inherited };
  const config = await loadDeviceConfig(configPath, {
    require: service.inherited?.has("vhost") === true ? [] : ["vhost_socket"],
    backend: "vhost",
  });
  const places = placesOf(config, service, takeover);
  if (takeover === undefined) {
    manager?.tell(`opening ${config.device.dataPath}`);
  }
  keepSecrets();
  // Not `using`: after a failure queue workers may be enciphering until the process ends, and what they
  // encipher with wiped keys would reach the disk. The kernel clears the memory of an ended process.
  const onLockWait = (what: string) => manager?.waiting(`waiting for the last I/O to ${what}`);
  const device = await DiskDevice.open(config, { isNull, handed: takeover?.disk(), onLockWait });
  takeover?.restore(device);
  const signals = new StopSignals();
  const growth = new DiskGrowth(device);
  const frontEnd = new FrontEndState();
  const upgrade = (seconds?: number) => upgrades.run(seconds);
  const answer = diskAnswers(config, device, "vhost", { growth, signals, upgrade, frontEnd });
  using sockets = new DiskSockets();
  const backend = await VhostBackend.start(config, device, {
    socket: places.vhost,
    frontEnd,
    isWriteback: takeover?.isWriteback,
    ringEnds: takeover?.ringEnds,
    // Before the first front end comes, so that none sees a disk whose start fails; closed after the backend at the stop,
    // so that the drain can be watched.
    beforeServing: async () => {
      await takeover?.built(device, config.tuning.numQueues);
      await sockets.open(places, answer);
    },
  });
  growth.open(backend);
  await takeover?.serving(device);
  using watch = new OverdueWatch(device.overdue, backend.heartbeat);
  log.info("ready", {
    socket: places.vhost.path,
    disk: config.device.dataPath,
    sectors: device.description.sectors,
    cipher: device.cipherProvider,
    queues: config.tuning.numQueues,
    ...sockets.facts,
    ...(takeover === undefined ? {} : { upgradedFrom: takeover.versionBefore }),
  });
  manager?.ready(`serving ${config.device.dataPath} at ${places.vhost.path}`, backend.heartbeat);
  const served = { config, device, backend, growth, manager, sockets };
  upgrades.open(served);
  dropStartLeftovers();
  await serveToTheEnd(served, { signals, upgrades, watch });
}

/** Returns after a clean stop. When another process has the disk by then, ends the process. */
async function serveToTheEnd(
  { device, backend, growth, manager }: Upgradable,
  {
    signals,
    upgrades,
    watch,
  }: {
    readonly signals: StopSignals;
    readonly upgrades: Upgrades;
    readonly watch: OverdueWatch;
  },
): Promise<void> {
  const isGone = await Promise.race([
    signals.first.then(() => upgrades.close()),
    backend.ended.then(() => false),
    upgrades.left.then(() => true),
  ]);
  if (isGone) {
    await upgrades.left;
    device[Symbol.dispose]();
    process.exit(0); // what is still open is the other process's as well
  }
  log.info("stopping", { signal: signals.name });
  manager?.stopping("requests under way end, the disk is flushed");
  growth.close();
  watch.expectEnds();
  await backend.stop();
  await device.release();
  device[Symbol.dispose]();
  signals.end();
  log.info("stopped");
}

function placesOf(config: DeviceConfig, service: Service, takeover: Takeover | undefined) {
  return {
    vhost: vhostPlace(config, service),
    rpc: rpcPlace("device", config.device, service),
    metrics: metricPlaces("device", config.device, takeover),
  };
}

function vhostPlace({ device }: DeviceConfig, service: Service): SocketPlace {
  const key = "device.vhost_socket";
  const { vhostSocketMode: mode, vhostSocketOwner: owner, vhostSocketGroup: group } = device;
  const rights = socketRights(key, { mode, owner, group });
  const place = socketPlace(service, "vhost", { key, path: device.vhostSocket, rights });
  assert(place !== undefined, "a demanded key is there");
  return place;
}
