/** Opens the configured stripe source of a disk, whatever its type, and checks that it fits the disk. */
import type { DeviceConfig } from "../config/index.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import type { DataFile } from "../disk/data-file.ts";
import { UbiError } from "../errors.ts";
import { type Metadata, STRIPE_FLAG, stripeBytes } from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { ArchiveSourceLimits } from "../sources/archive-source.ts";
import { openRawSource } from "../sources/open-raw-source.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import { SourceReader } from "../sources/source-reader.ts";
import { WorkerSource } from "../sources/worker-source.ts";
import { openStripeImage } from "./stripe-image.ts";

type StripeSourceSettings = NonNullable<DeviceConfig["stripeSource"]>;
/** Types whose stripes are fetched by workers. */
export type WorkerSourceSettings = Exclude<StripeSourceSettings, { readonly type: "raw" }>;

/**
 * Loads what such a source needs: most disks have none.
 * @param secrets those of `[stripe_source]` among them
 * @throws UbiError E_STRIPE_SOURCE, E_STORE, E_ARCHIVE*, E_REMOTE, E_REMOTE_PSK; the signal's reason
 */
export async function openSource(
  settings: WorkerSourceSettings,
  secrets: ResolvedSecrets,
  limits: ArchiveSourceLimits = {},
): Promise<OpenedSource> {
  switch (settings.type) {
    case "archive": {
      const { openArchiveSource } = await import("../sources/archive-source.ts");
      return openArchiveSource(settings, secrets, limits);
    }
    case "remote": {
      const { openRemoteSource } = await import("../sources/remote-source.ts");
      return openRemoteSource(settings, secrets);
    }
  }
}

/**
 * Opens the source of a disk and checks that it fits, and holds all that is still to be fetched.
 * @throws UbiError as `openSource`
 */
export async function openDiskSource(
  settings: WorkerSourceSettings,
  secrets: ResolvedSecrets,
  disk: { readonly metadata: Metadata; readonly signal?: AbortSignal | undefined },
): Promise<OpenedSource> {
  const { flags, stripeCount } = disk.metadata;
  const stripeSectors = stripeBytes(disk.metadata) / SECTOR_BYTES;
  const diskSectors = stripeCount * stripeSectors;
  const source = await openSource(settings, secrets, { diskSectors, signal: disk.signal });
  try {
    checkStripes(source, { stripeSectors, stripeCount });
    checkUnfetched(source, flags);
    return source;
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

/** A disk that has stripes to fetch. */
export interface UnfilledDisk {
  readonly config: Pick<DeviceConfig, "device" | "stripeSource">;
  readonly metadata: Metadata;
  readonly files: { readonly data: DataFile; readonly metadata: DataFile };
  /** Asked for where the source has secrets. */
  readonly sourceSecrets: () => Promise<ResolvedSecrets>;
}

export interface SourceReaderNeeds {
  /** Reads under way at once. */
  readonly requestsMax: number;
  /** Of `[tuning]`: how a raw image is read. */
  readonly ioEngine: "io_uring" | "sync";
  /** A worker of the source failed: reads may never end. */
  readonly onFailure: (message: string) => void;
  readonly signal: AbortSignal;
}

/**
 * For tools: a reader of the source's whole stripes, after the same checks as a backend makes.
 * @throws UbiError E_STRIPE_SOURCE, E_DISK_*, E_STORE, E_ARCHIVE*, E_REMOTE, E_REMOTE_PSK; the signal's reason
 */
export async function openSourceReader(
  disk: UnfilledDisk,
  needs: SourceReaderNeeds,
): Promise<SourceReader> {
  const { config, metadata } = disk;
  const { requestsMax, onFailure, signal } = needs;
  const settings = config.stripeSource;
  if (settings === undefined || settings.type === "raw") {
    return openImageReader(disk, needs);
  }
  const secrets = await disk.sourceSecrets();
  const source = await openDiskSource(settings, secrets, { metadata, signal });
  try {
    const workers = source.start({ requestsMax, onFailure });
    return new SourceReader(new WorkerSource(workers.description), {
      name: source.name,
      requestsMax,
      close: async () => {
        await workers.stop();
        await source[Symbol.asyncDispose]();
      },
    });
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Stripes of disk and source must be the same, and all of the source's have a place on the disk. Sizes are compared
 * by stripes: a source of whole stripes fits a disk that ends inside the last one.
 * @throws UbiError E_STRIPE_SOURCE
 */
export function checkStripes(
  source: OpenedSource,
  disk: { readonly stripeSectors: number; readonly stripeCount: number },
): void {
  if (source.stripeSectors !== disk.stripeSectors) {
    const shift = Math.log2(source.stripeSectors);
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `${source.name} has stripes of ${source.stripeSectors * SECTOR_BYTES} bytes, the metadata of the disk stripes ` +
        `of ${disk.stripeSectors * SECTOR_BYTES}; make the metadata with init-metadata -s ${shift}, or the disk with ` +
        `init --stripe-size ${sizeFlag(source.stripeSectors * SECTOR_BYTES)}`,
    );
  }
  const stripes = Math.ceil(source.sectors / source.stripeSectors);
  if (stripes > disk.stripeCount) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `${source.name} has ${stripes} stripes, the disk only ${disk.stripeCount}; ` +
        `make the disk as large as the source: ${source.sectors * SECTOR_BYTES} bytes`,
    );
  }
}

// --- internal ---

const { FETCHED, HAS_SOURCE } = STRIPE_FLAG;

/** A stripe that nobody has would be an error of the guest's, hours later, or zeros in an archive. */
function checkUnfetched(source: OpenedSource, flags: Uint8Array): void {
  let missing = 0;
  let first = -1;
  for (let stripe = 0; stripe < flags.length; stripe++) {
    const isUnfetched = ((flags[stripe] ?? 0) & (HAS_SOURCE | FETCHED)) === HAS_SOURCE;
    if (isUnfetched && !source.has(stripe)) {
      first = missing === 0 ? stripe : first;
      missing += 1;
    }
  }
  if (missing > 0) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `${source.name} lacks ${missing} of the stripes that are still to be fetched, the first is ${first}; ` +
        "name the source that the metadata was made with",
    );
  }
}

function openImageReader(disk: UnfilledDisk, needs: SourceReaderNeeds): SourceReader {
  const { requestsMax, ioEngine } = needs;
  const file = openStripeImage(disk.config, disk.metadata, disk.files);
  try {
    const { fd, blockBytes, geometry } = file;
    const image = { fd, blockBytes, sizeBytes: geometry.sizeBytes };
    const source = openRawSource(image, {
      stripeBytes: stripeBytes(disk.metadata),
      requestsMax,
      ioEngine,
    });
    const close = async () => file[Symbol.dispose]();
    return new SourceReader(source, { name: `image ${file.path}`, requestsMax, close });
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** A power of two of 1 KiB or more, as flags take it. */
function sizeFlag(bytes: number): string {
  return bytes < 2 ** 20 ? `${bytes / 2 ** 10}K` : `${bytes / 2 ** 20}M`;
}
