/** The metadata of a disk: the locked file, checked against the disk, and what it says of the stripes. */
import type { DeviceConfig } from "../config/index.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile } from "../disk/data-file.ts";
import {
  countStripes,
  type Metadata,
  type StripeCounts as MetadataCounts,
  stripesOf,
} from "../formats/metadata.ts";
import { appendToMetadata, checkStripeCount, loadMetadata } from "../stripes/metadata-file.ts";

/** Stripes of the disk: `fetched` ones are durable, `source` ones the source has. */
export interface StripeCounts {
  readonly fetched: number;
  readonly source: number;
  readonly total: number;
}

export class DiskMetadata {
  readonly file: DataFile;
  readonly counts: MetadataCounts;
  /** As it was opened, with its flags in shared memory. */
  readonly metadata: Metadata;
  /** Stripes of the file. */
  stripeCount: number;
  readonly #cipher: XtsCipher | undefined;

  private constructor(file: DataFile, metadata: Metadata, cipher: XtsCipher | undefined) {
    this.file = file;
    this.#cipher = cipher;
    this.stripeCount = metadata.stripeCount;
    this.metadata = metadata;
    this.counts = countStripes(metadata.flags);
  }

  /**
   * Undefined for a disk without `metadata_path`.
   * @throws UbiError E_DISK_*, E_METADATA*
   */
  static open(
    config: DeviceConfig,
    cipher: XtsCipher | undefined,
    diskSectors: number,
  ): DiskMetadata | undefined {
    const path = config.device.metadataPath;
    if (path === undefined) {
      return undefined;
    }
    const file = DataFile.open({ path, what: "metadata", isReadOnly: false, isBuffered: true });
    try {
      const { fd, geometry } = file;
      const place = { path, fd, sizeBytes: geometry.sizeBytes, cipher };
      const metadata = loadMetadata(
        place,
        (stripeCount) => new Uint8Array(new SharedArrayBuffer(stripeCount)),
      );
      checkStripeCount(path, metadata, { path: config.device.dataPath, sectors: diskSectors });
      return new DiskMetadata(file, metadata, cipher);
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Appends the stripes of a larger disk. Only where no stripe worker writes to the file.
   * @throws UbiError E_DISK_IO, E_CIPHER, E_METADATA_SIZE
   */
  grow(diskSectors: number): void {
    const { stripeShift, flags: before } = this.metadata;
    const stripeCount = stripesOf(diskSectors, stripeShift);
    if (stripeCount > this.stripeCount) {
      const { path, fd } = this.file;
      const flags = new Uint8Array(stripeCount);
      flags.set(before); // nothing changes them on a disk that fetches and tracks nothing
      const place = { path, fd, cipher: this.#cipher };
      appendToMetadata(place, { stripeShift, stripeCount, flags }, this.stripeCount);
      this.stripeCount = stripeCount;
    }
  }

  /** Lets the next program have the file. */
  release(): void {
    this.file.unlock();
    this.file[Symbol.dispose]();
  }
}
