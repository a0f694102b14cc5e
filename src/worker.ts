/** The entry of every worker thread: its role decides what is loaded. */
import { workerData } from "node:worker_threads";
import { AssertionError } from "./errors.ts";

/** Runs the role of this thread, to its end. */
export async function runWorker(): Promise<void> {
  const data: unknown = workerData;
  const role = typeof data === "object" && data !== null && "role" in data ? data.role : undefined;
  switch (role) {
    case "vhost-control":
      return (await import("./vhost/control-worker.ts")).runControlWorker();
    case "vhost-queue":
      return (await import("./vhost/queue-worker.ts")).runQueueWorker();
    default:
      throw new AssertionError(`a worker was started as ${String(role)}`);
  }
}
