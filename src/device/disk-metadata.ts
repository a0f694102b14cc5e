/**
 * The metadata of a disk that needs no more fetching: it is locked and checked at start, and its counts
 * are told. A disk with stripes still to be fetched, or whose writes are to be tracked, is refused: served
 * as it is, the guest would see holes where its image should be.
 */
import type { DeviceConfig } from "../config/index.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile } from "../disk/data-file.ts";
import { UbiError } from "../errors.ts";
import { countStripes, type Metadata, stripesOf } from "../formats/metadata.ts";
import { loadMetadata } from "../stripes/metadata-file.ts";

/** Stripes of the disk: `fetched` ones are durable, `source` ones the source has. */
export interface StripeCounts {
  readonly fetched: number;
  readonly source: number;
  readonly total: number;
}

export class DiskMetadata {
  readonly counts: StripeCounts;
  readonly #file: DataFile;

  private constructor(file: DataFile, counts: StripeCounts) {
    this.#file = file;
    this.counts = counts;
  }

  /**
   * Undefined for a disk without `metadata_path`.
   * @throws UbiError E_DISK_*, E_METADATA*, E_CONFIG
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
      const metadata = loadMetadata({ path, fd, sizeBytes: geometry.sizeBytes, cipher });
      return new DiskMetadata(file, checkedCounts(config, metadata, diskSectors));
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** Lets the next program have the file. */
  release(): void {
    this.#file.unlock();
    this.#file[Symbol.dispose]();
  }
}

// --- internal ---

function checkedCounts(
  config: DeviceConfig,
  metadata: Metadata,
  diskSectors: number,
): StripeCounts {
  const { device } = config;
  const total = stripesOf(diskSectors, metadata.stripeShift);
  if (total !== metadata.stripeCount) {
    throw new UbiError(
      "E_METADATA_SIZE",
      `metadata ${device.metadataPath} has ${metadata.stripeCount} stripes but the disk has ${total}; ` +
        "it belongs to another disk, or the disk was resized",
    );
  }
  const counts = countStripes(metadata.flags);
  if (counts.unfetched > 0) {
    throw new UbiError(
      "E_CONFIG",
      `device.metadata_path: ${counts.unfetched} stripes of ${metadata.stripeCount} were not fetched yet, and ` +
        "this version serves only disks that need no fetching",
    );
  }
  if (device.trackWritten) {
    throw new UbiError("E_CONFIG", "device.track_written: this version does not track writes");
  }
  return { fetched: counts.fetched, source: counts.hasSource, total };
}
