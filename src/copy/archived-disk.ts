/**
 * A disk that is read as a whole, by a tool: opened read-only and locked, shared, so that no backend works on it
 * meanwhile and several tools may. All sizes are checked before a stripe is read, and the keys are read last. A tool that
 * can do with stripes that change under it may have a disk that is served, which is not locked then.
 */
import type { DeviceConfig } from "../config/index.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import { DiskSecrets } from "../device/disk-secrets.ts";
import { openSourceReader } from "../device/open-source.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile } from "../disk/data-file.ts";
import { assert, UbiError } from "../errors.ts";
import { type Metadata, STRIPE_FLAG } from "../formats/metadata.ts";
import { readStripeFlags } from "../formats/metadata-codec.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { SourceReader } from "../sources/source-reader.ts";
import { checkStripeCount, FileMedium, loadMetadata } from "../stripes/metadata-file.ts";
import { planStripes, type StripePlan } from "./stripe-plan.ts";

/** Stripes that the source is asked for at once. */
export const SOURCE_READS_MAX = 4;
/** A sector that is read while its owner writes it is half of each: it is read again. */
const READS_MAX = 20;
const REREAD_MS = 10;

export class ArchivedDisk implements AsyncDisposable {
  readonly data: DataFile;
  readonly metadata: Metadata;
  readonly metadataFile: DataFile;
  readonly cipher: XtsCipher | undefined;
  readonly plan: StripePlan;
  /** A backend may be at work on it. */
  readonly isServed: boolean;
  readonly #config: DeviceConfig;
  readonly #secrets: DiskSecrets;
  #source: SourceReader | undefined;

  private constructor(parts: {
    readonly config: DeviceConfig;
    readonly data: DataFile;
    readonly metadataFile: DataFile;
    readonly metadata: Metadata;
    readonly secrets: DiskSecrets;
    readonly isServed: boolean;
  }) {
    this.#config = parts.config;
    this.isServed = parts.isServed;
    this.data = parts.data;
    this.metadataFile = parts.metadataFile;
    this.metadata = parts.metadata;
    this.#secrets = parts.secrets;
    this.cipher = parts.secrets.cipher;
    this.plan = planStripes(parts.metadata.flags, parts.config.device.trackWritten);
  }

  /**
   * @param config with `metadata_path`
   * @param options `signal` ends the wait for the writer of a secret's pipe
   * @throws UbiError E_DISK_*, E_METADATA*, E_STRIPE_SOURCE, E_CIPHER; UbiErrors of secrets; the signal's reason
   */
  static async open(
    config: DeviceConfig,
    options: { readonly mayBeServed?: boolean; readonly signal: AbortSignal },
  ): Promise<ArchivedDisk> {
    const { dataPath, metadataPath } = config.device;
    assert(metadataPath !== undefined, "the path was demanded when the configuration was read");
    await using stack = new AsyncDisposableStack();
    const { data, isServed } = openData(dataPath, options.mayBeServed === true);
    stack.use(data);
    const metadataFile = stack.use(openBuffered(metadataPath, "metadata", isServed));
    const secrets = stack.use(await DiskSecrets.read(config, options.signal));
    stack.defer(() => secrets.cipher?.[Symbol.dispose]());
    const { fd, geometry } = metadataFile;
    const { sizeBytes } = geometry;
    const place = { path: metadataPath, fd, sizeBytes, cipher: secrets.cipher };
    const load = () => {
      const loaded = loadMetadata(place);
      checkStripeCount(metadataPath, loaded, data);
      return loaded;
    };
    const metadata = isServed ? whenWhole(load) : load();
    const disk = new ArchivedDisk({ config, data, metadataFile, metadata, secrets, isServed });
    disk.#checkSource();
    stack.move();
    return disk;
  }

  get isWriteTracked(): boolean {
    return this.#config.device.trackWritten;
  }

  get sizeBytes(): number {
    return this.data.geometry.sizeBytes;
  }

  get stripeSectors(): number {
    return 2 ** this.metadata.stripeShift;
  }

  get stripeBytes(): number {
    return this.stripeSectors * SECTOR_BYTES;
  }

  /**
   * Opens the stripe source, which is needed only when the plan says so.
   * @param onFailure a thread of the source failed: reads may never end
   * @throws UbiError E_STRIPE_SOURCE, E_STORE, E_ARCHIVE*, E_DISK_*; UbiErrors of secrets; the signal's reason
   */
  async openSource(
    onFailure: (message: string) => void,
    signal: AbortSignal,
  ): Promise<SourceReader> {
    assert(this.#source === undefined, "a source is opened once");
    const disk = {
      config: this.#config,
      metadata: this.metadata,
      files: { data: this.data, metadata: this.metadataFile },
      sourceSecrets: () => this.sourceSecrets(),
    };
    const { ioEngine } = this.#config.tuning;
    const needs = { requestsMax: SOURCE_READS_MAX, ioEngine, onFailure, signal };
    this.#source = await openSourceReader(disk, needs);
    return this.#source;
  }

  /**
   * Whether a guest has written to a stripe by now: that is durable before the first of its bytes is.
   * @throws UbiError E_METADATA, E_DISK_IO, E_CIPHER
   */
  isWrittenByNow(stripe: number): boolean {
    const { path, fd, geometry } = this.metadataFile;
    const { sizeBytes } = geometry;
    using medium = new FileMedium({ path, fd, sizeBytes, cipher: this.cipher });
    const flags = whenWhole(() => readStripeFlags(medium, this.metadata, stripe));
    return (flags & STRIPE_FLAG.WRITTEN) !== 0;
  }

  /** Those of `[stripe_source]`; they are wiped with the disk. @throws UbiError E_SECRET*, UbiErrors */
  sourceSecrets(): Promise<ResolvedSecrets> {
    return this.#secrets.ofSource();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source?.[Symbol.asyncDispose]();
    this.cipher?.[Symbol.dispose]();
    this.#secrets[Symbol.dispose]();
    this.metadataFile[Symbol.dispose]();
    this.data[Symbol.dispose]();
  }

  // --- internal ---

  #checkSource(): void {
    const { sourceStripes } = this.plan;
    if (sourceStripes > 0 && this.#config.stripeSource === undefined) {
      throw new UbiError(
        "E_STRIPE_SOURCE",
        `${sourceStripes} stripes of ${this.data.path} are still to be fetched, and there is no [stripe_source]; ` +
          "add the source that the metadata was made with",
      );
    }
  }
}

// --- internal ---

/** Through the page cache: the kernel reads ahead while a thread computes. */
function openBuffered(path: string, what: string, isUnlocked: boolean): DataFile {
  return DataFile.open({ path, what, isReadOnly: true, isBuffered: true, isUnlocked });
}

/** @throws UbiError E_DISK_OPEN, E_DISK_SIZE, E_DISK_LOCKED */
function openData(
  path: string,
  mayBeServed: boolean,
): { readonly data: DataFile; readonly isServed: boolean } {
  try {
    return { data: openBuffered(path, "data", false), isServed: false };
  } catch (error) {
    if (!mayBeServed || !(error instanceof UbiError && error.code === "E_DISK_LOCKED")) {
      throw error;
    }
  }
  return { data: openBuffered(path, "data", true), isServed: true };
}

/** @throws what `read` throws in the end */
function whenWhole<T>(read: () => T): T {
  for (let reads = 1; ; reads += 1) {
    try {
      return read();
    } catch (error) {
      const isPassing = error instanceof UbiError && error.code.startsWith("E_METADATA");
      if (!isPassing || reads === READS_MAX) {
        throw error;
      }
    }
    Bun.sleepSync(REREAD_MS);
  }
}
