/**
 * A disk as its front end serves it: the locked file, the cipher, and what the queue workers need of
 * both as plain data (they run in other threads).
 */
import type { DeviceConfig } from "../config/index.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile } from "../disk/data-file.ts";
import { FlushGroup } from "../disk/flush-group.ts";
import { UbiError } from "../errors.ts";
import { openDiskCipher } from "./disk-cipher.ts";
import { QueueStatistics } from "./queue-statistics.ts";

/** Everything about the disk that a queue worker is started with. */
export interface DiskDescription {
  readonly fd: number;
  readonly sectors: number;
  readonly blockBytes: number;
  readonly physicalBlockBytes: number;
  readonly optimalIoBytes: number;
  readonly memoryAlignBytes: number;
  readonly discardUnitBytes: number;
  readonly isReadOnly: boolean;
  readonly isNull: boolean;
  readonly isWriteThrough: boolean;
  readonly isDiscardOffered: boolean;
  /** Address of the expanded keys, or 0 for a plain disk. */
  readonly cipherContext: number;
}

/** Memory shared by all threads that work on the disk. */
export interface SharedDiskState {
  readonly flush: SharedArrayBuffer;
  readonly subBlockLock: SharedArrayBuffer;
  readonly statistics: readonly SharedArrayBuffer[];
}

export class DiskDevice implements Disposable {
  readonly description: DiskDescription;
  readonly shared: SharedDiskState;
  readonly statistics: readonly QueueStatistics[];
  readonly cipherProvider: string;
  readonly #file: DataFile;
  readonly #cipher: XtsCipher | undefined;

  private constructor(
    config: DeviceConfig,
    file: DataFile,
    cipher: XtsCipher | undefined,
    isNull: boolean,
  ) {
    const { tuning, device } = config;
    this.#file = file;
    this.#cipher = cipher;
    this.cipherProvider = cipher?.provider ?? "none";
    const statistics = Array.from(
      { length: tuning.numQueues },
      () => new SharedArrayBuffer(QueueStatistics.sharedBytes(tuning.queueSize)),
    );
    this.shared = {
      flush: new SharedArrayBuffer(FlushGroup.sharedBytes(tuning.numQueues)),
      subBlockLock: new SharedArrayBuffer(4),
      statistics,
    };
    this.statistics = statistics.map((shared) => new QueueStatistics(shared, tuning.queueSize));
    this.description = {
      fd: file.fd,
      sectors: file.sectors,
      blockBytes: file.blockBytes,
      physicalBlockBytes: file.geometry.physicalBlockBytes,
      optimalIoBytes: file.geometry.optimalIoBytes,
      memoryAlignBytes: file.isDirect ? file.geometry.memoryAlignBytes : 1,
      discardUnitBytes: file.geometry.discardUnitBytes,
      isReadOnly: device.readOnly,
      isNull,
      isWriteThrough: tuning.writeThrough,
      isDiscardOffered: !tuning.disableDiscard && !device.readOnly,
      cipherContext: cipher?.contextAddress ?? 0,
    };
  }

  /**
   * Opens and locks the disk, then reads the key it needs.
   * @throws UbiError E_DISK_*, E_SECRET*, E_CIPHER, E_CONFIG
   */
  static async open(
    config: DeviceConfig,
    options: { readonly isNull?: boolean } = {},
  ): Promise<DiskDevice> {
    const { device, tuning } = config;
    if (device.metadataPath !== undefined) {
      throw new UbiError(
        "E_CONFIG",
        "device.metadata_path: this version serves no lazy stripes; serve the disk without metadata_path " +
          "only when all of its stripes have been fetched",
      );
    }
    const file = DataFile.open({
      path: device.dataPath,
      what: "data",
      isReadOnly: device.readOnly,
      isWriteThrough: tuning.writeThrough,
    });
    try {
      return new DiskDevice(config, file, await openDiskCipher(config), options.isNull === true);
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** Lets the next program have the disk. Only when all workers have ended their I/O. */
  release(): void {
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
