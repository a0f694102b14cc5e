/**
 * The ublk backend as the main thread sees it: makes or takes over the device, starts one worker a queue, watches
 * over them, stops them. A worker that dies takes the process with it: then the kernel fails what is under way,
 * or keeps it for the next server.
 *
 *   add or recover -> open /dev/ublkcN -> stripe worker, queue workers fetch -> start -> node -> symlink
 *   symlink gone -> stop -> queue workers end, flush -> stripe worker ends -> close /dev/ublkcN -> remove
 */
import { open } from "node:fs/promises";
import type { DeviceConfig } from "../config/index.ts";
import type { DiskDevice } from "../device/disk-device.ts";
import type { GrowingFrontEnd, GuestNews } from "../device/disk-growth.ts";
import { DiskThreads } from "../device/disk-threads.ts";
import type { Heartbeat } from "../device/heartbeat.ts";
import { type ErrorCode, errorText, UbiError } from "../errors.ts";
import { createEvent } from "../ffi/event.ts";
import { mayRunOn } from "../ffi/process.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { type DeviceInfo, encodeParameters, FEATURE } from "../formats/ublk.ts";
import { log } from "../log.ts";
import { RECOVERY_BUSY_MS, type UblkControl } from "./control.ts";
import type { DeviceLink } from "./device-link.ts";
import { openCharacterDevice, waitForBlockDevice } from "./device-node.ts";
import { deviceParameters } from "./device-parameters.ts";
import { QueueMeeting } from "./queue-meeting.ts";
import { queueSizes } from "./queue-sizes.ts";
import type { UblkQueueData, UblkQueueMessage } from "./queue-worker.ts";
import { runApart } from "./run-apart.ts";
import { watchServer } from "./server-watch.ts";
import { stopApart } from "./stop-apart.ts";
import { within } from "./within.ts";

/** For every queue to have its memory and its fetches in place. */
const READY_MS = 120_000;
/** For the kernel to read the partition table, of stripes that may have to be fetched. */
const PATIENCE_MS = 90_000;
/** For the queues to end and flush once the device is stopped. */
const END_MS = 90_000;
/** Of what programs wrote to a device that may be recovered: the kernel drops it when such a device is stopped. */
const SYNC_MS = 60_000;

export interface UblkBackendOptions {
  readonly config: DeviceConfig;
  readonly device: DiskDevice;
  readonly control: UblkControl;
  /** As it was added, or found. */
  readonly info: DeviceInfo;
  /** Of the driver. */
  readonly features: number;
  /** The device has lost its server: this one takes it over. */
  readonly isRecovering: boolean;
  readonly link: DeviceLink | undefined;
  /** Somebody wants it to end: a start under way no longer waits for a stripe source that does not answer. */
  readonly asked: Promise<void>;
}

export class UblkBackend implements GrowingFrontEnd {
  /** Of the block device, once it is there. */
  path = "";
  readonly #options: UblkBackendOptions;
  readonly #wakeFds: readonly number[];
  readonly #meeting = new SharedArrayBuffer(QueueMeeting.SHARED_BYTES);
  readonly #threads: DiskThreads;
  readonly #queuesEnded = Promise.withResolvers<void>();
  #charFd = -1;
  #queuesToEnd = 0;
  #isFlushed = true;
  #isStopping = false;

  /** Rejects when a thread fails; the device is then best left to the kernel. */
  get failed(): Promise<never> {
    return this.#threads.failed;
  }

  get heartbeat(): Heartbeat {
    return this.#threads.heartbeat;
  }

  get id(): number {
    return this.#options.info.id;
  }

  /**
   * Serves the device. When that fails a device that was added for it is removed; one that was to be recovered
   * stays as it was.
   * @throws UbiError E_UBLK_DEVICE, E_URING, E_MEMORY, E_WORKER
   */
  static async start(options: UblkBackendOptions): Promise<UblkBackend> {
    const backend = new UblkBackend(options);
    try {
      await backend.#start();
      return backend;
    } catch (error) {
      await backend.#abandon();
      throw error;
    }
  }

  private constructor(options: UblkBackendOptions) {
    this.#options = options;
    this.#wakeFds = Array.from({ length: options.config.tuning.numQueues }, () => createEvent());
    this.#threads = new DiskThreads(options.device, options.info.queues);
  }

