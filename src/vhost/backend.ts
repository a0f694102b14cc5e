/**
 * The vhost-user backend as the main thread sees it: starts the control worker and one worker a queue,
 * watches over them, stops them. A worker that dies takes the process with it: a disk without one of its
 * queues is worse than none.
 */
import type { DeviceConfig } from "../config/index.ts";
import type { DiskDevice } from "../device/disk-device.ts";
import type { GrowingFrontEnd, GuestNews } from "../device/disk-growth.ts";
import { DiskThreads } from "../device/disk-threads.ts";
import type { Heartbeat, SharedPulse } from "../device/heartbeat.ts";
import type { ErrorCode } from "../errors.ts";
import { createEvent, signalEvent } from "../ffi/event.ts";
import { mayRunOn } from "../ffi/process.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import type { SocketPlace } from "../ffi/socket-file.ts";
import { GuestMemory } from "../virtio/guest-memory.ts";
import type { ControlMessage, ControlWorkerData } from "./control-worker.ts";
import { QueueMailbox } from "./queue-mailbox.ts";
import { queueSizes } from "./queue-sizes.ts";
import type { QueueWorkerData } from "./queue-worker-data.ts";

/** The control worker waits less for a front end's answer, but may be busy ending an earlier one's requests. */
const NEWS_MS = 10_000;

export class VhostBackend implements GrowingFrontEnd {
  readonly #wakeFd = createEvent();
  readonly #queueWakeFds: readonly number[];
  readonly #stop = new SharedArrayBuffer(4);
  readonly #threads: DiskThreads;
  readonly #stopped = Promise.withResolvers<void>();
  readonly #listening = Promise.withResolvers<void>();
  readonly #controlData: ControlWorkerData;
  #news: PromiseWithResolvers<GuestNews> | undefined;

  /** Resolves when all is stopped after `stop`; rejects when a worker fails. */
  get ended(): Promise<void> {
    return Promise.race([this.#stopped.promise, this.#threads.failed]);
  }

  get heartbeat(): Heartbeat {
    return this.#threads.heartbeat;
  }

  /**
   * Starts serving at `socket`.
   * @throws UbiError when the socket cannot be had
   */
  static async start(
    config: DeviceConfig,
    device: DiskDevice,
    socket: SocketPlace,
  ): Promise<VhostBackend> {
    const backend = new VhostBackend(config, device, socket);
    await backend.#threads.ready;
    backend.#startControl();
    await Promise.race([backend.#listening.promise, backend.#threads.failed]);
    return backend;
  }

  private constructor(config: DeviceConfig, device: DiskDevice, socket: SocketPlace) {
    const { tuning } = config;
    const queues = tuning.numQueues;
    this.#threads = new DiskThreads(device, queues);
    const memoryTable = new SharedArrayBuffer(GuestMemory.sharedWords * 8);
    const mailboxes = Array.from(
      { length: queues },
      () => new SharedArrayBuffer(QueueMailbox.sharedBytes),
    );
    this.#queueWakeFds = mailboxes.map(() => createEvent());
    this.#threads.startStripes(device, this.#queueWakeFds);
    for (const [queue, mailbox] of mailboxes.entries()) {
      const wakeFds = this.#queueWakeFds;
      const pulse = this.heartbeat.add(`queue ${queue}`, wakeFds[queue] ?? -1);
      this.#startQueue(queueData({ config, device, queue, mailbox, memoryTable, pulse, wakeFds }));
    }
    this.#controlData = {
      socket,
      disk: device.description,
      shared: device.shared,
      limits: tuning,
      memoryTable,
      mailboxes,
      queueWakeFds: this.#queueWakeFds,
      wakeFd: this.#wakeFd,
      pulse: this.heartbeat.add("vhost control", this.#wakeFd),
      stop: this.#stop,
    };
  }

  checkGrowth(): void {}

  async tellSize(): Promise<GuestNews> {
    const news = Promise.withResolvers<GuestNews>();
    this.#news = news;
    signalEvent(this.#wakeFd);
    const timer = setTimeout(() => news.resolve("next_connection"), NEWS_MS);
    timer.unref();
    try {
      return await news.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends requests in flight, flushes, removes the socket. Resolves as `ended` does. */
  async stop(): Promise<void> {
    this.#threads.expectEnds();
    Atomics.store(new Int32Array(this.#stop), 0, 1);
    signalEvent(this.#wakeFd);
    this.#threads.limitPatience();
    await this.ended;
    await this.#threads.release();
    for (const fd of [this.#wakeFd, ...this.#queueWakeFds]) {
      closeDescriptor(fd);
    }
  }

  // --- internal ---

  /** Last: no front end finds a socket before every queue can serve it. */
  #startControl(): void {
    const worker = this.#threads.start("vhost-control", this.#controlData, "vhost control");
    worker.addEventListener("message", (event: MessageEvent<ControlMessage>) =>
      this.#hear(event.data),
    );
  }

  #startQueue(data: QueueWorkerData): void {
    const worker = this.#threads.start("vhost-queue", data, `queue ${data.queue}`);
    worker.addEventListener("message", () => this.#threads.countReady());
  }

  #hear(message: ControlMessage): void {
    switch (message.kind) {
      case "listening":
        this.#listening.resolve();
        return;
      case "size-told":
        this.#news?.resolve(message.guest);
        return;
      case "failed":
        this.#threads.fail(message.code as ErrorCode, message.message);
        return;
      case "stopped":
        if (message.isFlushed) {
          this.#stopped.resolve();
        } else {
          this.#threads.fail(
            "E_DISK_IO",
            "the disk or its stripe source did not end its requests, or the disk its flush, at the stop",
          );
        }
    }
  }
}

function queueData(options: {
  readonly config: DeviceConfig;
  readonly device: DiskDevice;
  readonly queue: number;
  readonly mailbox: SharedArrayBuffer;
  readonly memoryTable: SharedArrayBuffer;
  readonly pulse: SharedPulse;
  readonly wakeFds: readonly number[];
}): QueueWorkerData {
  const { config, device, queue, mailbox, memoryTable, pulse, wakeFds } = options;
  const { tuning } = config;
  const cpu = tuning.cpus?.[queue];
  return {
    queue,
    queues: tuning.numQueues,
    ...queueSizes(tuning, device.queueSlots),
    ioEngine: tuning.ioEngine,
    cpu: cpu !== undefined && mayRunOn(cpu) ? cpu : undefined,
    pollTimeoutUs: tuning.pollTimeoutUs,
    deviceId: config.device.deviceId,
    disk: device.description,
    shared: device.shared,
    memoryTable,
    mailbox,
    pulse,
    wakeFds,
  };
}
