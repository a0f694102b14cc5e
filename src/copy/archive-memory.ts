/** How much of a run goes on at once, so that its memory stays bounded whatever the size of a stripe. */
import { availableParallelism } from "node:os";
import type { StoreDescription } from "../archive/object-store.ts";

/** Of stripes and objects in memory, all threads together. The threads themselves come on top. */
const BYTES_MAX = 80 * 2 ** 20;
const WORKERS_MAX = 16;
/** A stripe, what it is compressed to, and what the store makes of that. */
const STRIPES_PER_WORKER = 3;
/** Objects a worker reads from a folder at once: one is read while another one is decoded. */
const FOLDER_READS = 2;
const BUFFERS_MAX = 4;

export interface RunSize {
  readonly workers: number;
  /** Objects that one worker has in flight to or from the store. */
  readonly objectsMax: number;
  /** Stripes that the main thread reads ahead for the workers. */
  readonly buffers: number;
}

export function sizeOfRun(
  direction: "write" | "read",
  stripeBytes: number,
  store: StoreDescription,
): RunSize {
  const stripesMax = Math.max(1, Math.floor(BYTES_MAX / stripeBytes));
  const workersMax = Math.min(availableParallelism(), WORKERS_MAX);
  const workers = atLeastOne(Math.min(workersMax, stripesMax / STRIPES_PER_WORKER));
  const free = stripesMax / workers - STRIPES_PER_WORKER;
  const buffers = atLeastOne(Math.min(BUFFERS_MAX, stripesMax / 8));
  if (store.kind === "filesystem") {
    const objectsMax = direction === "write" ? 1 : atLeastOne(Math.min(FOLDER_READS, free));
    return { workers, objectsMax, buffers };
  }
  const objectsMax = atLeastOne(Math.min(free, Math.ceil(store.connections / workers)));
  return { workers, objectsMax, buffers };
}

// --- internal ---

function atLeastOne(count: number): number {
  return Math.max(1, Math.floor(count));
}
