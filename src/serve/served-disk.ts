/**
 * What a stripe server serves, opened and checked before anybody connects: a disk with its source, or an archive.
 * Files are opened for reading only and locked, shared: a backend that serves the disk keeps the server away, and
 * the other way round, so that the metadata that clients were told stays true.
 */
import type { DeviceConfig } from "../config/index.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import { openDiskSource, openSource, type WorkerSourceSettings } from "../device/open-source.ts";
import { openStripeImage } from "../device/stripe-image.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { DataFile } from "../disk/data-file.ts";
import { assert, UbiError } from "../errors.ts";
import { countStripes, type Metadata, metadataBytes, stripeBytes } from "../formats/metadata.ts";
import { METADATA_BYTES_MAX } from "../formats/stripe-protocol.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import type { SourceWorkers } from "../sources/source-workers.ts";
import {
  markUntracked,
  metadataOfPlainDisk,
  metadataOfSource,
  readServedMetadata,
} from "./served-metadata.ts";
import type { ServedStripes } from "./served-stripes.ts";
import { buffersFor } from "./stripe-reads.ts";

export interface ServedDiskOptions {
  readonly config: Pick<DeviceConfig, "device" | "stripeSource">;
  readonly ioEngine: "io_uring" | "sync";
  /** Asked for once all that needs no key was found right. Belongs to the disk. */
  readonly openCipher: () => Promise<XtsCipher | undefined>;
  /** Asked for when stripes are still to be had from the source. */
  readonly sourceSecrets: () => Promise<ResolvedSecrets>;
  /** A thread of the source failed: reads may never end. */
  readonly onFailure: (message: string) => void;
}

export class ServedDisk implements AsyncDisposable {
  /** For messages: the data file, or the archive. */
  readonly name: string;
  readonly metadata: Metadata;
  readonly stripes: ServedStripes;
  readonly #owned: AsyncDisposable;
  readonly #workers: SourceWorkers | undefined;

  private constructor(parts: {
    readonly name: string;
    readonly metadata: Metadata;
    readonly stripes: Omit<ServedStripes, "flags" | "stripeSectors">;
    /** Of a source that has some. */
    readonly workers: SourceWorkers | undefined;
    readonly owned: AsyncDisposable;
  }) {
    const { name, metadata, stripes, workers, owned } = parts;
    const flags = new SharedArrayBuffer(metadata.flags.length);
    new Uint8Array(flags).set(metadata.flags);
    this.name = name;
    this.metadata = metadata;
    this.stripes = { ...stripes, flags, stripeSectors: stripeBytes(metadata) / SECTOR_BYTES };
    this.#workers = workers;
    this.#owned = owned;
  }

  /** Of the source that stripes are still to be had from. */
  get sourceState(): "none" | "open" | "retrying" {
    if (this.stripes.source === undefined) {
      return "none";
    }
    return this.#workers?.isTroubled === true ? "retrying" : "open";
  }

  /** @throws UbiError E_DISK_*, E_METADATA*, E_SECRET*, E_CIPHER, E_STRIPE_SOURCE and those of the source */
  static async open(options: ServedDiskOptions): Promise<ServedDisk> {
    const { config, ioEngine } = options;
    const { dataPath, metadataPath } = config.device;
    await using opened = new AsyncDisposableStack();
    const data = opened.use(DataFile.open({ path: dataPath, what: "data", isReadOnly: true }));
    const file =
      metadataPath === undefined ? undefined : opened.use(openMetadataFile(metadataPath));
    const cipher = await options.openCipher();
    if (cipher !== undefined) {
      opened.use(cipher);
    }
    const metadata =
      file === undefined
        ? metadataOfPlainDisk(data.sectors)
        : readServedMetadata(file, cipher, data);
    if (file !== undefined && !config.device.trackWritten) {
      markUntracked(metadata.flags);
    }
    const isComplete = countStripes(metadata.flags).unfetched === 0;
    const files = file === undefined ? undefined : { data, metadata: file };
    const { source, workers } =
      isComplete || files === undefined
        ? NO_SOURCE
        : await openNeededSource({ ...options, metadata, files, opened });
    const { fd, geometry, blockBytes } = data;
    const disk = { file: { fd, sizeBytes: geometry.sizeBytes, blockBytes } };
    const stripes = {
      disk: { ...disk, cipherContext: cipher?.contextAddress ?? 0 },
      source,
      ioEngine,
    };
    const owned = opened.move();
    return new ServedDisk({ name: dataPath, metadata, stripes, workers, owned });
  }

