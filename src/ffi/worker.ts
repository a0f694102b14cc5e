/**
 * Starts threads. The executable has one entry: a worker runs it again and finds its role in
 * `workerData`, so no code can be loaded from the current directory.
 */
import { Worker } from "node:worker_threads";
import { type NativeInheritance, nativeInheritance } from "./library.ts";

/** What every worker of ours gets, besides its own data. */
export interface WorkerStart extends NativeInheritance {
  readonly role: string;
}

/**
 * Starts a worker. `data` must be cloneable; SharedArrayBuffers in it are shared.
 * The caller must listen to `error` and `exit`: a dying worker is silent otherwise.
 */
export function spawnWorker(role: string, data: object): Worker {
  const entry = import.meta.url.startsWith("file:///$bunfs/")
    ? new URL(import.meta.url)
    : new URL("../main.ts", import.meta.url);
  return new Worker(entry, { workerData: { ...data, ...nativeInheritance(), role } });
}
