/**
 * Gives the metadata file of a disk that was made larger the stripes that it lacks: the source does not have them, and
 * nothing was done to them. All others stay as they are. The disk and the file are locked meanwhile.
 */
import type { DeviceConfig } from "../config/index.ts";
import { DiskSecrets } from "../device/disk-secrets.ts";
import { lockDisk } from "../disk/disk-lock.ts";
import { assert, UbiError } from "../errors.ts";
import { metadataBytes } from "../formats/metadata.ts";
import { appendToMetadata, loadMetadata } from "../stripes/metadata-file.ts";
import { countOf, sectorsOfDisk } from "./init-metadata.ts";
import { InputFile } from "./input-file.ts";
import { MetadataPlace } from "./metadata-place.ts";

export interface GrownMetadata {
  readonly path: string;
  readonly sizeBytes: number;
  readonly stripeShift: number;
  readonly stripesBefore: number;
  readonly stripeCount: number;
}

/**
 * @throws UbiError E_METADATA*, E_DISK_*, E_CIPHER; those of secrets
 */
export async function growMetadata(config: DeviceConfig): Promise<GrownMetadata> {
  const { dataPath, metadataPath: path } = config.device;
  assert(path !== undefined, "the path was demanded when the configuration was read");
  using data = new InputFile(dataPath, "data");
  const sectors = sectorsOfDisk(data);
  lockDisk(data.fd, `data ${dataPath}`, "exclusive");
  using place = MetadataPlace.find(path, [data]);
  const { existing } = place;
  if (existing === undefined) {
    throw new UbiError(
      "E_METADATA_FILE",
      `there is no metadata ${path} yet; run init-metadata first`,
    );
  }
  using secrets = await DiskSecrets.read(config);
  using cipher = secrets.cipher;
  const { stripeShift, flags: before } = loadMetadata({ path, ...existing, cipher });
  const stripeCount = countOf(sectors, stripeShift);
  if (stripeCount < before.length) {
    throw new UbiError(
      "E_METADATA_SIZE",
      `metadata ${path} has ${before.length} stripes and the disk ${dataPath} only ${stripeCount}: stripes are never ` +
        "taken away; bring back the size of the disk",
    );
  }
  if (stripeCount > before.length) {
    const flags = new Uint8Array(stripeCount);
    flags.set(before);
    appendToMetadata(
      { path, fd: existing.fd, cipher },
      { stripeShift, stripeCount, flags },
      before.length,
    );
  }
  return {
    path,
    sizeBytes: Math.max(existing.sizeBytes, metadataBytes(stripeCount)),
    stripeShift,
    stripesBefore: before.length,
    stripeCount,
  };
}
