/**
 * What a process does with a disk that another one still serves and will hand over: all that opening it needs and
 * checks, as far as that can be had from a disk that changes meanwhile. It writes nothing.
 */
import type { HandedFile } from "../disk/data-file.ts";
import { errnoText, UbiError } from "../errors.ts";
import { probeFile } from "../ffi/file.ts";
import { countStripes, type Metadata } from "../formats/metadata.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import { checkStripeCount, loadMetadata, type MetadataFile } from "../stripes/metadata-file.ts";
import type { PreparedDisk } from "./disk-device.ts";
import { openDiskSource } from "./open-source.ts";

/** A sector that is read while it is written may come half old and half new. */
const TRIES = 20;
const RETRY_MS = 50;

/**
 * @param metadata as it is handed over
 * @returns the stripe source, where it has threads of its own: opening it may take long
 * @throws UbiError E_UPGRADE; those of metadata, secrets and sources
 */
export async function rehearseOpening(
  { config, data, secrets, isNull }: PreparedDisk,
  metadata: HandedFile | undefined,
): Promise<OpenedSource | undefined> {
  const path = config.device.metadataPath;
  if ((path === undefined) !== (metadata === undefined)) {
    const what = path === undefined ? "gone" : "new";
    const message = `device.metadata_path is ${what} in the configuration; that needs a restart`;
    throw new UbiError("E_UPGRADE", message);
  }
  if (path === undefined || metadata === undefined) {
    return undefined;
  }
  const geometry = probeFile(metadata.fd);
  if (typeof geometry === "number") {
    throw new UbiError("E_DISK_OPEN", `cannot look at metadata ${path}: ${errnoText(geometry)}`);
  }
  const { cipher } = secrets;
  const loaded = await loadChanging({
    path,
    fd: metadata.fd,
    sizeBytes: geometry.sizeBytes,
    cipher,
  });
  checkStripeCount(path, loaded, data);
  const settings = config.stripeSource;
  const isFetching = !isNull && countStripes(loaded.flags).unfetched > 0;
  if (!isFetching || settings === undefined || settings.type === "raw") {
    return undefined;
  }
  return await openDiskSource(settings, await secrets.ofSource(), { metadata: loaded });
}

// --- internal ---

async function loadChanging(file: MetadataFile): Promise<Metadata> {
  for (let tries = 1; ; tries++) {
    try {
      return loadMetadata(file);
    } catch (error) {
      if (!(error instanceof UbiError) || error.code !== "E_METADATA" || tries === TRIES) {
        throw error;
      }
    }
    await Bun.sleep(RETRY_MS);
  }
}
