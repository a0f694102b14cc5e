/**
 * Starts threads. The executable has one entry: a worker runs it again and learns its role from its first
 * message, so no code can be loaded from the current directory. (The workers of node:worker_threads would
 * cost 2 MiB more each.)
 */
import { type SharedLogSettings, sharedLogSettings } from "../log.ts";
import { type NativeInheritance, nativeInheritance } from "./library.ts";

/** The first message to every worker of ours. */
export interface WorkerStart<Data> extends NativeInheritance {
  readonly role: string;
  readonly log: SharedLogSettings;
  readonly data: Data;
}

/**
 * Starts a worker. `data` must be cloneable; SharedArrayBuffers in it are shared.
 * The caller must listen to `error` and `close`: a dying worker is silent otherwise.
 */
export function spawnWorker<Data>(role: string, data: Data): Worker {
  const worker = new Worker(entryUrl());
  const start: WorkerStart<Data> = {
    ...nativeInheritance(),
    role,
    log: sharedLogSettings(),
    data,
  };
  worker.postMessage(start);
  return worker;
}

/**
 * Keeps this thread until the process ends: for one whose I/O may never end. The kernel lets a thread end only behind
 * its I/O, and the main thread, which joins what has ended, would wait as long.
 */
export function stayToTheEnd(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

// --- internal ---

/** Compiled, the entry is what the process was started with; in development it lies two folders up. */
function entryUrl(): string {
  return import.meta.url.startsWith("file:///$bunfs/")
    ? `file://${Bun.main}`
    : new URL("../main.ts", import.meta.url).href;
}
