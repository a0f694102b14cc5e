/**
 * Where the stripes of a disk come from, as the main thread has it: a raw image that other threads read by its
 * descriptor, or a source with worker threads of its own.
 *
 *   open -> start -> retire (all is fetched) -> release (all threads of the disk have ended)
 */
import type { DeviceConfig } from "../config/index.ts";
import type { DataFile } from "../disk/data-file.ts";
import { assert } from "../errors.ts";
import { log } from "../log.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import type { SourceWorkers } from "../sources/source-workers.ts";
import type { WorkerSourceDescription } from "../sources/worker-source.ts";
import type { DiskMetadata } from "./disk-metadata.ts";
import type { DiskSecrets } from "./disk-secrets.ts";
import { openDiskSource } from "./open-source.ts";
import type { ImageDescription } from "./stripe-description.ts";
import { openStripeImage } from "./stripe-image.ts";

export interface StripeOrigin {
  /** Undefined for a source of other threads. */
  readonly image: ImageDescription | undefined;
  /** Undefined for an image, and before the start. */
  readonly workerSource: WorkerSourceDescription | undefined;
  /** Attempts that failed and were made again, beside those of the stripe worker. */
  readonly retries: number;
  /** The source cannot be reached at the moment. */
  readonly isTroubled: boolean;

  /** @param onFailure a thread of the source failed, and stripes may never come */
  start(requestsMax: number, onFailure: (message: string) => void): void;
  /** Nobody reads from it any more, but threads may still have its descriptors. Idempotent. */
  retire(): Promise<void>;
  /** All threads of the disk have ended their I/O. Idempotent. */
  release(): Promise<void>;
}

/**
 * Opens the source of a disk that has stripes to fetch, and checks it against the disk.
 * @throws UbiError E_STRIPE_SOURCE, E_DISK_*; those of secrets, stores, archives and stripe servers
 */
export async function openStripeSource(
  config: DeviceConfig,
  disk: {
    readonly data: DataFile;
    readonly metadata: DiskMetadata;
    readonly secrets: DiskSecrets;
    /** Opened and checked already; undefined for an image, and where that is still to be done. */
    readonly source?: OpenedSource | undefined;
  },
): Promise<StripeOrigin> {
  const { data, metadata, secrets } = disk;
  const { stripeSource } = config;
  if (stripeSource === undefined || stripeSource.type === "raw") {
    const files = { data, metadata: metadata.file };
    return new ImageOrigin(openStripeImage(config, metadata.metadata, files));
  }
  return new WorkerOrigin(
    disk.source ??
      (await openDiskSource(stripeSource, await secrets.ofSource(), {
        metadata: metadata.metadata,
      })),
  );
}

// --- internal ---

class ImageOrigin implements StripeOrigin {
  readonly image: ImageDescription;
  readonly workerSource = undefined;
  readonly retries = 0;
  readonly isTroubled = false;
  readonly #file: DataFile;
  #isRetired = false;
  #isReleased = false;

  constructor(file: DataFile) {
    this.#file = file;
    this.image = {
      fd: file.fd,
      sizeBytes: file.geometry.sizeBytes,
      blockBytes: file.blockBytes,
      memoryAlignBytes: file.isDirect ? file.geometry.memoryAlignBytes : 1,
    };
  }

  start(): void {}

  async retire(): Promise<void> {
    if (!this.#isRetired) {
      this.#isRetired = true;
      this.#file.retire();
    }
  }

  async release(): Promise<void> {
    if (this.#isReleased) {
      return;
    }
    this.#isReleased = true;
    if (!this.#isRetired) {
      this.#file.unlock();
    }
    this.#file[Symbol.dispose]();
  }
}

class WorkerOrigin implements StripeOrigin {
  readonly image = undefined;
  readonly #source: OpenedSource;
  #workers: SourceWorkers | undefined;
  #retired: Promise<void> | undefined;

  constructor(source: OpenedSource) {
    this.#source = source;
  }

  get workerSource(): WorkerSourceDescription | undefined {
    return this.#workers?.description;
  }

  get retries(): number {
    return this.#workers?.retries ?? 0;
  }

  get isTroubled(): boolean {
    return this.#workers?.isTroubled ?? false;
  }

  start(requestsMax: number, onFailure: (message: string) => void): void {
    assert(this.#workers === undefined, "a source is started once");
    this.#workers = this.#source.start({ requestsMax, onFailure });
  }

  retire(): Promise<void> {
    this.#retired ??= this.#close();
    return this.#retired;
  }

  release(): Promise<void> {
    return this.retire();
  }

  // --- internal ---

  async #close(): Promise<void> {
    await this.#workers?.stop();
    await this.#source[Symbol.asyncDispose]();
    log.debug("the stripe source is closed", { source: this.#source.name });
  }
}