  checkGrowth(): void {
    if ((this.#options.features & FEATURE.updateSize) === 0) {
      throw new UbiError(
        "E_UBLK_DRIVER",
        "the kernel's ublk driver cannot change the size of a device, Linux 6.16 is needed; stop the disk, run " +
          "init-metadata --grow if it has metadata, and start it again",
      );
    }
  }

  async tellSize(sectors: number): Promise<GuestNews> {
    await this.#options.control.updateSize(this.id, sectors);
    return "told";
  }

  /**
   * Ends requests under way, makes them durable, removes the device.
   * @throws UbiError when one of that cannot be had in time
   */
  async stop(): Promise<void> {
    const { control, info, link } = this.#options;
    link?.[Symbol.dispose]();
    this.#threads.limitPatience();
    this.#options.device.limits.lift(); // the kernel waits for every request
    const isSynced =
      (info.flags & FEATURE.userRecovery) === 0 ||
      (await Promise.race([this.#syncBlockDevice(), this.failed]));
    this.#isStopping = true;
    this.#threads.expectEnds();
    await Promise.race([stopApart(control, info.id), this.failed]);
    await Promise.race([this.#endQueues(), this.failed]);
    await this.#threads.release();
    this.#closeAll();
    await control.remove(info.id);
    if (!this.#isFlushed) {
      throw new UbiError("E_DISK_IO", "the disk did not end its flush at the stop");
    }
    if (!isSynced) {
      const what = "what programs wrote to it without a sync of their own may be lost";
      throw new UbiError("E_DISK_IO", `the device could not be synced at the stop: ${what}`);
    }
  }

  // --- internal: start ---

  async #start(): Promise<void> {
    const { control, device, info, features, isRecovering, link } = this.#options;
    if (isRecovering) {
      await control.startRecovery(info.id);
    }
    this.#charFd = await openCharacterDevice(info.id, isRecovering ? RECOVERY_BUSY_MS : undefined);
    if (!isRecovering) {
      const isZeroCopy = (info.flags & FEATURE.autoBufferRegistration) !== 0;
      const parameters = deviceParameters(device.description, info.ioBytesMax, isZeroCopy);
      await control.setParameters(info.id, encodeParameters(parameters));
    }
    this.#startThreads();
    await within(this.#threads.ready, READY_MS, "the queues did not become ready in time");
    void this.#options.asked.then(() => this.#threads.limitPatience());
    const live = isRecovering ? control.endRecovery(info.id) : this.#startDevice();
    await Promise.race([live, this.failed]);
    this.path = await waitForBlockDevice(info.id);
    if ((features & FEATURE.updateSize) === 0) {
      void watchServer(info.id);
    }
    link?.make(this.path);
  }

  /**
   * The kernel reads the partition table meanwhile. Up to some version later than 6.12 a process that ended in the
   * middle of that would never be gone, so reads that have to wait fail first.
   */
  async #startDevice(): Promise<void> {
    const { control, device, info } = this.#options;
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#threads.limitPatience();
      device.limits.lift();
    }, PATIENCE_MS);
    try {
      await control.start(info.id);
    } finally {
      clearTimeout(timer);
    }
    if (isLate) {
      const seconds = PATIENCE_MS / 1000;
      throw new UbiError(
        "E_UBLK_DEVICE",
        `the kernel could not read the partition table of the disk within ${seconds} s; does the disk, or its stripe ` +
          "source, answer?",
      );
    }
  }

  #startThreads(): void {
    const { device, info } = this.#options;
    this.#queuesToEnd = info.queues;
    this.#threads.startStripes(device, this.#wakeFds);
    for (let queue = 0; queue < info.queues; queue++) {
      const worker = this.#threads.start("ublk-queue", this.#queueData(queue), `queue ${queue}`);
      worker.addEventListener("message", (event: MessageEvent<UblkQueueMessage>) =>
        this.#hear(event.data),
      );
    }
  }

  #queueData(queue: number): UblkQueueData {
    const { config, device, info } = this.#options;
    const cpu = config.tuning.cpus?.[queue];
    return {
      queue,
      queues: info.queues,
      meeting: this.#meeting,
      depth: info.depth,
      slots: device.queueSlots,
      ioBytes: info.ioBytesMax,
      isZeroCopy: (info.flags & FEATURE.autoBufferRegistration) !== 0,
      charFd: this.#charFd,
      bufferLimitBytes: queueSizes(config.tuning).bufferLimitBytes,
      ioEngine: config.tuning.ioEngine,
      cpu: cpu !== undefined && mayRunOn(cpu) ? cpu : undefined,
      disk: device.description,
      shared: device.shared,
      pulse: this.#threads.heartbeat.add(`queue ${queue}`, this.#wakeFds[queue] ?? -1),
      wakeFds: this.#wakeFds,
    };
  }

  // --- internal: threads ---

  #hear(message: UblkQueueMessage): void {
    switch (message.kind) {
      case "ready":
        this.#threads.countReady();
        return;
      case "failed":
        this.#threads.fail(message.code as ErrorCode, message.message);
        return;
      case "ended":
        this.#isFlushed &&= message.isFlushed;
        this.#queuesToEnd -= 1;
        if (this.#queuesToEnd === 0) {
          this.#queuesEnded.resolve();
        }
        if (!this.#isStopping) {
          this.#threads.fail(
            "E_UBLK_DEVICE",
            `ublk device ${this.id} was stopped by another program`,
          );
        }
    }
  }

  // --- internal: stop ---

  async #endQueues(): Promise<void> {
    if (this.#queuesToEnd > 0) {
      await within(this.#queuesEnded.promise, END_MS, "the queues did not end in time");
    }
  }

  /** @returns whether all is on the disk that programs left in the kernel's cache */
  async #syncBlockDevice(): Promise<boolean> {
    try {
      await within(syncDevice(this.path), SYNC_MS, "the sync did not end in time");
      return true;
    } catch (error) {
      log.error("cannot sync the block device before its end", {
        path: this.path,
        cause: errorText(error),
      });
      return false;
    }
  }

  #closeAll(): void {
    for (const fd of this.#wakeFds) {
      closeDescriptor(fd);
    }
    closeDescriptor(this.#charFd);
    this.#charFd = -1;
  }

  /** After a start that failed. The process ends soon: what does not end in time ends with it. */
  async #abandon(): Promise<void> {
    const { control, info, isRecovering, link } = this.#options;
    this.#isStopping = true;
    this.#threads.expectEnds();
    link?.[Symbol.dispose]();
    if (isRecovering) {
      return; // the kernel takes the fetches back when the process ends
    }
    try {
      await stopApart(control, info.id);
      if (this.#charFd >= 0) {
        // Queues that failed will not end; their mappings keep the device until the process ends.
        await within(this.#queuesEnded.promise, 1_000, "queues failed").catch(() => {});
        closeDescriptor(this.#charFd);
        this.#charFd = -1;
      }
      await control.remove(info.id);
    } catch (error) {
      log.warn("cannot remove the device", { id: info.id, cause: errorText(error) });
    }
  }
}

/** On a machine without the program, this process takes the risk. */
async function syncDevice(path: string): Promise<void> {
  if (await runApart('sync "$0"', path)) {
    return;
  }
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
