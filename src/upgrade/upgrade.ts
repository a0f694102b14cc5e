/**
 * The side of the process that serves: starts the program that lies at its place now, and hands its disk over
 * (hand-over.ts). Until the other one may write, everything that fails leaves the disk here.
 */
import packageJson from "../../package.json" with { type: "json" };
import type { DeviceConfig } from "../config/index.ts";
import { keptSecrets } from "../config/kept-secrets.ts";
import type { DiskDevice } from "../device/disk-device.ts";
import type { DiskGrowth } from "../device/disk-growth.ts";
import { configuredLimits } from "../device/limit-settings.ts";
import { errorText, UbiError } from "../errors.ts";
import { closeDescriptor, pairOfSockets } from "../ffi/socket.ts";
import type { HandedSocket } from "../ffi/socket-file.ts";
import { isLogLevel, log, logLevel } from "../log.ts";
import type { ServiceManager } from "../service/service-manager.ts";
import type { VhostBackend } from "../vhost/backend.ts";
import type { Rest } from "../vhost/control-worker.ts";
import { deviceFeatures, PROTOCOL_FEATURES } from "../vhost/features.ts";
import { HAND_OVER_FORMAT, type HandedState, HandOver, type Message } from "./hand-over.ts";
import { checkProgram, type StartedProgram } from "./program.ts";
import { SecretMemory } from "./secret-memory.ts";
import { TAKEOVER_VARIABLE } from "./variable.ts";

/** What is handed over, and by whom. */
export interface ServedDisk {
  readonly program: StartedProgram;
  readonly config: DeviceConfig;
  readonly device: DiskDevice;
  readonly backend: VhostBackend;
  readonly growth: DiskGrowth;
  readonly manager: ServiceManager | undefined;
  /** The others beside the one for front ends. */
  readonly sockets: {
    /** By key of the config. */
    readonly handed: Readonly<Record<string, HandedSocket>>;
    /** Another process serves them from here on. */
    leave(): void;
  };
  /** Before any command could change it. */
  readonly logLevelAtStart: string;
}

export interface UpgradeOutcome {
  readonly pid: number;
  readonly version: string;
  readonly pauseMs: number;
}

/** For a stripe's write and the metadata of those before. */
const HOLD_MS = 10_000;
const BUILT_MS = 20_000;
const SERVING_MS = 10_000;
const KILL_MS = 5_000;
/** The descriptor of the pair in the new process. */
const CHILD_FD = 3;

/** Hands the disk over to a process that it starts. @throws UbiError E_UPGRADE; then the disk is served here as before */
export async function handOverDisk(
  disk: ServedDisk,
  options: {
    /** For the new process to get ready. */
    readonly prepareMs: number;
    readonly signal: AbortSignal;
    /** The disk is not this process's any more, whatever comes. */
    readonly onGone: () => void;
  },
): Promise<UpgradeOutcome> {
  const { growth, program } = disk;
  checkProgram(program);
  if (growth.isUnderWay) {
    throw new UbiError("E_UPGRADE", "the disk is growing; try again when that is done");
  }
  log.info("upgrade begins", { program: program.path, version: packageJson.version });
  const [own, given] = pairOfSockets();
  using channel = new HandOver(own, "the new process");
  const child = start(disk, given);
  let isGone = false;
  growth.close();
  try {
    const version = await prepare(disk, channel, options);
    const restMs = performance.now();
    const state = await rest(disk);
    try {
      channel.send({ kind: "yours", state });
      await channel.expect("built", { timeoutMs: BUILT_MS, signal: options.signal });
      channel.send({ kind: "go" });
    } catch (error) {
      await end(child);
      disk.device.stripes?.letGo();
      disk.backend.resume();
      throw error;
    }
    isGone = true;
    options.onGone();
    leave(disk, child.pid);
    await channel.expect("serving", { timeoutMs: SERVING_MS });
    return { pid: child.pid, version, pauseMs: Math.round(performance.now() - restMs) };
  } catch (error) {
    if (!isGone) {
      await end(child);
      growth.open(disk.backend);
    }
    throw error instanceof UbiError ? error : new UbiError("E_UPGRADE", errorText(error));
  }
}

// --- internal ---

function start({ program, manager }: ServedDisk, given: number): Bun.Subprocess {
  try {
    return Bun.spawn([program.path, ...program.words], {
      argv0: program.name,
      stdio: ["inherit", "inherit", "inherit", given],
      env: {
        ...process.env, // without the secrets that were in it
        ...manager?.environment,
        [TAKEOVER_VARIABLE]: String(CHILD_FD),
      },
    });
  } catch (error) {
    throw new UbiError("E_UPGRADE", `cannot start ${program.path}: ${errorText(error)}`, {
      cause: error,
    });
  } finally {
    closeDescriptor(given);
  }
}