  /** Serves an archive as it is. @throws UbiError E_STORE, E_ARCHIVE* */
  static async openArchive(
    settings: WorkerSourceSettings,
    secrets: ResolvedSecrets,
    onFailure: (message: string) => void,
  ): Promise<ServedDisk> {
    await using opened = new AsyncDisposableStack();
    const source = opened.use(await openSource(settings, secrets));
    checkServable(source);
    const metadata = metadataOfSource(source, (stripe) => source.has(stripe));
    const started = startWorkers(source, onFailure, opened);
    const stripes = { disk: undefined, source: started.source, ioEngine: "io_uring" } as const;
    const owned = opened.move();
    return new ServedDisk({
      name: source.name,
      metadata,
      stripes,
      workers: started.workers,
      owned,
    });
  }

  /** When the server's thread has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned[Symbol.asyncDispose]();
  }
}

// --- internal ---

interface NeededSource {
  readonly source: ServedStripes["source"];
  readonly workers: SourceWorkers | undefined;
}

const NO_SOURCE: NeededSource = { source: undefined, workers: undefined };

/** Clients take no longer metadata; a forged map of a few bytes is not to take the memory for it. */
function checkServable({ name, sectors, stripeSectors }: OpenedSource): void {
  const stripes = Math.ceil(sectors / stripeSectors);
  if (metadataBytes(stripes) > METADATA_BYTES_MAX) {
    throw new UbiError(
      "E_ARCHIVE",
      `${name} has ${stripes} stripes, whose metadata no client accepts (at most ${METADATA_BYTES_MAX} bytes); ` +
        "archive the disk with larger stripes",
    );
  }
}

function openMetadataFile(path: string): DataFile {
  return DataFile.open({ path, what: "metadata", isReadOnly: true, isBuffered: true });
}

async function openNeededSource(
  options: ServedDiskOptions & {
    readonly metadata: Metadata;
    readonly files: { readonly data: DataFile; readonly metadata: DataFile };
    readonly opened: AsyncDisposableStack;
  },
): Promise<NeededSource> {
  const { config, metadata, files, opened, onFailure } = options;
  const settings = config.stripeSource;
  if (settings === undefined) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `metadata ${files.metadata.path} has stripes that are still to be fetched, and no stripe_source is ` +
        "configured; add the source that the metadata was made with",
    );
  }
  if (settings.type === "raw") {
    const image = opened.use(openStripeImage(config, metadata, files));
    const { fd, geometry, blockBytes } = image;
    const file = { fd, sizeBytes: geometry.sizeBytes, blockBytes };
    return { source: { kind: "image", file }, workers: undefined };
  }
  const secrets = await options.sourceSecrets();
  const source = opened.use(await openDiskSource(settings, secrets, { metadata }));
  return startWorkers(source, onFailure, opened);
}

function startWorkers(
  source: OpenedSource,
  onFailure: (message: string) => void,
  opened: AsyncDisposableStack,
): NeededSource {
  const requestsMax = buffersFor(source.stripeSectors * SECTOR_BYTES);
  const workers: SourceWorkers = source.start({ requestsMax, onFailure });
  opened.defer(async () => void (await workers.stop()));
  assert(
    workers.description.board.requestsMax === requestsMax,
    "a buffer has a place on the board",
  );
  return { source: { kind: "workers", description: workers.description }, workers };
}
