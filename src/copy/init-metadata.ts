/**
 * Makes the metadata file of a disk: one byte a stripe that says whether its data is still in the stripe source.
 *
 * The disk and an earlier metadata file are locked meanwhile, so that a running backend is never disturbed.
 * Nothing is changed until everything was checked, and the key is read last.
 */
import type { DeviceConfig } from "../config/index.ts";
import { DiskSecrets } from "../device/disk-secrets.ts";
import { checkStripes, openSource } from "../device/open-source.ts";
import type { XtsCipher } from "../disk/cipher.ts";
import { lockDisk } from "../disk/disk-lock.ts";
import { assert, UbiError } from "../errors.ts";
import {
  countStripes,
  type Metadata,
  metadataBytes,
  newMetadata,
  STRIPE_COUNT_MAX,
  STRIPE_SHIFT_MAX,
  stripesOf,
} from "../formats/metadata.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { OpenedSource } from "../sources/opened-source.ts";
import { type MetadataFile, storeMetadata } from "../stripes/metadata-file.ts";
import { inspectMetadata, lossOf } from "./existing-metadata.ts";
import { InputFile, isSameFile } from "./input-file.ts";
import { MetadataPlace } from "./metadata-place.ts";

export interface InitMetadataOptions {
  /** A stripe has 2^shift sectors. Undefined: as many as in an archive or a stripe server, else 2^11. */
  readonly stripeShift: number | undefined;
  /** Replaces metadata that a guest's data hangs on, and what cannot be read. */
  readonly isForced: boolean;
}

export interface InitializedMetadata {
  readonly path: string;
  readonly sizeBytes: number;
  readonly stripeShift: number;
  readonly stripeCount: number;
  /** How many of the stripes the source has. */
  readonly sourceStripes: number;
  readonly isEncrypted: boolean;
  /** What was given up, as a clause. */
  readonly lost: string | undefined;
}

/**
 * @throws UbiError E_METADATA_SIZE, E_METADATA_FILE, E_METADATA_KEPT, E_STRIPE_SOURCE, E_DISK_*, E_CIPHER;
 * those of secrets, stores, archives and stripe servers
 */
export async function initMetadata(
  config: DeviceConfig,
  options: InitMetadataOptions,
): Promise<InitializedMetadata> {
  const { dataPath, metadataPath } = config.device;
  assert(metadataPath !== undefined, "the path was demanded when the configuration was read");
  using data = new InputFile(dataPath, "data");
  const sectors = sectorsOfDisk(data);
  lockDisk(data.fd, `data ${dataPath}`, "exclusive");
  const shiftWanted = options.stripeShift ?? shiftWithoutSource(config);
  if (shiftWanted !== undefined) {
    countOf(sectors, shiftWanted); // before a secret is read
  }
  using image = openImage(config);
  const imageSectors = image === undefined ? 0 : sectorsOfImage(image, data);
  const others = image === undefined ? [data] : [data, image];
  using place = MetadataPlace.find(metadataPath, others);
  using secrets = await DiskSecrets.read(config);
  using cipher = secrets.cipher;
  await using source = await openWorkerSource(config, secrets, sectors);

  const stripeShift = shiftWanted ?? Math.log2(source?.stripeSectors ?? 0);
  const stripeCount = countOf(sectors, stripeShift);
  if (source !== undefined) {
    checkStripes(source, { stripeSectors: 2 ** stripeShift, stripeCount });
  }
  const lost = checkLoss(place, cipher, options.isForced);
  const imageStripes = stripesOf(imageSectors, stripeShift);
  const metadata = newMetadata(
    { stripeShift, stripeCount },
    (stripe) => stripe < imageStripes || source?.has(stripe) === true,
  );
  const sizeBytes = store(place, metadata, cipher);
  return {
    path: metadataPath,
    sizeBytes,
    stripeShift,
    stripeCount,
    sourceStripes: countStripes(metadata.flags).hasSource,
    isEncrypted: cipher !== undefined,
    lost,
  };
}

/** Stripes of a disk, when a metadata file can have so many. @throws UbiError E_METADATA_SIZE */
export function countOf(sectors: number, stripeShift: number): number {
  checkShift(stripeShift);
  const stripeCount = stripesOf(sectors, stripeShift);
  if (stripeCount > STRIPE_COUNT_MAX) {
    throw new UbiError(
      "E_METADATA_SIZE",
      `the disk would have ${stripeCount} stripes, more than ${STRIPE_COUNT_MAX}; choose a larger shift`,
    );
  }
  return stripeCount;
}

