/** `ubiblk ublk`: serves a disk to this machine as a block device, /dev/ublkbN. */
import { defineCommand } from "citty";
import { type DeviceConfig, loadDeviceConfig } from "../config/index.ts";
import { DiskDevice } from "../device/disk-device.ts";
import { DiskGrowth } from "../device/disk-growth.ts";
import { OverdueWatch } from "../device/overdue-watch.ts";
import { errnoText, UbiError } from "../errors.ts";
import { becomeIoFlusher, nameThread } from "../ffi/process.ts";
import { type DeviceInfo, FEATURE } from "../formats/ublk.ts";
import { log } from "../log.ts";
import { openService } from "../service/index.ts";
import { UblkBackend } from "../ublk/backend.ts";
import { UblkControl } from "../ublk/control.ts";
import { KernelControlChannel } from "../ublk/control-channel.ts";
import { DeviceLink } from "../ublk/device-link.ts";
import {
  clearOrphans,
  deleteOrphan,
  type ListedDevice,
  listDevices,
  recoverableDevice,
  serverWords,
} from "../ublk/device-list.ts";
import { deviceParameters, mayCopyNothing } from "../ublk/device-parameters.ts";
import { queueSizes } from "../ublk/queue-sizes.ts";
import { carryOut, type StopOrder, stopOrder } from "../ublk/stop-apart.ts";
import { integerArgument } from "./arguments.ts";
import { diskAnswers } from "./disk-answers.ts";
import { hardenOrWarn } from "./hardening.ts";
import { logWithoutWaiting } from "./log-without-waiting.ts";
import { metricPlaces, startMetrics } from "./metrics-listener.ts";
import { rpcPlace, startRpc } from "./rpc-socket.ts";
import { writePieces } from "./standard-output.ts";
import { dropStartLeftovers } from "./start-leftovers.ts";
import { StopSignals } from "./stop-signals.ts";
import { refuseUpgradeSignal } from "./upgrades.ts";

const idArgument = (description: string) =>
  ({
    type: "string",
    valueHint: "ID",
    description,
    integer: { minimum: 0, maximum: 2 ** 20 - 1 },
  }) as const;

export default defineCommand({
  meta: {
    name: "ublk",
    description:
      "Serves a disk to this machine as a block device, /dev/ublkbN, until SIGTERM or SIGINT; also lists such devices " +
      "and deletes those whose process died",
  },
  args: {
    config: {
      type: "string",
      alias: "f",
      valueHint: "FILE",
      description: "device configuration; needed to serve",
    },
    "device-symlink": {
      type: "string",
      valueHint: "PATH",
      description: "symlink to the block device, while it is served",
    },
    recoverable: {
      type: "boolean",
      default: false,
      description: "when this process dies, requests wait for another one with --recover",
    },
    recover: idArgument("takes over a recoverable device whose process died"),
    copy: {
      type: "boolean",
      default: false,
      description: "copies data even where the kernel could do without",
    },
    list: { type: "boolean", default: false, description: "shows the devices of ubiblk" },
    json: { type: "boolean", default: false, description: "with --list: as JSON" },
    delete: idArgument("deletes a device whose process died; what waits for it fails"),
    "null-disk": {
      type: "boolean",
      default: false,
      description: "completes every request at once, for measuring the front end alone",
    },
  },
  run: async ({ args }) => {
    const deleted = integerArgument(args.delete);
    const order = stopOrder();
    if (order !== undefined) {
      await carryOutStop(order);
    } else if (args.list) {
      await list(args.json);
    } else if (deleted !== undefined) {
      using control = new UblkControl(KernelControlChannel.open());
      await deleteOrphan(control, deleted);
    } else if (args.config === undefined) {
      throw new UbiError("E_USAGE", "--config: missing; see ubiblk ublk --help");
    } else {
      await serve(args.config, {
        linkPath: args["device-symlink"],
        isRecoverable: args.recoverable,
        recovered: integerArgument(args.recover),
        mayZeroCopy: !args.copy,
        isNull: args["null-disk"],
      });
    }
  },
});

// --- internal ---

interface ServeOptions {
  readonly linkPath: string | undefined;
  readonly isRecoverable: boolean;
  /** Id of the device to take over. */
  readonly recovered: number | undefined;
  readonly mayZeroCopy: boolean;
  readonly isNull: boolean;
}

async function serve(configPath: string, options: ServeOptions): Promise<void> {
  await logWithoutWaiting();
  hardenOrWarn();
  neverWaitForItself();
  refuseUpgradeSignal();
  const service = await openService(["rpc"]);
  const { manager } = service;
  const config = await loadDeviceConfig(configPath, { backend: "ublk" });
  const rpcSocket = rpcPlace("device", config.device, service);
  const link = options.linkPath === undefined ? undefined : new DeviceLink(options.linkPath);
  // Not `using`, nor the disk: a failure ends the process, and the kernel ends what is under way.
  const control = new UblkControl(KernelControlChannel.open());
  const features = await control.features();
  manager?.tell(`opening ${config.device.dataPath}`);
  const onLockWait = (what: string) => manager?.waiting(`waiting for the last I/O to ${what}`);
  const device = await DiskDevice.open(config, { isNull: options.isNull, onLockWait });
  const signals = new StopSignals();
  const growth = new DiskGrowth(device);
  const upgrade = () => Promise.reject(noUpgrade());
  const answer = diskAnswers(config, device, "ublk", { growth, signals, upgrade });
  using rpc = startRpc("device", rpcSocket, answer);
  using metrics = await startMetrics(metricPlaces("device", config.device), answer);
  const info = await obtainDevice({ config, device, control, features, options });
  const isRecovering = options.recovered !== undefined;
  const asked = signals.first;
  const serving = { config, device, control, info, features, isRecovering, link, asked };
  const backend = await UblkBackend.start(serving);
  growth.open(backend);
  using watch = new OverdueWatch(device.overdue, backend.heartbeat);
  log.info("ready", {
    device: backend.path,
    disk: config.device.dataPath,
    sectors: device.description.sectors,
    cipher: device.cipherProvider,
    queues: info.queues,
    zeroCopy: (info.flags & FEATURE.autoBufferRegistration) !== 0,
    recoverable: (info.flags & FEATURE.userRecovery) !== 0,
    ...(rpc === undefined ? {} : { rpc: rpc.path }),
    ...(metrics === undefined ? {} : { metrics: metrics.places.join(",") }),
  });
  manager?.ready(`serving ${config.device.dataPath} as ${backend.path}`, backend.heartbeat);
  dropStartLeftovers();
  try {
    await Promise.race([signals.first, backend.failed]);
    log.info("stopping", { signal: signals.name });
    manager?.stopping("requests under way end, the disk is flushed, the device goes");
    growth.close();
    watch.expectEnds();
    await backend.stop();
  } finally {
    link?.[Symbol.dispose]();
  }
  await device.release();
  device[Symbol.dispose]();
  control[Symbol.dispose]();
  signals.end();
  log.info("stopped");
}

