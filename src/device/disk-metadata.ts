/** The metadata of a disk: the locked file, checked against the disk, and what it says of the stripes. */
import type { DeviceConfig } from "../config/index.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile, type HandedFile } from "../disk/data-file.ts";
import { UbiError } from "../errors.ts";
import {
  countStripes,
  type Metadata,
  type StripeCounts as MetadataCounts,
  STRIPE_COUNT_MAX,
  stripeBytes,
  stripesOf,
} from "../formats/metadata.ts";
import { replaceNote } from "../formats/metadata-codec.ts";
import { log } from "../log.ts";
import { areSameTimes, isNoteCurrent, timesOf } from "../stripes/archive-note.ts";
import {
  appendToMetadata,
  checkStripeCount,
  FileMedium,
  loadMetadata,
  type MetadataFile,
  renewMetadata,
} from "../stripes/metadata-file.ts";

/** Stripes of the disk: `fetched` ones are durable, `source` ones the source has. */
export interface StripeCounts {
  readonly fetched: number;
  readonly source: number;
  readonly total: number;
}

/** What the metadata of a disk is opened with. */
interface MetadataNeeds {
  readonly cipher: XtsCipher | undefined;
  readonly data: DataFile;
  /** The file, where another process hands it over. */
  readonly handed?: HandedFile | undefined;
}

/** A disk has room to grow: to twice the stripes that there are, and by a million at least. */
const ROOM_MIN = 2 ** 20;

export class DiskMetadata {
  readonly file: DataFile;
  readonly counts: MetadataCounts;
  /** As it was opened, with its flags in shared memory. */
  readonly metadata: Metadata;
  /** Stripes of the file. */
  stripeCount: number;
  readonly #cipher: XtsCipher | undefined;
  /** Writes set CHANGED: an archive has all else. */
  readonly isChangeTracked: boolean;

  private constructor(
    file: DataFile,
    metadata: Metadata,
    options: { readonly cipher: XtsCipher | undefined; readonly isChangeTracked: boolean },
  ) {
    const { cipher, isChangeTracked } = options;
    this.file = file;
    this.isChangeTracked = isChangeTracked;
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
    { cipher, data, ...options }: MetadataNeeds,
  ): DiskMetadata | undefined {
    const { handed } = options;
    const file = openMetadataFile(config, handed);
    if (file === undefined) {
      return undefined;
    }
    const { path } = file;
    try {
      const { fd, geometry } = file;
      const place = { path, fd, sizeBytes: geometry.sizeBytes, cipher };
      const metadata = loadMetadata(
        place,
        (stripeCount) => new Uint8Array(new SharedArrayBuffer(stripeCount)),
      );
      checkStripeCount(path, metadata, data);
      makeDurable(place, metadata, handed !== undefined);
      const isChangeTracked = settleNote(config, metadata, { place, data });
      return new DiskMetadata(file, metadata, { cipher, isChangeTracked });
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** Stripes that the disk may grow to while it is served. */
  get stripesMax(): number {
    const { stripeCount } = this.metadata;
    return Math.min(STRIPE_COUNT_MAX, stripeCount + Math.max(stripeCount, ROOM_MIN));
  }

  /** Stripes of a larger disk. @throws UbiError E_RESIZE when there is no room for them */
  stripesOfGrown(diskSectors: number): number {
    const { stripesMax, metadata } = this;
    const stripes = stripesOf(diskSectors, metadata.stripeShift);
    if (stripes > stripesMax) {
      const most = stripesMax * stripeBytes(metadata);
      throw new UbiError(
        "E_RESIZE",
        `the disk can grow to ${most} bytes (${stripesMax} stripes) while it is served; for more stop it, run ` +
          "init-metadata --grow, and start it again",
      );
    }
    return stripes;
  }

  /**
   * Appends the stripes of a larger disk. Only where no stripe worker writes to the file.
   * @throws UbiError E_RESIZE, E_DISK_IO, E_CIPHER, E_METADATA_SIZE
   */
  grow(diskSectors: number): void {
    const { stripeShift, flags: before } = this.metadata;
    const stripeCount = this.stripesOfGrown(diskSectors);
    if (stripeCount > this.stripeCount) {
      const { path, fd } = this.file;
      const flags = new Uint8Array(stripeCount);
      flags.set(before); // nothing changes them on a disk that fetches and tracks nothing
      const place = { path, fd, cipher: this.#cipher };
      appendToMetadata(place, { stripeShift, stripeCount, flags }, this.stripeCount);
      this.stripeCount = stripeCount;
    }
  }

  /**
   * The disk is not written to any more, and all of it is durable: what is CHANGED is all that an archive lacks. Where this
   * does not come to pass, the times of the data file tell.
   */
  renewNote(data: DataFile): void {
    const { note } = this.metadata;
    const times = timesOf(data.fd);
    if (!this.isChangeTracked || note === undefined || times === undefined) {
      return;
    }
    if (areSameTimes(times, note)) {
      return; // nobody has written: the header stays as it is
    }
    const { path, fd } = this.file;
    try {
      const sizeBytes = this.file.measure();
      using medium = new FileMedium({ path, fd, sizeBytes, cipher: this.#cipher });
      replaceNote(medium, { ...note, ...times });
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
      log.warn("the next archive reads all of the disk: the metadata does not take its note", {
        cause: error.message,
      });
    }
  }

  /** Lets the next program have the file. */
  release(): void {
    this.file.unlock();
    this.file[Symbol.dispose]();
  }
}

// --- internal ---

/**
 * A backend that was killed may have written flags that are not durable. Whoever read them relies on them from here on: a
 * guest's write and its flush do not wait for a stripe that is FETCHED and WRITTEN already.
 * @param isHanded the process before lives, and may have the file again: it is not written to
 * @throws UbiError E_DISK_IO
 */
function makeDurable(file: MetadataFile, metadata: Metadata, isHanded: boolean): void {
  if (isHanded) {
    using medium = new FileMedium(file);
    medium.sync();
  } else {
    renewMetadata(file, metadata);
  }
}

/**
 * Undefined for a disk without `metadata_path`.
 * @throws UbiError E_DISK_*, E_UPGRADE
 */
function openMetadataFile(
  { device }: Pick<DeviceConfig, "device">,
  handed: HandedFile | undefined,
): DataFile | undefined {
  const path = device.metadataPath;
  if (path === undefined) {
    return undefined;
  }
  const options = { path, what: "metadata", isReadOnly: false, isBuffered: true };
  return handed === undefined ? DataFile.open(options) : DataFile.adopt(options, handed);
}

/**
 * Whether writes have to set CHANGED. A note that is not true any more, or will not be, goes before anybody writes.
 * @throws UbiError E_DISK_IO, E_CIPHER
 */
function settleNote(
  { device }: DeviceConfig,
  { note }: Metadata,
  { place, data }: { readonly place: MetadataFile; readonly data: DataFile },
): boolean {
  if (note === undefined || device.readOnly) {
    return false;
  }
  if (device.trackWritten && isNoteCurrent(note, data.fd)) {
    return true;
  }
  log.info("the next archive reads all of the disk: not all writes since the last one were noted", {
    disk: data.path,
  });
  using medium = new FileMedium(place);
  replaceNote(medium, undefined);
  return false;
}
