/**
 * The driver's control commands, each with its time limit and with what a person can do when it fails.
 *
 *   add -> setParameters -> (queues fetch) -> start -> LIVE -> stop -> remove
 *                                               |  backend dies, recoverable
 *                            endRecovery <- (queues fetch) <- startRecovery <- QUIESCED
 */
import { errnoText, UbiError } from "../errors.ts";
import {
  ANY_DEVICE,
  CONTROL_CODE,
  type DeviceInfo,
  decodeDeviceInfo,
  decodeFeatures,
  decodeParameters,
  encodeDeviceInfo,
  FEATURES_BYTES,
  parametersQuery,
} from "../formats/ublk.ts";
import { type ControlChannel, type ControlCommand, TIMED_OUT } from "./control-channel.ts";

const QUICK_MS = 10_000;
/** The kernel reads the partition table meanwhile, of stripes that may have to be fetched. */
const START_MS = 120_000;
/** Requests under way end first. */
export const STOP_MS = 60_000;
const REMOVE_MS = 30_000;
/** The old server may still be closing; if it held all requests, 6.12 notices its death when they time out (30 s). */
export const RECOVERY_BUSY_MS = 45_000;
const RETRY_MS = 50;

const EPERM = -1;
const ENOMEM = -12;
const EACCES = -13;
const EBUSY = -16;
const ENODEV = -19;
const EINVAL = -22;
const ENOSPC = -28;
const EOPNOTSUPP = -95;
/** What drivers answer to a command that they do not know; the last one is the kernel's own ENOTSUPP. */
const NOT_KNOWN: readonly number[] = [EINVAL, EOPNOTSUPP, -524];

/** What a device is asked for. */
export type DeviceWish = Pick<
  DeviceInfo,
  "queues" | "depth" | "ioBytesMax" | "flags" | "serverLow" | "serverHigh"
>;

export class UblkControl implements Disposable {
  readonly #channel: ControlChannel;

  constructor(channel: ControlChannel) {
    this.#channel = channel;
  }

  /** @throws UbiError E_UBLK_DRIVER when the driver is too old to be asked */
  async features(): Promise<number> {
    const buffer = new Uint8Array(FEATURES_BYTES);
    const command = { code: CONTROL_CODE.getFeatures, device: ANY_DEVICE, buffer };
    const result = await this.#channel.run(command, QUICK_MS);
    if (result === EINVAL || result === EOPNOTSUPP) {
      throw new UbiError(
        "E_UBLK_DRIVER",
        "the kernel's ublk driver does not tell its features: it is too old, Linux 6.5 is needed",
      );
    }
    this.#check(result, "cannot ask the ublk driver for its features", "E_UBLK_DRIVER");
    return decodeFeatures(buffer);
  }

  /** Makes a device; what it is given may be less than asked for. */
  async add(wish: DeviceWish): Promise<DeviceInfo> {
    const info = { ...wish, id: ANY_DEVICE, state: "dead", pid: process.pid } as const;
    const buffer = encodeDeviceInfo(info);
    const command = { code: CONTROL_CODE.addDevice, device: ANY_DEVICE, buffer };
    await this.#run(command, QUICK_MS, "cannot add a ublk device");
    return decodeDeviceInfo(buffer);
  }

  async setParameters(id: number, parameters: Uint8Array): Promise<void> {
    const command = { code: CONTROL_CODE.setParameters, device: id, buffer: parameters.slice() };
    await this.#run(command, QUICK_MS, `cannot set the parameters of ublk device ${id}`);
  }

  /** A device that is live shows another size from here on. */
  async updateSize(id: number, sectors: number): Promise<void> {
    const command = { code: CONTROL_CODE.updateSize, device: id, data: sectors };
    await this.#run(command, QUICK_MS, `cannot change the size of ublk device ${id}`);
  }

  /** What a device was started with. */
  async parameters(id: number): Promise<ReturnType<typeof decodeParameters>> {
    const buffer = parametersQuery();
    const command = { code: CONTROL_CODE.getParameters, device: id, buffer };
    await this.#run(command, QUICK_MS, `cannot read the parameters of ublk device ${id}`);
    return decodeParameters(buffer);
  }

  /** The block device appears. Every queue has fetched. */
  async start(id: number): Promise<void> {
    const command = { code: CONTROL_CODE.startDevice, device: id, data: process.pid };
    await this.#run(command, START_MS, `cannot start ublk device ${id}`);
  }