/** Offers the disk. Returns the version of the process that is ready to take it. */
async function prepare(
  disk: ServedDisk,
  channel: HandOver,
  { prepareMs, signal }: { readonly prepareMs: number; readonly signal: AbortSignal },
): Promise<string> {
  using secrets = SecretMemory.holding(keptSecrets());
  try {
    const { message, descriptors } = offerOf(disk, secrets.fd);
    channel.send(message, descriptors);
    const prepared = await channel.expect("prepared", { timeoutMs: prepareMs, signal });
    return prepared.message.version;
  } finally {
    closeDescriptor(secrets.fd);
  }
}

function offerOf(
  { config, device, backend, sockets }: ServedDisk,
  secretsFd: number,
): { readonly message: Message<"offer">; readonly descriptors: readonly number[] } {
  const given = new Map<string, number>([["secrets", secretsFd]]);
  const { data, metadata } = device.handed;
  for (const [name, file] of [["data", data] as const, ["metadata", metadata] as const]) {
    if (file !== undefined) {
      given.set(name, file.fd);
    }
    if (file !== undefined && file.claimFd >= 0) {
      given.set(`${name} claim`, file.claimFd);
    }
  }
  const places: Record<string, { readonly path: string; readonly isFileOurs: boolean }> = {};
  for (const [key, socket] of Object.entries({ vhost_socket: backend.socket, ...sockets.handed })) {
    const { path, isFileOurs, fd } = socket;
    places[key] = { path, isFileOurs };
    given.set(key, fd);
  }
  const noteOf = ({ isDirect, isReadOnly }: typeof data) => ({ isDirect, isReadOnly });
  const message: Message<"offer"> = {
    kind: "offer",
    format: HAND_OVER_FORMAT,
    version: packageJson.version,
    descriptors: [...given.keys()],
    data: noteOf(data),
    ...(metadata === undefined ? {} : { metadata: noteOf(metadata) }),
    sockets: places,
    features: `0x${deviceFeatures(device.description).toString(16)}`,
    protocolFeatures: `0x${PROTOCOL_FEATURES.toString(16)}`,
    queues: config.tuning.numQueues,
    sectors: device.size.sectors,
    content: device.marks.content,
  };
  return { message, descriptors: [...given.values()] };
}

/** Nothing is under way any more when this returns. @throws UbiError E_UPGRADE: then all goes on */
async function rest(disk: ServedDisk): Promise<HandedState> {
  const { backend, device } = disk;
  const resting = await backend.rest();
  if (resting === undefined) {
    const message = "requests under way do not end; the disk or its stripe source does not answer";
    throw new UbiError("E_UPGRADE", message);
  }
  const { stripes } = device;
  if (stripes !== undefined && !(await stripes.hold(HOLD_MS))) {
    stripes.letGo();
    backend.resume();
    throw new UbiError("E_UPGRADE", "the disk or its metadata did not end the writes of stripes");
  }
  if (device.hasUntoldFailure) {
    stripes?.letGo();
    backend.resume();
    const message =
      "a sync of the disk has failed, and the guest has yet to hear of it from its next flush";
    throw new UbiError("E_UPGRADE", message);
  }
  device.noteRest();
  return stateOf(disk, resting);
}

/** What commands changed; where the config says the same, that counts. */
function stateOf({ config, device, logLevelAtStart }: ServedDisk, resting: Rest): HandedState {
  const { isPaused, bytesPerSecond } = device.stripes?.wishes ?? {};
  const { settings } = device.limits;
  const hasOwnLimits = JSON.stringify(settings) !== JSON.stringify(configuredLimits(config));
  const level = logLevel();
  return {
    isWriteback: resting.isWriteback,
    ringEnds: resting.ringEnds.map(([ring, base]) => [ring, base]),
    ...(hasOwnLimits ? { limits: settings.map(limitOf) } : {}),
    ...(isPaused === true ? { isFetchPaused: isPaused } : {}),
    ...(bytesPerSecond === undefined
      ? {}
      : { fetchBytesPerSecond: Number.isFinite(bytesPerSecond) ? bytesPerSecond : null }),
    ...(isLogLevel(level) && level !== logLevelAtStart ? { logLevel: level } : {}),
  };
}

function limitOf({ perSecond, burst }: DiskDevice["limits"]["settings"][number]) {
  return {
    ...(perSecond === undefined ? {} : { perSecond }),
    ...(burst === undefined ? {} : { burst }),
  };
}

/** The other process serves from here on. */
function leave({ backend, manager, sockets }: ServedDisk, pid: number): void {
  backend.leave();
  sockets.leave();
  manager?.handOver(pid);
}

/** Of a process that has not got the disk. */
async function end(child: Bun.Subprocess): Promise<void> {
  child.kill("SIGKILL");
  const inVain = Promise.withResolvers<void>();
  const timer = setTimeout(inVain.resolve, KILL_MS);
  await Promise.race([child.exited, inVain.promise]);
  clearTimeout(timer); // or it would keep a process that stops
}
