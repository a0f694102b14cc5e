/**
 * Compares a disk with the archive that it was filled from: every stripe that was fetched and that no guest wrote to has
 * to be what the archive has. Others cannot be told: what a guest wrote is nowhere else, and what was not fetched is only
 * in the source.
 *
 * The disk is locked meanwhile, shared; or it is served. Then a guest may write to a stripe after it was found untouched:
 * WRITTEN is durable before the guest's first byte is, so that a stripe that differs is looked up once more.
 */
import { type ArchiveManifest, openArchive } from "../archive/archive-manifest.ts";
import type { StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { UbiError } from "../errors.ts";
import { forgetFile } from "../ffi/file.ts";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { sizeOfRun } from "./archive-memory.ts";
import type { ArchivedDisk } from "./archived-disk.ts";
import type { RunProgress } from "./make-archive.ts";
import { COUNTER, StripeBoard } from "./stripe-board.ts";
import type { ScrubberData, ScrubFinding } from "./stripe-scrubber.ts";
import { runWorkers } from "./worker-group.ts";

export interface ScrubOptions {
  readonly source: StoreDescription;
  readonly kek: Uint8Array | undefined;
  readonly signal: AbortSignal;
  /** Read from the disk in all; Infinity for no limit. */
  readonly bytesPerSecond: number;
  readonly onProgress: (progress: RunProgress) => void;
  readonly onFinding: (finding: ScrubFinding) => void;
}

export interface ScrubSummary {
  readonly archive: string;
  /** That were compared. */
  readonly checkedStripes: number;
  /** Those of the checked ones that are not what the archive has. */
  readonly differentStripes: readonly number[];
  /** That were to be compared, but the archive does not have them, or their object cannot be read. */
  readonly unknownStripes: number;
  readonly writtenStripes: number;
  readonly unfetchedStripes: number;
  /** A backend had the disk meanwhile. */
  readonly wasServed: boolean;
  /** Objects of the archive that had to be read. */
  readonly objects: number;
}

/**
 * @throws UbiError E_ARCHIVE*, E_STORE, E_STRIPE_SOURCE when the archive cannot be opened or does not fit the disk;
 * E_DISK_IO, E_CIPHER; the reason of the signal
 */
export async function scrubDisk(disk: ArchivedDisk, options: ScrubOptions): Promise<ScrubSummary> {
  await using store = await openStore(options.source);
  const { stripeSectors, metadata } = disk;
  const diskSectors = metadata.stripeCount * stripeSectors;
  const manifest = await openArchive(store, options.kek, options.signal, diskSectors);
  checkFits(store.name, manifest, stripeSectors);
  const plan = planScrub(metadata.flags);
  forgetFile(disk.data.fd, 0, 0); // it is the medium that is asked, not what was once read of it
  const different: number[] = [];
  let writtenMeanwhile = 0;
  const board = await compare(disk, manifest, plan.work, {
    ...options,
    onFinding: (finding) => {
      if (finding.isDifferent) {
        if (disk.isServed && disk.isWrittenByNow(finding.stripe)) {
          writtenMeanwhile += 1;
          return;
        }
        different.push(finding.stripe);
      }
      options.onFinding(finding);
    },
  });
  const unknownStripes = board.total(COUNTER.UNKNOWN);
  return {
    archive: store.name,
    checkedStripes: board.total(COUNTER.STRIPES) - unknownStripes - writtenMeanwhile,
    differentStripes: different.sort((a, b) => a - b),
    unknownStripes,
    writtenStripes: plan.written + writtenMeanwhile,
    unfetchedStripes: plan.unfetched,
    wasServed: disk.isServed,
    objects: board.total(COUNTER.OBJECTS),
  };
}

// --- internal ---

const { FETCHED, WRITTEN, HAS_SOURCE } = STRIPE_FLAG;
const PROGRESS_MS = 250;

function planScrub(flags: Uint8Array) {
  const work = new Uint8Array(new SharedArrayBuffer(flags.length));
  let written = 0;
  let unfetched = 0;
  for (let stripe = 0; stripe < flags.length; stripe += 1) {
    const value = flags[stripe] ?? 0;
    if ((value & (HAS_SOURCE | FETCHED)) === HAS_SOURCE) {
      unfetched += 1;
    } else if ((value & WRITTEN) !== 0) {
      written += 1;
    } else if ((value & HAS_SOURCE) !== 0) {
      work[stripe] = 1;
    }
  }
  return { work, written, unfetched };
}

function checkFits(name: string, manifest: ArchiveManifest, stripeSectors: number): void {
  if (manifest.stripeSectors !== stripeSectors) {
    const sizes = `stripes of ${manifest.stripeSectors * SECTOR_BYTES} bytes, the disk of ${stripeSectors * SECTOR_BYTES}`;
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `archive ${name} has ${sizes}: it is not the one that the disk was filled from`,
    );
  }
}

async function compare(
  disk: ArchivedDisk,
  manifest: ArchiveManifest,
  work: Uint8Array<SharedArrayBuffer>,
  options: ScrubOptions,
): Promise<StripeBoard> {
  const { stripeBytes, stripeSectors, data, cipher, sizeBytes } = disk;
  const { workers } = sizeOfRun("write", stripeBytes, options.source);
  const board = StripeBoard.create({ work, workers, buffers: 0 });
  const workerData = Array.from(
    { length: workers },
    (_, worker): ScrubberData => ({
      worker,
      board: board.shared,
      map: manifest.map.shared,
      store: options.source,
      disk: { path: data.path, fd: data.fd, sizeBytes, cipherContext: cipher?.contextAddress },
      stripeSectors,
      commonBytes: Math.min(manifest.sizeBytes, sizeBytes),
      compression: manifest.compression,
      xtsKey: manifest.xtsKey,
      bytesPerSecond: options.bytesPerSecond / workers,
    }),
  );
  const totalBytes = work.reduce((sum, isPlanned) => sum + isPlanned, 0) * stripeBytes;
  const tell = () => {
    options.onProgress({ doneBytes: board.total(COUNTER.STRIPES) * stripeBytes, totalBytes });
  };
  const timer = setInterval(tell, PROGRESS_MS);
  try {
    await runWorkers<ScrubberData, ScrubFinding>({
      role: "stripe-scrubber",
      data: workerData,
      signal: options.signal,
      onStop: () => board.stop(),
      onNote: options.onFinding,
    });
    tell();
    return board;
  } finally {
    clearInterval(timer);
  }
}
