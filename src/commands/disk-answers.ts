/** What a command that serves a disk answers. */
import packageJson from "../../package.json" with { type: "json" };
import type { DeviceConfig } from "../config/index.ts";
import type { DiskDevice } from "../device/disk-device.ts";
import type { DiskGrowth } from "../device/disk-growth.ts";
import { clockNs } from "../ffi/event.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { DiskControl } from "../rpc/disk-commands.ts";
import { type AnswerRequest, deviceAnswer, diskAnswer, processAnswer } from "../rpc/index.ts";
import type { StopSignals } from "./stop-signals.ts";

/** By what clients steer whoever serves the disk. */
interface Steering {
  readonly growth: DiskGrowth;
  readonly signals: StopSignals;
  readonly upgrade: DiskControl["upgrade"];
  /** Of vhost-user. */
  readonly frontEnd?: { readonly isConnected: boolean; readonly isTracking: boolean };
}

export function diskAnswers(
  config: DeviceConfig,
  device: DiskDevice,
  frontEnd: "vhost" | "ublk",
  { growth, signals, upgrade, frontEnd: connected }: Steering,
): AnswerRequest {
  const { description } = device;
  const facts = {
    version: packageJson.version,
    queues: device.statistics,
    stripes: () => device.stripeCounts,
    fetch: () => device.stripes,
    control: { stop: () => signals.ask("rpc"), resize: () => growth.growToFile(), upgrade },
    limits: device.limits,
    overdue: device.overdue,
    nowNs: clockNs,
  };
  const deviceFacts = {
    deviceId: config.device.deviceId,
    frontEnd,
    cipherProvider: device.cipherProvider,
    queues: config.tuning.numQueues,
    queueSize: config.tuning.queueSize,
    isReadOnly: description.isReadOnly,
    connected,
    capacityBytes: () => device.size.sectors * SECTOR_BYTES,
  };
  return (request) =>
    deviceAnswer(deviceFacts, request.command) ??
    processAnswer(request.command) ??
    diskAnswer(facts, request);
}
