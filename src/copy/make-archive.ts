/**
 * Writes a disk as an archive: objects first, by worker threads, the manifest last (archive-publish.ts).
 *
 *   main thread                                        workers (object-maker.ts)
 *   open disk, look at target, plan                    claim stripes, read them, make and put objects
 *   run file: the keys, for a run that goes on   -->   stripe map and object names in shared memory
 *   read stripes of the source, hand them over
 *   manifest, run file away
 */
import {
  type ArchiveManifest,
  encodeMapping,
  encodeMetadata,
  MAPPING_KEY,
  METADATA_KEY,
  mappingHash,
} from "../archive/archive-manifest.ts";
import type { ObjectStore, StoreDescription } from "../archive/object-store.ts";
import { openStore } from "../archive/open-store.ts";
import { StripeMap } from "../archive/stripe-map.ts";
import { assert, errorText, UbiError } from "../errors.ts";
import { fillMemory, mapAnonymous } from "../ffi/memory.ts";
import { log } from "../log.ts";
import type { SourceReader } from "../sources/source-reader.ts";
import { type ClaimOptions, StoreClaim } from "./archive-claim.ts";
import { type RunSize, sizeOfRun } from "./archive-memory.ts";
import { publishManifest } from "./archive-publish.ts";
import { encodeRunFile, RUN_KEY, type RunParameters } from "./archive-run-file.ts";
import { planTarget, type TargetMode, type TargetPlan } from "./archive-target.ts";
import { type ArchivedDisk, SOURCE_READS_MAX } from "./archived-disk.ts";
import type { ObjectMakerData } from "./object-maker.ts";
import { HashList, ObjectNames } from "./object-names.ts";
import { COUNTER, StripeBoard } from "./stripe-board.ts";
import { STRIPE_FROM, type StripePlan } from "./stripe-plan.ts";
import { type DiskMoment, keepUnchanged, momentOf, noteArchive } from "./unchanged-stripes.ts";
import { runWorkers } from "./worker-group.ts";

export interface MakeArchiveOptions {
  readonly mode: TargetMode;
  readonly parameters: RunParameters;
  readonly kek: Uint8Array | undefined;
  /** Opened for writing by every thread; only for reading in a dry run. */
  readonly target: StoreDescription;
  readonly signal: AbortSignal;
  /** See archive-claim.ts. */
  readonly takeOver: ClaimOptions["takeOver"];
  readonly onProgress: (progress: RunProgress) => void;
  /** Notes the archive in the metadata of the disk, and reads only what changed since the noted one. */
  readonly isChangeTracked: boolean;
}

export interface RunProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/** What a run did, or would do: then all that is not known is 0. */
export interface ArchiveSummary {
  readonly diskBytes: number;
  readonly stripeBytes: number;
  readonly stripes: number;
  readonly fromDisk: number;
  readonly fromSource: number;
  /** Not read, as the archive that was there has them. */
  readonly unchangedStripes: number;
  readonly zeroStripes: number;
  readonly duplicateStripes: number;
  /** Stripes whose object was there before. */
  readonly reusedStripes: number;
  readonly objectsWritten: number;
  readonly objectBytesWritten: number;
  readonly manifestBytes: number;
  /** Objects longer than a stripe. */
  readonly overlongObjects: number;
  /** Objects of an older archive, or run, are there without use. */
  readonly leavesObjects: boolean;
}

/**
 * @throws UbiError of the disk, its source, the store, the target, or the reason of the signal; the message says
 * what is left behind
 */
export async function makeArchive(
  disk: ArchivedDisk,
  options: MakeArchiveOptions,
): Promise<ArchiveSummary> {
  const { target, parameters, kek, signal } = options;
  await using store = await openStore(target);
  const claim = await StoreClaim.open(store, options);
  const plan = await planTarget(claim, options);
  const work = planWork(disk, plan.current, options.isChangeTracked);
  const run = new ArchiveRun(disk, options, { claim, plan, work });
  await run.openSource(); // before anything is written
  await begin(claim, encodeRunFile({ parameters, ...plan }, kek, claim.token), signal);
  try {
    return await run.run();
  } catch (error) {
    throw withAdvice(error, store);
  }
}

/** What a run reads, and what it takes over. */
export interface ArchiveWork {
  /** Has what is taken over; a run fills in the rest. */
  readonly map: StripeMap;
  /** What is read: not what the archive at the target has already, where that is known. */
  readonly left: StripePlan;
  /** Undefined when changes are not tracked. */
  readonly moment: DiskMoment | undefined;
}

/**
 * @param current the archive that is brought up to date
 * @throws UbiError E_CONFIG when changes are to be tracked and cannot be
 */
export function planWork(
  disk: ArchivedDisk,
  current: ArchiveManifest | undefined,
  isChangeTracked: boolean,
): ArchiveWork {
  const { diskStripes, sourceStripes } = disk.plan;
  const map = StripeMap.create(disk.metadata.stripeCount, diskStripes + sourceStripes);
  const moment = isChangeTracked ? momentOf(disk) : undefined;
  const left = moment === undefined ? disk.plan : keepUnchanged(disk, current, map);
  return { map, left, moment };
}

