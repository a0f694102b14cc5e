/**
 * An archive as a source: its manifest is opened and verified once, in the main thread; workers get, check and
 * decode the objects, each with a store of its own (archive-worker.ts).
 */
import { availableParallelism } from "node:os";
import { type ArchiveManifest, openArchive } from "../archive/archive-manifest.ts";
import type { ObjectStore } from "../archive/object-store.ts";
import {
  type DescribedStore,
  describeStore,
  openStore,
  type StoreSettings,
} from "../archive/open-store.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { log } from "../log.ts";
import type { ArchiveWorkerData } from "./archive-worker.ts";
import type { OpenedSource, SourceStart } from "./opened-source.ts";
import { RequestBoard } from "./request-board.ts";
import { SourceWorkers } from "./source-workers.ts";

/** Decoding is the work of CPUs; more threads than this only cost memory. */
const WORKERS_MAX = 4;
/** One object is read from the disk while another one is decoded. */
const LANES_FILESYSTEM = 2;

export interface ArchiveSourceLimits {
  /** Of the disk to be filled: an archive that maps more is refused. */
  readonly diskSectors?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * @param secrets those of the archive's section among them
 * @throws UbiError E_STORE*, E_ARCHIVE*; the signal's reason
 */
export async function openArchiveSource(
  settings: StoreSettings,
  secrets: ResolvedSecrets,
  limits: ArchiveSourceLimits = {},
): Promise<OpenedSource> {
  const described = await describeStore(settings, secrets, "read", limits.signal);
  const kek =
    settings.archiveKek === undefined ? undefined : secrets.get(settings.archiveKek).bytes;
  try {
    return await openDescribed(described, kek, limits);
  } catch (error) {
    described[Symbol.dispose]();
    throw error;
  }
}

// --- internal ---

async function openDescribed(
  described: DescribedStore,
  kek: Uint8Array | undefined,
  limits: ArchiveSourceLimits,
): Promise<ArchiveSource> {
  const store = await openStore(described.description);
  try {
    const manifest = await openArchive(store, kek, limits.signal, limits.diskSectors);
    if (!manifest.isKeyProtected && manifest.xtsKey !== undefined) {
      log.warn("the keys of the archive lie in clear beside it", { archive: store.name });
    }
    return new ArchiveSource(store, described, manifest);
  } catch (error) {
    await store[Symbol.asyncDispose]();
    throw error;
  }
}

class ArchiveSource implements OpenedSource {
  readonly name: string;
  readonly sectors: number;
  readonly stripeSectors: number;
  readonly #store: ObjectStore;
  readonly #described: DescribedStore;
  readonly #manifest: ArchiveManifest;

  constructor(store: ObjectStore, described: DescribedStore, manifest: ArchiveManifest) {
    this.name = `archive ${store.name}`;
    this.sectors = Math.ceil(manifest.sizeBytes / SECTOR_BYTES);
    this.stripeSectors = manifest.stripeSectors;
    this.#store = store;
    this.#described = described;
    this.#manifest = manifest;
  }

  /** Also a stripe that is known to be zeros. */
  has(stripe: number): boolean {
    const { map } = this.#manifest;
    return stripe < map.stripeEnd && map.kind(stripe) !== "absent";
  }

  start({ requestsMax, onFailure }: SourceStart): SourceWorkers {
    const { map, stripeSectors, compression, xtsKey } = this.#manifest;
    const store = this.#described.description;
    const threads = Math.min(availableParallelism(), WORKERS_MAX);
    const wanted = store.kind === "s3" ? store.connections : LANES_FILESYSTEM * threads;
    const lanes = Math.min(wanted, requestsMax);
    const count = Math.min(threads, lanes);
    const board = RequestBoard.create(requestsMax);
    const data = Array.from({ length: count }, (_, worker): ArchiveWorkerData => {
      const share = Math.floor(lanes / count) + (worker < lanes % count ? 1 : 0);
      return {
        board,
        lanes: share,
        store,
        map: map.shared,
        stripeSectors,
        compression: compression.kind,
        xtsKey,
      };
    });
    return new SourceWorkers({
      role: "archive-source",
      description: { board, held: this.#held(), sectors: this.sectors, stripeSectors },
      data,
      onFailure,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#manifest.xtsKey?.fill(0);
    this.#manifest.hmacKey.fill(0);
    await this.#store[Symbol.asyncDispose]();
    this.#described[Symbol.dispose]();
  }

  // --- internal ---

  #held(): SharedArrayBuffer {
    const { map } = this.#manifest;
    const held = new Uint8Array(new SharedArrayBuffer(map.stripeEnd));
    for (let stripe = 0; stripe < held.length; stripe++) {
      if (map.kind(stripe) !== "absent") {
        held[stripe] = 1;
      }
    }
    return held.buffer;
  }
}
