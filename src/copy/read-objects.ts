/** Lets worker threads read the objects of an archive that was opened: for an image, or for a check. */
import type { ArchiveManifest } from "../archive/archive-manifest.ts";
import type { StoreDescription } from "../archive/object-store.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { sizeOfRun } from "./archive-memory.ts";
import type { RunProgress } from "./make-archive.ts";
import type { BadStripe, ObjectReaderData, ObjectUse } from "./object-reader.ts";
import { COUNTER, StripeBoard } from "./stripe-board.ts";
import { runWorkers } from "./worker-group.ts";

export interface ReadObjectsOptions {
  readonly source: StoreDescription;
  readonly use: ObjectUse;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: RunProgress) => void;
  readonly onBad?: (bad: BadStripe) => void;
  /** What the main thread does meanwhile. */
  readonly mainPart?: () => Promise<void>;
}

/**
 * Returns the board, whose counters tell what was done.
 * @throws UbiError the first failure (in a check only of what is no finding), or the reason of the signal
 */
export async function readObjects(
  manifest: ArchiveManifest,
  options: ReadObjectsOptions,
): Promise<StripeBoard> {
  const { map, stripeSectors } = manifest;
  const stripeBytes = stripeSectors * SECTOR_BYTES;
  const work = storedStripes(manifest);
  const totalBytes = work.reduce((sum, isStored) => sum + isStored, 0) * stripeBytes;
  const { workers, objectsMax } = sizeOfRun("read", stripeBytes, options.source);
  const board = StripeBoard.create({ work, workers, buffers: 0 });
  const data: readonly ObjectReaderData[] = Array.from({ length: workers }, (_, worker) => ({
    worker,
    board: board.shared,
    map: map.shared,
    store: options.source,
    stripeSectors,
    compression: manifest.compression.kind,
    xtsKey: manifest.xtsKey,
    getsMax: objectsMax,
    use: options.use,
  }));
  const tell = () => {
    options.onProgress({ doneBytes: board.total(COUNTER.STRIPES) * stripeBytes, totalBytes });
  };
  const timer = setInterval(tell, PROGRESS_MS);
  const { signal, onBad, mainPart } = options;
  try {
    await runWorkers<ObjectReaderData, BadStripe>({
      role: "object-reader",
      data,
      signal,
      onStop: () => board.stop(),
      ...(onBad === undefined ? {} : { onNote: onBad }),
      ...(mainPart === undefined ? {} : { mainPart }),
    });
    tell();
    return board;
  } finally {
    clearInterval(timer);
  }
}

// --- internal ---

const PROGRESS_MS = 250;

/** 1 for every stripe that has an object. */
function storedStripes({ map }: ArchiveManifest): Uint8Array<SharedArrayBuffer> {
  const work = new Uint8Array(new SharedArrayBuffer(map.stripeEnd));
  for (let stripe = 0; stripe < work.length; stripe += 1) {
    if (map.kind(stripe) === "stored") {
      work[stripe] = 1; // nothing is written for the others: a map may have few stripes in a large place
    }
  }
  return work;
}