// --- internal ---

const PROGRESS_MS = 250;

class ArchiveRun {
  readonly #disk: ArchivedDisk;
  readonly #options: MakeArchiveOptions;
  readonly #store: ObjectStore;
  readonly #claim: StoreClaim;
  readonly #plan: TargetPlan;
  readonly #size: RunSize;
  readonly #map: StripeMap;
  readonly #work: StripePlan;
  readonly #moment: DiskMoment | undefined;
  readonly #board: StripeBoard;
  /**
   * Rejected by the first read of the source that fails, by the failure of a thread of it, and when the work is
   * stopped: a buffer that a read has may never come back then, and nobody is to wait for it.
   */
  readonly #feedFailed = Promise.withResolvers<never>();
  #source: SourceReader | undefined;

  constructor(
    disk: ArchivedDisk,
    options: MakeArchiveOptions,
    parts: { readonly claim: StoreClaim; readonly plan: TargetPlan; readonly work: ArchiveWork },
  ) {
    const { claim, plan, work } = parts;
    const size = sizeOfRun("write", disk.stripeBytes, options.target);
    this.#disk = disk;
    this.#options = options;
    this.#store = claim.store;
    this.#claim = claim;
    this.#plan = plan;
    this.#map = work.map;
    this.#moment = work.moment;
    this.#work = work.left;
    const { from, sourceStripes } = this.#work;
    this.#size = { ...size, buffers: sourceStripes > 0 ? size.buffers : 0 };
    const { workers, buffers } = this.#size;
    this.#board = StripeBoard.create({ work: from, workers, buffers });
  }

