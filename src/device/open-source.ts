/** Opens the configured stripe source of a disk, whatever its type, and checks that it fits the disk. */
import type { DeviceConfig } from "../config/index.ts";
import type { ResolvedSecrets } from "../config/resolve-secrets.ts";
import { UbiError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { openArchiveSource } from "../sources/archive-source.ts";
import { openImage, openRawSource } from "../sources/open-raw-source.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import { openRemoteSource } from "../sources/remote-source.ts";
import { SourceReader } from "../sources/source-reader.ts";
import { WorkerSource } from "../sources/worker-source.ts";

export type StripeSourceSettings = NonNullable<DeviceConfig["stripeSource"]>;
/** Types whose stripes are fetched by workers. */
export type WorkerSourceSettings = Exclude<StripeSourceSettings, { readonly type: "raw" }>;

/**
 * @param secrets those of `[stripe_source]` among them
 * @throws UbiError E_STRIPE_SOURCE, E_STORE, E_ARCHIVE*, E_REMOTE, E_REMOTE_PSK
 */
export async function openSource(
  settings: WorkerSourceSettings,
  secrets: ResolvedSecrets,
): Promise<OpenedSource> {
  switch (settings.type) {
    case "archive":
      return openArchiveSource(settings, secrets);
    case "remote":
      return openRemoteSource(settings, secrets);
  }
}

export interface SourceReaderNeeds {
  /** Of the disk's metadata. */
  readonly stripeSectors: number;
  readonly stripeCount: number;
  /** Reads under way at once. */
  readonly requestsMax: number;
  /** Of `[tuning]`: how a raw image is read. */
  readonly ioEngine: "io_uring" | "sync";
  /** A worker of the source failed: reads may never end. */
  readonly onFailure: (message: string) => void;
}

/**
 * For tools: a reader of the source's whole stripes.
 * @throws UbiError E_STRIPE_SOURCE, E_DISK_*, E_STORE, E_ARCHIVE*, E_REMOTE, E_REMOTE_PSK
 */
export async function openSourceReader(
  settings: StripeSourceSettings,
  secrets: ResolvedSecrets,
  needs: SourceReaderNeeds,
): Promise<SourceReader> {
  const { stripeSectors, requestsMax, ioEngine, onFailure } = needs;
  if (settings.type === "raw") {
    const file = openImage(settings.imagePath);
    const { fd, blockBytes, geometry } = file;
    const stripeBytes = stripeSectors * SECTOR_BYTES;
    const image = { fd, blockBytes, sizeBytes: geometry.sizeBytes };
    const source = openRawSource(image, { stripeBytes, requestsMax, ioEngine });
    const name = `image ${settings.imagePath}`;
    return new SourceReader(source, {
      name,
      requestsMax,
      close: async () => file[Symbol.dispose](),
    });
  }
  const source = await openSource(settings, secrets);
  try {
    checkStripes(source, needs);
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
        `of ${disk.stripeSectors * SECTOR_BYTES}; make the metadata with init-metadata -s ${shift}`,
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
