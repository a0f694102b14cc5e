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
import { assert, type ErrorCode, UbiError } from "../errors.ts";
import { createEvent, signalEvent } from "../ffi/event.ts";
import { mayRunOn } from "../ffi/process.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import type { HandedSocket, SocketPlace } from "../ffi/socket-file.ts";
import { type ControlMessage, type ControlWorkerData, type Rest, Wish } from "./control-worker.ts";
import type { FrontEndState } from "./front-end-state.ts";
import { MemoryTables } from "./memory-tables.ts";
import { QueueMailbox } from "./queue-mailbox.ts";
import { queueSizes } from "./queue-sizes.ts";
import type { QueueWorkerData } from "./queue-worker-data.ts";
import type { RingEnd } from "./ring-ends.ts";

/** The control worker waits less for a front end's answer, but may be busy ending an earlier one's requests. */
const NEWS_MS = 10_000;

export interface VhostStart {
  readonly socket: SocketPlace;
  /** Where to find what is known of the front end. */
  readonly frontEnd: FrontEndState;
  /** All threads are ready; the one that front ends connect to starts behind it. */
  readonly beforeServing: () => Promise<void>;
  /** The guest's choice of the write cache, where another process served it before. */
  readonly isWriteback?: boolean | undefined;
  /** Where that process stopped the rings. */
  readonly ringEnds?: readonly RingEnd[] | undefined;
}

export class VhostBackend implements GrowingFrontEnd {
  readonly #wakeFd = createEvent();
  readonly #queueWakeFds: readonly number[];
  readonly #wish = new SharedArrayBuffer(4);
  readonly #threads: DiskThreads;
  readonly #stopped = Promise.withResolvers<void>();
  readonly #listening = Promise.withResolvers<HandedSocket>();
  #socket: HandedSocket | undefined;
  readonly #controlData: ControlWorkerData;
  #news: PromiseWithResolvers<GuestNews> | undefined;
  #rested: PromiseWithResolvers<Rest> | undefined;

  /** Resolves when all is stopped after `stop`; rejects when a worker fails. */
  get ended(): Promise<void> {
    return Promise.race([this.#stopped.promise, this.#threads.failed]);
  }

  get heartbeat(): Heartbeat {
    return this.#threads.heartbeat;
  }

  /**
   * Starts serving at `socket`.
   * @throws UbiError when the socket cannot be had; of `beforeServing`
   */
  static async start(
    config: DeviceConfig,
    device: DiskDevice,
    options: VhostStart,
  ): Promise<VhostBackend> {
    const backend = new VhostBackend(config, device, options);
    await backend.#threads.ready;
    await options.beforeServing();
    backend.#startControl();
    backend.#socket = await Promise.race([backend.#listening.promise, backend.#threads.failed]);
    return backend;
  }

  private constructor(config: DeviceConfig, device: DiskDevice, options: VhostStart) {
    const { tuning } = config;
    const { socket, isWriteback, ringEnds = [] } = options;
    const queues = tuning.numQueues;
    this.#threads = new DiskThreads(device, queues);
    const memoryTable = new SharedArrayBuffer(MemoryTables.sharedBytes);
    const mailboxes = Array.from(
      { length: queues },
      () => new SharedArrayBuffer(QueueMailbox.sharedBytes),
    );
    this.#queueWakeFds = mailboxes.map(() => createEvent());
    this.#threads.startStripes(device, this.#queueWakeFds);
    for (const [queue, mailbox] of mailboxes.entries()) {
      const wakeFds = this.#queueWakeFds;
      const pulse = this.heartbeat.add(`queue ${queue}`, wakeFds[queue] ?? -1);
      const controlWakeFd = this.#wakeFd;
      const shared = { memoryTable, mailbox, pulse, wakeFds, controlWakeFd };
      this.#startQueue(queueData({ config, device, queue, ...shared }));
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
      frontEnd: options.frontEnd.shared,
      wish: this.#wish,
      isWriteback,
      ringEnds,
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
    this.#want(Wish.stop);
    this.#threads.limitPatience();
    await this.ended;
    await this.#threads.release();
    for (const fd of [this.#wakeFd, ...this.#queueWakeFds]) {
      closeDescriptor(fd);
    }
  }

  /**
   * Ends all requests and makes durable what they wrote. None begins before `resume`, but the front end stays
   * connected. Undefined when they do not end in time: then all goes on.
   * @throws UbiError when a queue is left alone, or the disk does not make them durable: then all goes on
   */
  async rest(): Promise<Rest | undefined> {
    this.#rested = Promise.withResolvers<Rest>();
    this.#want(Wish.rest);
    const rest = await Promise.race([this.#rested.promise, this.#threads.failed]);
    switch (rest.outcome) {
      case "resting":
        return rest;
      case "busy":
        this.resume();
        return undefined;
      case "left alone":
        this.resume();
        throw new UbiError(
          "E_UPGRADE",
          "a queue is left alone (see the log) until its guest resets the disk; try again after that",
        );
      case "not durable":
        this.resume(); // the next flush of the guest fails
        throw new UbiError("E_DISK_IO", "the disk did not make durable what was written so far");
    }
  }

  /** For another process, to serve in place of this one. */
  get socket(): HandedSocket {
    assert(this.#socket !== undefined, "a started backend listens");
    return this.#socket;
  }

  /** Goes on as before `rest`. */
  resume(): void {
    this.#want(Wish.serve);
  }

  /** Out of `rest`: lets go of the front end. Another process serves the socket from here on. */
  leave(): void {
    this.#threads.expectEnds();
    this.#want(Wish.leave);
  }

  // --- internal ---

  #want(wish: number): void {
    Atomics.store(new Int32Array(this.#wish), 0, wish);
    signalEvent(this.#wakeFd);
  }

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
        this.#listening.resolve(message.socket);
        return;
      case "size-told":
        this.#news?.resolve(message.guest);
        return;
      case "rest":
        this.#rested?.resolve(message);
        return;
      case "left":
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
  readonly controlWakeFd: number;
}): QueueWorkerData {
  const { config, device, queue, ...shared } = options;
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
    ...shared,
  };
}
