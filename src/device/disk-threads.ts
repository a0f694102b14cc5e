/**
 * The threads of a front end over a disk, as the main thread sees them: one worker a queue, one for stripes, and what
 * else the front end needs. Each is watched: one that fails or ends by itself fails the device, since a disk without
 * one of its queues is worse than none.
 */
import { type ErrorCode, UbiError } from "../errors.ts";
import { spawnWorker } from "../ffi/worker.ts";
import { failureLine } from "../ffi/worker-failure.ts";
import type { DiskDevice } from "./disk-device.ts";
import { Heartbeat } from "./heartbeat.ts";
import { StripeThread } from "./stripe-thread.ts";

export class DiskThreads {
  /** Of the threads that cannot be done without. */
  readonly heartbeat = new Heartbeat();
  readonly #workers: Worker[] = [];
  readonly #ready = Promise.withResolvers<void>();
  readonly #failed = Promise.withResolvers<never>();
  #stripes: StripeThread | undefined;
  /** Threads that are not ready yet. */
  #toCome: number;
  #mayEnd = false;

  /** @param queues of the front end; each says that it is ready by `countReady` */
  constructor(device: Pick<DiskDevice, "stripes">, queues: number) {
    this.#toCome = queues + (device.stripes === undefined ? 0 : 1);
    for (const { promise } of [this.#ready, this.#failed]) {
      promise.catch(() => {}); // whoever awaits `ready` or `failed` sees it
    }
  }

  /** Resolves when every queue and the stripe thread are ready; rejects as `failed` does. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Rejects with the first failure of a thread. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** Starts the thread of the disk's stripes, if it has one: before the queues, which need what it makes ready. */
  startStripes(device: DiskDevice, queueWakeFds: readonly number[]): void {
    const data = device.startStripes(queueWakeFds, (message) => this.fail("E_WORKER", message));
    if (device.stripes !== undefined && data !== undefined) {
      const pulse = this.heartbeat.add("stripe", data.stripes.stripeWakeFd);
      const worker = this.start("stripes", { ...data, pulse }, "stripe");
      this.#stripes = new StripeThread(worker, device.stripes, () => this.countReady());
    }
  }

  /** @param name for messages: "the NAME thread failed" */
  start<Data>(role: string, data: Data, name: string): Worker {
    const worker = spawnWorker(role, data);
    worker.addEventListener("error", (event) => {
      this.fail("E_WORKER", `the ${name} thread failed: ${failureLine(event.message)}`);
    });
    worker.addEventListener("close", () => {
      if (!this.#mayEnd) {
        this.fail("E_WORKER", `the ${name} thread ended by itself`);
      }
    });
    this.#workers.push(worker);
    return worker;
  }

  countReady(): void {
    this.#toCome -= 1;
    if (this.#toCome === 0) {
      this.#ready.resolve();
    }
  }

  /** The first one counts. */
  fail(code: ErrorCode, message: string): void {
    const error = new UbiError(code, message);
    this.#ready.reject(error);
    this.#failed.reject(error);
  }

  /** From here on a thread that ends is no failure. */
  expectEnds(): void {
    this.#mayEnd = true;
  }

  /** A stop begins: see StripeThread. */
  limitPatience(): void {
    this.#stripes?.limitPatience();
  }

  /**
   * Ends the stripe thread, which no queue needs any more, and waits for no other one.
   * @throws UbiError E_DISK_IO when the disk does not end that
   */
  async release(): Promise<void> {
    await this.#stripes?.stop();
    for (const worker of this.#workers) {
      worker.unref();
    }
  }
}
