/** A queue worker on the real machine: its thread's name, CPU and loop. */
import { thisMachine } from "../device/machine.ts";
import { nameThread, pinThread } from "../ffi/process.ts";
import { log } from "../log.ts";
import { QueueWorker } from "./queue-worker.ts";
import type { QueueWorkerData } from "./queue-worker-data.ts";

/** Runs the worker of this thread until it is told to exit. */
export function runQueueWorker(data: QueueWorkerData): void {
  nameThread(`vhost-queue-${data.queue}`);
  if (data.cpu !== undefined) {
    const result = pinThread(data.cpu);
    if (result < 0) {
      log.warn("cannot pin the queue to its CPU", { queue: data.queue, cpu: data.cpu });
    }
  }
  using worker = new QueueWorker(data, thisMachine(data.ioEngine));
  postMessage("ready");
  Bun.gc(true); // what the start left behind: a turn allocates nothing, so nothing else would collect it
  while (worker.turn()) {
    // Everything happens in a turn.
  }
}
