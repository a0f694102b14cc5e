/** The metadata of a disk: the locked file, checked against the disk, and what it says of the stripes. */
import type { DeviceConfig } from "../config/index.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile } from "../disk/data-file.ts";
import { UbiError } from "../errors.ts";
import {
  countStripes,
  type Metadata,
  type StripeCounts as MetadataCounts,
  stripesOf,
} from "../formats/metadata.ts";
import { loadMetadata } from "../stripes/metadata-file.ts";

/** Stripes of the disk: `fetched` ones are durable, `source` ones the source has. */
export interface StripeCounts {
  readonly fetched: number;
  readonly source: number;
  readonly total: number;
}

export class DiskMetadata {
  readonly file: DataFile;
  readonly counts: MetadataCounts;
  /** With its flags in shared memory. */
  readonly metadata: Metadata;

  private constructor(file: DataFile, metadata: Metadata) {
    this.file = file;
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
      checkSize(path, metadata, diskSectors);
      return new DiskMetadata(file, metadata);
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** Lets the next program have the file. */
  release(): void {
    this.file.unlock();
    this.file[Symbol.dispose]();
  }
}

// --- internal ---

function checkSize(path: string, metadata: Metadata, diskSectors: number): void {
  const total = stripesOf(diskSectors, metadata.stripeShift);
  if (total !== metadata.stripeCount) {
    throw new UbiError(
      "E_METADATA_SIZE",
      `metadata ${path} has ${metadata.stripeCount} stripes but the disk has ${total}; ` +
        "it belongs to another disk, or the disk was resized",
    );
  }
}
