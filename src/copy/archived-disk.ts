/**
 * A disk that is read as a whole, by a tool: opened read-only and locked, shared, so that no backend works on it
 * meanwhile and several tools may. All sizes are checked before a stripe is read, and the keys are read last.
 */
import type { DeviceConfig } from "../config/index.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import { DiskSecrets } from "../device/disk-secrets.ts";
import { openSourceReader } from "../device/open-source.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile } from "../disk/data-file.ts";
import { assert, UbiError } from "../errors.ts";
import type { Metadata } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { SourceReader } from "../sources/source-reader.ts";
import { checkStripeCount, loadMetadata } from "../stripes/metadata-file.ts";
import { planStripes, type StripePlan } from "./stripe-plan.ts";

/** Stripes that the source is asked for at once. */
export const SOURCE_READS_MAX = 4;

export class ArchivedDisk implements AsyncDisposable {
  readonly data: DataFile;
  readonly metadata: Metadata;
  readonly metadataFile: DataFile;
  readonly cipher: XtsCipher | undefined;
  readonly plan: StripePlan;
  readonly #config: DeviceConfig;
  readonly #secrets: DiskSecrets;
  #source: SourceReader | undefined;

  private constructor(parts: {
    readonly config: DeviceConfig;
    readonly data: DataFile;
    readonly metadataFile: DataFile;
    readonly metadata: Metadata;
    readonly secrets: DiskSecrets;
  }) {
    this.#config = parts.config;
    this.data = parts.data;
    this.metadataFile = parts.metadataFile;
    this.metadata = parts.metadata;
    this.#secrets = parts.secrets;
    this.cipher = parts.secrets.cipher;
    this.plan = planStripes(parts.metadata.flags, parts.config.device.trackWritten);
  }

  /**
   * @param config with `metadata_path`
   * @throws UbiError E_DISK_*, E_METADATA*, E_STRIPE_SOURCE, E_CIPHER; UbiErrors of secrets
   */
  static async open(config: DeviceConfig): Promise<ArchivedDisk> {
    const { dataPath, metadataPath } = config.device;
    assert(metadataPath !== undefined, "the path was demanded when the configuration was read");
    await using stack = new AsyncDisposableStack();
    const data = stack.use(openBuffered(dataPath, "data"));
    const metadataFile = stack.use(openBuffered(metadataPath, "metadata"));
    const secrets = stack.use(await DiskSecrets.read(config));
    stack.defer(() => secrets.cipher?.[Symbol.dispose]());
    const { fd, geometry } = metadataFile;
    const { sizeBytes } = geometry;
    const place = { path: metadataPath, fd, sizeBytes, cipher: secrets.cipher };
    const metadata = loadMetadata(place);
    checkStripeCount(metadataPath, metadata, data);
    const disk = new ArchivedDisk({ config, data, metadataFile, metadata, secrets });
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
function openBuffered(path: string, what: string): DataFile {
  return DataFile.open({ path, what, isReadOnly: true, isBuffered: true });
}