  /** Only when the plan needs it. @throws UbiError as `ArchivedDisk.openSource` */
  async openSource(): Promise<void> {
    this.#feedFailed.promise.catch(() => {}); // raced later, when there is somebody to hear it
    if (this.#work.sourceStripes > 0) {
      this.#source = await this.#disk.openSource(
        (message) => this.#feedFailed.reject(new UbiError("E_WORKER", message)),
        this.#options.signal,
      );
    }
  }

  async run(): Promise<ArchiveSummary> {
    const timer = setInterval(() => this.#tell(), PROGRESS_MS);
    try {
      await this.#makeObjects();
      this.#tell();
      return await this.#publish();
    } finally {
      clearInterval(timer);
    }
  }

  // --- internal ---

  #tell(): void {
    const { stripeBytes } = this.#disk;
    const { diskStripes, sourceStripes } = this.#work;
    this.#options.onProgress({
      doneBytes: this.#board.total(COUNTER.STRIPES) * stripeBytes,
      totalBytes: (diskStripes + sourceStripes) * stripeBytes,
    });
  }

  async #makeObjects(): Promise<void> {
    const { stripeBytes, metadata } = this.#disk;
    const { signal } = this.#options;
    const existing = this.#plan.mayReuse ? await this.#listObjects() : new HashList();
    const names = ObjectNames.create(metadata.stripeCount, existing);
    const bytes = this.#size.buffers * stripeBytes;
    // Never unmapped: a source that was given up in the middle of a read may still write there.
    const address = bytes > 0 ? mapAnonymous(bytes) : 0;
    await runWorkers({
      role: "object-maker",
      data: this.#workerData(names, address),
      signal,
      onStop: () => {
        this.#board.stop();
        this.#feedFailed.reject(new UbiError("E_WORKER", "the work was stopped"));
      },
      mainPart: () => this.#feed(address),
    });
  }

  async #listObjects(): Promise<HashList> {
    const hashes = new HashList();
    const { signal } = this.#options;
    for await (const { key } of this.#store.list("data/", { signal })) {
      const name = /^data\/([0-9a-f]{64})$/.exec(key)?.[1];
      if (name !== undefined) {
        hashes.add(name);
      }
    }
    return hashes;
  }

  #workerData(names: ObjectNames, address: number): readonly ObjectMakerData[] {
    const { data, cipher, sizeBytes, stripeSectors } = this.#disk;
    const { target, parameters } = this.#options;
    const { workers, objectsMax, buffers } = this.#size;
    return Array.from({ length: workers }, (_, worker) => ({
      worker,
      board: this.#board.shared,
      map: this.#map.shared,
      names: names.shared,
      store: target,
      disk: { path: data.path, fd: data.fd, sizeBytes, cipherContext: cipher?.contextAddress },
      stripeSectors,
      compression: parameters.compression,
      xtsKey: this.#plan.keys.xtsKey,
      buffers: { address, count: buffers },
      putsMax: objectsMax,
    }));
  }

  /** Reads what only the source has, and hands it over. */
  async #feed(address: number): Promise<void> {
    if (this.#source !== undefined) {
      await Promise.race([this.#feedFrom(this.#source, address), this.#feedFailed.promise]);
    }
    this.#board.endOffers();
  }

  async #feedFrom(source: SourceReader, address: number): Promise<void> {
    const { stripeBytes } = this.#disk;
    const { from } = this.#work;
    const reads = new Set<Promise<void>>();
    for (let stripe = 0; stripe < from.length && !this.#board.isStopped; stripe += 1) {
      if (from[stripe] !== STRIPE_FROM.SOURCE) {
        continue;
      }
      const buffer = await this.#freeBuffer();
      if (buffer < 0) {
        break;
      }
      const read = this.#readSource(source, stripe, address + buffer * stripeBytes);
      const offered = read.then(() => this.#board.offer(buffer, stripe));
      reads.add(offered);
      void offered.then(
        () => reads.delete(offered),
        (error: unknown) => this.#feedFailed.reject(error),
      );
      if (reads.size >= SOURCE_READS_MAX) {
        await Promise.race(reads);
      }
    }
    await Promise.all(reads);
  }

  /** What a source has behind the end of the disk is no part of the disk. */
  async #readSource(source: SourceReader, stripe: number, address: number): Promise<void> {
    const { stripeBytes, sizeBytes } = this.#disk;
    await source.read(stripe, address, stripeBytes);
    const present = Math.min(stripeBytes, sizeBytes - stripe * stripeBytes);
    fillMemory(address + present, 0, stripeBytes - present);
  }

  /** -1 when the work was stopped. */
  async #freeBuffer(): Promise<number> {
    while (!this.#board.isStopped) {
      const ticket = this.#board.returnTicket;
      const buffer = this.#board.takeFree();
      if (buffer >= 0) {
        return buffer;
      }
      await this.#board.waitForReturn(ticket);
    }
    return -1;
  }

  async #publish(): Promise<ArchiveSummary> {
    const { stripeSectors, sizeBytes } = this.#disk;
    const { parameters, kek, signal } = this.#options;
    const { keys, isMetadataCurrent, previous } = this.#plan;
    const { compression } = parameters;
    this.#checkWhole();
    const metadata = isMetadataCurrent
      ? undefined
      : encodeMetadata({ stripeSectors, compression, keys, kek });
    const mapping = encodeMapping({ map: this.#map, stripeSectors, sizeBytes, keys });
    await publishManifest(this.#claim, { metadata, mapping, previous }, signal);
    if (this.#moment !== undefined) {
      noteArchive(this.#disk, this.#moment, mappingHash(mapping));
    }
    const metadataBytes = metadata?.length ?? (await this.#store.sizeOf(METADATA_KEY)) ?? 0;
    log.debug("the manifest is in place", { object: MAPPING_KEY, bytes: mapping.length });
    return this.#summary(metadataBytes + mapping.length);
  }

  /** Nothing is published that was not dealt with. */
  #checkWhole(): void {
    const { diskStripes, sourceStripes } = this.#work;
    const done = this.#board.total(COUNTER.STRIPES);
    assert(done === diskStripes + sourceStripes, "every stripe of the plan was archived");
  }

  #summary(manifestBytes: number): ArchiveSummary {
    const total = (column: number) => this.#board.total(column);
    return {
      ...planSummary(this.#disk, this.#work),
      zeroStripes: total(COUNTER.ZERO_STRIPES),
      duplicateStripes: total(COUNTER.DUPLICATES),
      reusedStripes: total(COUNTER.REUSED),
      objectsWritten: total(COUNTER.OBJECTS),
      objectBytesWritten: total(COUNTER.OBJECT_BYTES),
      manifestBytes,
      leavesObjects: this.#plan.leavesObjects,
      overlongObjects: total(COUNTER.OVERLONG),
    };
  }
}

/**
 * What is known before anything is done.
 * @param left what a run reads (`planWork`)
 */
export function planSummary(disk: ArchivedDisk, left: StripePlan): ArchiveSummary {
  const { diskStripes, sourceStripes } = disk.plan;
  return {
    diskBytes: disk.sizeBytes,
    stripeBytes: disk.stripeBytes,
    stripes: disk.metadata.stripeCount,
    fromDisk: left.diskStripes,
    fromSource: left.sourceStripes,
    unchangedStripes: diskStripes + sourceStripes - left.diskStripes - left.sourceStripes,
    zeroStripes: 0,
    duplicateStripes: 0,
    reusedStripes: 0,
    objectsWritten: 0,
    objectBytesWritten: 0,
    manifestBytes: 0,
    overlongObjects: 0,
    leavesObjects: false,
  };
}

/** @throws UbiError of the claim, or the reason of the signal with what is left then */
async function begin(claim: StoreClaim, content: Uint8Array, signal: AbortSignal): Promise<void> {
  try {
    await claim.begin(content, signal);
  } catch (error) {
    if (!signal.aborted || !(error instanceof UbiError)) {
      throw error;
    }
    const left =
      `${RUN_KEY} may stay in ${claim.store.name}: --resume goes on from there, archive prune --discard-run ` +
      "gives it up";
    throw new UbiError(error.code, `${errorText(error)}; ${left}`, { cause: error });
  }
}

/** What a run that failed leaves behind. */
function withAdvice(error: unknown, store: ObjectStore): unknown {
  if (!(error instanceof UbiError)) {
    return error;
  }
  const left = `objects that were written stay in ${store.name}: run again with --resume to go on`;
  return new UbiError(error.code, `${errorText(error)}; ${left}`, { cause: error });
}