  /** The block device goes when its requests have ended; then the queues' fetches end. */
  async stop(id: number): Promise<void> {
    const command = { code: CONTROL_CODE.stopDevice, device: id };
    await this.#run(command, STOP_MS, `cannot stop ublk device ${id}`);
  }

  /**
   * The device and its nodes go; its number is free when the last program that has it open has closed it. Only
   * drivers before 6.9 wait for that. False when there was no such device.
   */
  async remove(id: number): Promise<boolean> {
    const command = { code: CONTROL_CODE.deleteDeviceAsync, device: id };
    let result = await this.#channel.run(command, REMOVE_MS);
    if (NOT_KNOWN.includes(result)) {
      const waiting = { code: CONTROL_CODE.deleteDevice, device: id };
      result = await this.#channel.run(waiting, REMOVE_MS);
    }
    if (result === ENODEV) {
      return false;
    }
    this.#check(result, `cannot delete ublk device ${id}`);
    return true;
  }

  /** Undefined when there is no such device. */
  async info(id: number): Promise<DeviceInfo | undefined> {
    const buffer = encodeDeviceInfo(NO_INFO);
    const command = { code: CONTROL_CODE.getDeviceInfo, device: id, buffer };
    const result = await this.#channel.run(command, QUICK_MS);
    if (result === ENODEV || result === EINVAL) {
      return undefined;
    }
    this.#check(result, `cannot read about ublk device ${id}`);
    return decodeDeviceInfo(buffer);
  }

  /**
   * Makes a device that lost its server ready for another one.
   * @throws UbiError E_UBLK_DEVICE when it is served, or its server died in the middle of a stop that the driver carried out
   */
  async startRecovery(id: number): Promise<void> {
    const command = { code: CONTROL_CODE.startRecovery, device: id };
    const deadline = performance.now() + RECOVERY_BUSY_MS;
    for (;;) {
      const result = await this.#channel.run(command, QUICK_MS);
      const isDead = result !== 0 && (await this.info(id))?.state === "dead";
      if (isDead) {
        const why = "was stopped, or never started, and no request waits: start without --recover";
        throw new UbiError("E_UBLK_DEVICE", `ublk device ${id} ${why}`);
      }
      if (result === EINVAL) {
        return; // a server that died before its queues were ready has asked for it already
      }
      if (result !== EBUSY || performance.now() > deadline) {
        this.#check(result, `cannot begin the recovery of ublk device ${id}`);
        return;
      }
      await Bun.sleep(RETRY_MS);
    }
  }

  /** Requests go to the queues of this process, which have fetched. */
  async endRecovery(id: number): Promise<void> {
    const command = { code: CONTROL_CODE.endRecovery, device: id, data: process.pid };
    await this.#run(command, START_MS, `cannot end the recovery of ublk device ${id}`);
  }

  [Symbol.dispose](): void {
    this.#channel[Symbol.dispose]();
  }

  // --- internal ---

  async #run(command: ControlCommand, timeoutMs: number, what: string): Promise<void> {
    this.#check(await this.#channel.run(command, timeoutMs), what);
  }

  #check(
    result: number,
    what: string,
    code: "E_UBLK_DEVICE" | "E_UBLK_DRIVER" = "E_UBLK_DEVICE",
  ): void {
    if (result < 0) {
      throw new UbiError(code, `${what}: ${reasonOf(result)}`);
    }
  }
}

const NO_INFO: DeviceInfo = {
  queues: 0,
  depth: 0,
  state: "dead",
  ioBytesMax: 0,
  id: 0,
  pid: 0,
  flags: 0,
  serverLow: 0,
  serverHigh: 0,
};

/** What a negative result of a command means, and what to do. */
export function reasonOf(result: number): string {
  switch (result) {
    case TIMED_OUT:
      return "the kernel did not end it in time; the kernel's log may say why";
    case EPERM:
      return "no permission; run as root, with CAP_SYS_ADMIN";
    case EACCES:
      return "no permission, or the driver has its limit of devices (ublks_max of its module)";
    case ENOSPC:
      return "no device id is free; delete devices that are not used (ubiblk ublk --list)";
    case ENOMEM:
      return "the kernel has no memory for it; take a smaller tuning.queue_size";
    case EBUSY:
      return "another program has it open";
    case ENODEV:
      return "there is no such device";
    default:
      return errnoText(result);
  }
}