/** The kernel, short of memory, writes file systems on this device out, and must not have this process wait for that. */
function neverWaitForItself(): void {
  const result = becomeIoFlusher();
  if (result < 0) {
    log.warn("a machine short of memory may let this process wait for its own device", {
      cause: `cannot set PR_SET_IO_FLUSHER, which needs CAP_SYS_RESOURCE: ${errnoText(result)}`,
    });
  }
}

function noUpgrade(): UbiError {
  const message =
    "a block device is not handed over to another process: start it with --recoverable, stop it by SIGKILL, and start " +
    "the new program with --recover";
  return new UbiError("E_UPGRADE", message);
}

interface DeviceNeeds {
  readonly config: DeviceConfig;
  readonly device: DiskDevice;
  readonly control: UblkControl;
  readonly features: number;
  readonly options: ServeOptions;
}

async function obtainDevice(needs: DeviceNeeds): Promise<DeviceInfo> {
  const { config, device, control, features, options } = needs;
  const { tuning } = config;
  const disk = device.description;
  const { marks } = device;
  const isZeroCopy = options.mayZeroCopy && mayCopyNothing(disk, features, tuning.ioEngine);
  if (options.recovered !== undefined) {
    const { attributes, sectors } = deviceParameters(disk, tuning.ublkMaxIoBytes, false);
    const found = { marks, attributes, sectors };
    const info = await recoverableDevice(control, options.recovered, found);
    checkRecovered(info, needs);
    return info;
  }
  await clearOrphans(control, marks);
  const recovery = FEATURE.userRecovery | FEATURE.userRecoveryReissue;
  if (options.isRecoverable && (features & recovery) !== recovery) {
    throw new UbiError("E_UBLK_DRIVER", "the kernel's ublk driver cannot recover devices");
  }
  const flags =
    FEATURE.ioctlEncoding |
    (options.isRecoverable ? recovery : 0) |
    (isZeroCopy ? FEATURE.autoBufferRegistration : 0);
  const { depth, ioBytes } = queueSizes(tuning);
  const info = await control.add({
    queues: tuning.numQueues,
    depth,
    ioBytesMax: ioBytes,
    flags,
    ...serverWords(marks),
  });
  if (info.queues < tuning.numQueues) {
    log.warn("the kernel gives the device fewer queues: it has no more CPUs", {
      queues: info.queues,
      wanted: tuning.numQueues,
    });
  }
  return info;
}

/** What the device was made with has to fit what this process was told to do. */
function checkRecovered(info: DeviceInfo, { config, device }: DeviceNeeds): void {
  const { tuning } = config;
  const refuse = (why: string) =>
    new UbiError("E_UBLK_DEVICE", `cannot take over ublk device ${info.id}: ${why}`);
  if (info.queues > tuning.numQueues || info.depth > device.queueSlots) {
    const has = `${info.queues} queues of ${info.depth} requests`;
    throw refuse(`it has ${has}, more than tuning.num_queues and tuning.queue_size`);
  }
  const isZeroCopy = (info.flags & FEATURE.autoBufferRegistration) !== 0;
  if (isZeroCopy && !mayCopyNothing(device.description, info.flags, tuning.ioEngine)) {
    throw refuse("it was made for a plain disk without a stripe source, and io_uring");
  }
}

/** Whoever stops the server, and with it all of its group, wants this done. */
async function carryOutStop(order: StopOrder): Promise<void> {
  for (const signal of ["SIGHUP", "SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {});
  }
  nameThread("ubiblk-stop");
  using control = new UblkControl(KernelControlChannel.open());
  await carryOut(control, order);
}

async function list(isJson: boolean): Promise<void> {
  using control = new UblkControl(KernelControlChannel.open());
  const devices = await listDevices(control);
  const text = isJson ? JSON.stringify(devices, undefined, 2) : tableOf(devices);
  writePieces(1, [`${text}\n`]);
}

function tableOf(devices: readonly ListedDevice[]): string {
  const rows = devices.map((device) => [
    String(device.id),
    device.path,
    device.state,
    device.orphan ? "nobody" : String(device.pid ?? "?"),
    `${device.queues} x ${device.queue_size}`,
    device.recoverable ? "yes" : "no",
  ]);
  const table = [["ID", "DEVICE", "STATE", "SERVED BY", "QUEUES", "RECOVERABLE"], ...rows];
  const widths = table[0]?.map((_, i) => Math.max(...table.map((row) => row[i]?.length ?? 0)));
  return table
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths?.[i] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
