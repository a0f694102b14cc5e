/**
 * A disk as its front end serves it: the locked file, the cipher, and what the queue workers need of
 * both as plain data (they run in other threads).
 */
import type { DeviceConfig } from "../config/index.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile, type HandedFile } from "../disk/data-file.ts";
import type { LockWait } from "../disk/disk-lock.ts";
import { FlushGroup } from "../disk/flush-group.ts";
import { SlotWaits } from "../disk/slot-waits.ts";
import { UbiError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import { DiskLimits } from "./disk-limits.ts";
import { contentMark, fileMark } from "./disk-mark.ts";
import { queueSlots } from "./disk-memory.ts";
import { DiskMetadata, type StripeCounts } from "./disk-metadata.ts";
import { DiskSecrets } from "./disk-secrets.ts";
import { DiskSize, type SharedDiskSize } from "./disk-size.ts";
import { DiskStripes } from "./disk-stripes.ts";
import { configuredLimits } from "./limit-settings.ts";
import { OverdueRequests } from "./overdue-requests.ts";
import { QueueStatistics } from "./queue-statistics.ts";
import type { StripeDescription } from "./stripe-description.ts";
import type { StripeWorkerData } from "./stripe-worker.ts";
import type { SharedLimits } from "./token-buckets.ts";

/** Everything about the disk that a queue worker is started with. */
export interface DiskDescription {
  readonly fd: number;
  /** At the start; `SharedDiskState.size` tells what it has grown to. */
  readonly sectors: number;
  readonly blockBytes: number;
  readonly physicalBlockBytes: number;
  readonly optimalIoBytes: number;
  /** False where the page cache is used. */
  readonly isDirect: boolean;
  /** What addresses of its I/O must be a multiple of. */
  readonly memoryAlignBytes: number;
  readonly discardUnitBytes: number;
  readonly isReadOnly: boolean;
  readonly isNull: boolean;
  readonly isWriteThrough: boolean;
  readonly isDiscardOffered: boolean;
  /** Address of the expanded keys, or 0 for a plain disk. */
  readonly cipherContext: number;
  /** Undefined when every stripe is on the disk for good and nothing is tracked. */
  readonly stripes: StripeDescription | undefined;
}

/** Memory shared by all threads that work on the disk. */
export interface SharedDiskState {
  readonly size: SharedDiskSize;
  readonly flush: SharedArrayBuffer;
  readonly subBlockLock: SharedArrayBuffer;
  readonly limits: SharedLimits;
  readonly statistics: readonly SharedArrayBuffer[];
  /** Of each queue: see SlotWaits. */
  readonly waits: readonly SharedArrayBuffer[];
}

/** A disk that another process hands over. */
export interface HandedDisk {
  readonly data: HandedFile;
  readonly metadata: HandedFile | undefined;
  /**
   * Checks all that can be, then waits until the other process has let go of the disk: its state counts only from then on.
   * @returns the stripe source, where one was opened that has threads of its own
   */
  readonly prepare: (disk: PreparedDisk) => Promise<OpenedSource | undefined>;
}

export interface PreparedDisk {
  readonly config: DeviceConfig;
  readonly data: DataFile;
  readonly secrets: DiskSecrets;
  readonly isNull: boolean;
}

interface OpenOptions {
  readonly isNull?: boolean;
  readonly handed?: HandedDisk | undefined;
  /** Hears now and then that the last I/O of a dead process is waited for. */
  readonly onLockWait?: LockWait | undefined;
}

export class DiskDevice implements Disposable {
  readonly description: DiskDescription;
  readonly shared: SharedDiskState;
  readonly statistics: readonly QueueStatistics[];
  readonly limits: DiskLimits;
  readonly overdue: OverdueRequests;
  /** Requests that a queue takes at once. */
  readonly queueSlots: number;
  readonly cipherProvider: string;
  /** Undefined when nothing is to be fetched or tracked. */
  readonly stripes: DiskStripes | undefined;
  readonly size: DiskSize;
  readonly #file: DataFile;
  readonly #cipher: XtsCipher | undefined;
  readonly #metadata: DiskMetadata | undefined;

  private constructor(parts: {
    readonly config: DeviceConfig;
    readonly file: DataFile;
    readonly cipher: XtsCipher | undefined;
    readonly metadata: DiskMetadata | undefined;
    readonly stripes: DiskStripes | undefined;
    readonly isNull: boolean;
  }) {
    const { config, file, cipher, metadata, stripes, isNull } = parts;
    const { tuning, device } = config;
    this.#file = file;
    this.#cipher = cipher;
    this.#metadata = metadata;
    this.stripes = stripes;
    this.cipherProvider = cipher?.provider ?? "none";
    const workers = stripes === undefined ? 0 : 1; // which syncs the disk as well
    const slots = queueSlots(tuning, stripes !== undefined);
    this.queueSlots = slots;
    const statistics = Array.from(
      { length: tuning.numQueues },
      () => new SharedArrayBuffer(QueueStatistics.sharedBytes(slots)),
    );
    this.size = DiskSize.create(file.sectors);
    this.statistics = statistics.map((shared) => new QueueStatistics(shared, slots));
    this.limits = new DiskLimits(configuredLimits(config), this.statistics);
    const waits = statistics.map(() => new SharedArrayBuffer(SlotWaits.sharedBytes(slots)));
    this.overdue = new OverdueRequests({
      thresholdMs: tuning.overdueRequestMs,
      queues: this.statistics,
      waits: waits.map((shared) => new SlotWaits(shared, slots)),
      progress: (stripe) => stripes?.progress(stripe),
    });
    this.shared = {
      size: this.size.shared,
      flush: new SharedArrayBuffer(FlushGroup.sharedBytes(tuning.numQueues + workers)),
      subBlockLock: new SharedArrayBuffer(4),
      limits: this.limits.shared,
      statistics,
      waits,
    };
    this.description = {
      fd: file.fd,
      sectors: file.sectors,
      blockBytes: file.blockBytes,
      physicalBlockBytes: file.geometry.physicalBlockBytes,
      optimalIoBytes: file.geometry.optimalIoBytes,
      isDirect: file.isDirect,
      memoryAlignBytes: file.isDirect ? file.geometry.memoryAlignBytes : 1,
      discardUnitBytes: file.geometry.discardUnitBytes,
      isReadOnly: device.readOnly,
      isNull,
      isWriteThrough: tuning.writeThrough,
      isDiscardOffered: !tuning.disableDiscard && !device.readOnly,
      cipherContext: cipher?.contextAddress ?? 0,
      stripes: stripes?.description,
    };
  }

  /**
   * Opens and locks the disk, then reads the key it needs.
   * @throws UbiError E_DISK_*, E_SECRET*, E_CIPHER, E_METADATA*, E_STRIPE_SOURCE, E_CONFIG
   */
  static async open(
    config: DeviceConfig,
    { isNull = false, handed, onLockWait }: OpenOptions = {},
  ): Promise<DiskDevice> {
    const { device } = config;
    const { dataPath: path, readOnly: isReadOnly } = device;
    const place = { path, what: "data", isReadOnly, onLockWait };
    const data = handed === undefined ? DataFile.open(place) : DataFile.adopt(place, handed.data);
    let metadata: DiskMetadata | undefined;
    try {
      using secrets = await DiskSecrets.read(config);
      const { cipher } = secrets;
      const source = await handed?.prepare({ config, data, secrets, isNull });
      metadata = DiskMetadata.open(config, { cipher, data, handed: handed?.metadata });
      const needs = { data, metadata, secrets, source };
      const stripes = isNull ? undefined : await DiskStripes.open(config, needs);
      const file = data;
      return new DiskDevice({ config, file, cipher, metadata, stripes, isNull });
    } catch (error) {
      if (handed === undefined) {
        metadata?.release(); // what was handed over is locked for the other process
      }
      data[Symbol.dispose]();
      throw error;
    }
  }

  /** For a process that is to serve the disk in place of this one. */
  get handed(): { readonly data: HandedFile; readonly metadata: HandedFile | undefined } {
    return { data: this.#file.handed, metadata: this.#metadata?.file.handed };
  }

  /** A sync has failed, and the guest has yet to hear of it from its next flush. */
  get hasUntoldFailure(): boolean {
    return FlushGroup.hasUntold(this.shared.flush);
  }

  /** Another process is to have the disk, or this one again: nothing is under way. */
  noteRest(): void {
    this.#metadata?.renewNote(this.#file);
  }

  /** By which the disk is known again: where it lies, and what its bytes mean. */
  get marks(): { readonly file: number; readonly content: number } {
    return {
      file: fileMark(this.#file.fd),
      content: contentMark(this.#cipher, this.#metadata?.file.fd),
    };
  }

  /** Stripes of a disk with metadata. */
  get stripeCounts(): StripeCounts | undefined {
    if (this.stripes !== undefined) {
      return this.stripes.counts;
    }
    if (this.#metadata === undefined) {
      return undefined;
    }
    const { counts, stripeCount } = this.#metadata;
    return { fetched: counts.fetched, source: counts.hasSource, total: stripeCount };
  }

  /**
   * Starts the stripe source, where that has threads of its own. Returns what the stripe worker is started with;
   * undefined for a disk that needs none.
   * @param onSourceFailure a thread of the source failed: stripes may never come
   */
  startStripes(
    queueWakeFds: readonly number[],
    onSourceFailure: (message: string) => void,
  ): StripeWorkerData | undefined {
    const { flush } = this.shared;
    this.stripes?.startSource(onSourceFailure);
    return this.stripes?.workerData({ disk: this.description, flush, queueWakeFds });
  }

  /**
   * How many sectors the data file has now, when the disk can grow to that.
   * @throws UbiError E_RESIZE when it is smaller than what is served, or no size of a disk
   */
  measure(): number {
    const { path, blockBytes } = this.#file;
    const sizeBytes = this.#file.measure();
    const servedBytes = this.size.sectors * SECTOR_BYTES;
    if (sizeBytes < servedBytes) {
      throw new UbiError(
        "E_RESIZE",
        `data ${path} has ${sizeBytes} bytes, fewer than the ${servedBytes} that are served, and a disk only grows; ` +
          "what lay behind is lost to the guest until the file has its size again",
      );
    }
    if (sizeBytes % blockBytes !== 0) {
      throw new UbiError(
        "E_RESIZE",
        `data ${path} has ${sizeBytes} bytes, which is not a multiple of ${blockBytes}; give it a size that is`,
      );
    }
    return sizeBytes / SECTOR_BYTES;
  }

  /** Makes the size of the data file durable, before metadata tells of it. @throws UbiError E_DISK_IO */
  async syncSize(): Promise<void> {
    if (this.#metadata !== undefined) {
      await this.#file.syncSize();
    }
  }

  /**
   * The disk has so many sectors from here on: in its metadata, durably, then for all its threads. Its front end tells
   * the guest. One at a time.
   *
   *   data file's size durable (syncSize) -> metadata file -> stripe worker -> queues
   *
   * A crash in between leaves a data file that is larger than the metadata says, or fits it: init-metadata --grow.
   * @param sectors of `measure`
   * @throws UbiError E_RESIZE, E_METADATA_SIZE, E_DISK_IO, E_CIPHER; then it has its old size
   */
  async grow(sectors: number): Promise<void> {
    if (this.stripes !== undefined) {
      await this.stripes.grow(sectors);
    } else {
      this.#metadata?.grow(sectors);
    }
    this.size.grow(sectors);
  }

  /** Lets the next program have the disk. Only when all workers have ended their I/O. */
  async release(): Promise<void> {
    await this.stripes?.release();
    this.#metadata?.renewNote(this.#file);
    this.#metadata?.release();
    this.#file.unlock();
    this.#file[Symbol.dispose]();
  }

  /**
   * Wipes the keys. The file stays open: after a failure a worker may still have I/O under way, and the
   * lock must outlast it.
   */
  [Symbol.dispose](): void {
    this.#cipher?.[Symbol.dispose]();
  }
}