/** @throws UbiError E_DISK_SIZE when it is no size of a disk */
export function sectorsOfDisk(data: InputFile): number {
  if (data.sizeBytes === 0) {
    throw new UbiError("E_DISK_SIZE", `data ${data.path} is empty`);
  }
  if (data.sizeBytes % SECTOR_BYTES !== 0) {
    const size = `has ${data.sizeBytes} bytes, which is not a multiple of ${SECTOR_BYTES}`;
    throw new UbiError("E_DISK_SIZE", `data ${data.path} ${size}`);
  }
  return data.sizeBytes / SECTOR_BYTES;
}

// --- internal ---

/** Returns how long the file is. A new one does not stay when it cannot be written. */
function store(place: MetadataPlace, metadata: Metadata, cipher: XtsCipher | undefined): number {
  try {
    const file = place.prepare(metadataBytes(metadata.stripeCount));
    storeMetadata({ path: place.path, ...file, cipher }, metadata);
    return file.sizeBytes;
  } catch (error) {
    place.discard();
    throw error;
  }
}

/** 32 KiB: smaller ones would make the file, and the work for each stripe, larger than is of use. */
const STRIPE_SHIFT_MIN = 6;

/** 1 MiB. */
const STRIPE_SHIFT_DEFAULT = 11;

/** Undefined where the source decides. */
function shiftWithoutSource({ stripeSource }: DeviceConfig): number | undefined {
  const isDecidedBySource = stripeSource !== undefined && stripeSource.type !== "raw";
  return isDecidedBySource ? undefined : STRIPE_SHIFT_DEFAULT;
}

function checkShift(stripeShift: number): void {
  if (stripeShift < STRIPE_SHIFT_MIN || stripeShift > STRIPE_SHIFT_MAX) {
    const range = `${STRIPE_SHIFT_MIN} (32 KiB) to ${STRIPE_SHIFT_MAX} (64 MiB) is accepted`;
    throw new UbiError(
      "E_METADATA_SIZE",
      `a stripe sector count shift of ${stripeShift} is out of range; ${range}`,
    );
  }
}

function openImage({ stripeSource }: DeviceConfig): InputFile | undefined {
  return stripeSource?.type === "raw" ? new InputFile(stripeSource.imagePath, "image") : undefined;
}

async function openWorkerSource(
  { stripeSource }: DeviceConfig,
  secrets: DiskSecrets,
  diskSectors: number,
): Promise<OpenedSource | undefined> {
  return stripeSource === undefined || stripeSource.type === "raw"
    ? undefined
    : openSource(stripeSource, await secrets.ofSource(), { diskSectors });
}

function sectorsOfImage(image: InputFile, data: InputFile): number {
  if (isSameFile(image.status(), data.status())) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `image ${image.path} is the disk ${data.path} itself; a disk cannot be filled from itself`,
    );
  }
  if (image.sizeBytes === 0) {
    throw new UbiError("E_STRIPE_SOURCE", `image ${image.path} is empty`);
  }
  if (image.sizeBytes > data.sizeBytes) {
    const sizes = `${image.sizeBytes} bytes, the disk ${data.path} only ${data.sizeBytes}`;
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `image ${image.path} has ${sizes}; make the disk as large as the image`,
    );
  }
  return Math.ceil(image.sizeBytes / SECTOR_BYTES); // what is missing of the last one reads as zeros
}

/** What is lost when the metadata is replaced. @throws UbiError E_METADATA_KEPT when that was not asked for */
function checkLoss(
  place: MetadataPlace,
  cipher: MetadataFile["cipher"],
  isForced: boolean,
): string | undefined {
  const { path, existing } = place;
  if (existing === undefined) {
    return undefined;
  }
  const loss = lossOf(inspectMetadata({ path, ...existing, cipher }));
  if (loss !== undefined && !isForced) {
    throw new UbiError(
      "E_METADATA_KEPT",
      `metadata ${path} is there already, and with it would be lost ${loss}. Give --force only when the disk ` +
        "holds nothing to keep: stripes of the source are fetched anew, over what the guest wrote",
    );
  }
  return loss;
}
