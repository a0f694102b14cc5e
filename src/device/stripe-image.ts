/** The raw image of a disk whose stripes are still to be fetched: opened, locked and checked against the disk. */
import { fstatSync, statSync } from "node:fs";
import type { DeviceConfig } from "../config/index.ts";
import type { DataFile } from "../disk/data-file.ts";
import { assert, errorText, UbiError } from "../errors.ts";
import { type Metadata, STRIPE_FLAG, stripeBytes } from "../formats/metadata.ts";
import { openImage } from "../sources/open-raw-source.ts";

/**
 * @throws UbiError E_STRIPE_SOURCE, E_DISK_OPEN, E_DISK_SIZE, E_DISK_LOCKED
 */
export function openStripeImage(
  config: Pick<DeviceConfig, "device" | "stripeSource">,
  metadata: Metadata,
  files: { readonly data: DataFile; readonly metadata: DataFile },
): DataFile {
  return openChecked(imagePathOf(config), { ...files, content: metadata }, false);
}

/** A disk, as far as it can be had. */
interface ImageUser {
  readonly data: DataFile;
  readonly metadata: DataFile | undefined;
  readonly content: Metadata | undefined;
}

/**
 * Looks at an image as `openStripeImage` does, without locking it. Returns its size in bytes.
 * @throws UbiError E_STRIPE_SOURCE, E_DISK_OPEN, E_DISK_SIZE
 */
export function examineStripeImage(path: string, disk: ImageUser): number {
  using image = openChecked(path, disk, true);
  return image.geometry.sizeBytes;
}

// --- internal ---

const { FETCHED, HAS_SOURCE } = STRIPE_FLAG;

function imagePathOf({
  device,
  stripeSource,
}: Pick<DeviceConfig, "device" | "stripeSource">): string {
  if (stripeSource === undefined) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `metadata ${device.metadataPath} has stripes that are still to be fetched, and there is no [stripe_source]; ` +
        "add the source that the metadata was made with",
    );
  }
  assert(stripeSource.type === "raw", "sources of other types have no image");
  return stripeSource.imagePath;
}

function openChecked(path: string, disk: ImageUser, isUnlocked: boolean): DataFile {
  checkOther(path, disk.data, "the disk itself");
  if (disk.metadata !== undefined) {
    checkOther(path, disk.metadata, "the metadata file of the disk");
  }
  const image = openImage(path, { isUnlocked });
  try {
    checkSize(image, disk.data);
    if (disk.content !== undefined) {
      checkStripes(image, disk.content);
    }
    return image;
  } catch (error) {
    image[Symbol.dispose]();
    throw error;
  }
}

/** Before the lock is asked for, which would only say that this process has it. */
function checkOther(path: string, file: DataFile, what: string): void {
  const other = fstatSync(file.fd, { bigint: true });
  let image: typeof other;
  try {
    image = statSync(path, { bigint: true });
  } catch (error) {
    throw new UbiError("E_DISK_OPEN", `cannot open image ${path}: ${errorText(error)}`, {
      cause: error,
    });
  }
  const isSameDevice = image.isBlockDevice() && image.rdev === other.rdev && other.isBlockDevice();
  if (isSameDevice || (image.dev === other.dev && image.ino === other.ino)) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `image ${path} is ${what}; name the image to fill it from`,
    );
  }
}

function checkSize(image: DataFile, data: DataFile): void {
  const { sizeBytes } = image.geometry;
  if (sizeBytes > data.geometry.sizeBytes) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `image ${image.path} has ${sizeBytes} bytes, the disk ${data.path} only ${data.geometry.sizeBytes}; ` +
        "make the disk as large as the image",
    );
  }
}

function checkStripes(image: DataFile, metadata: Metadata): void {
  const { sizeBytes } = image.geometry;
  if (stripeBytes(metadata) % image.blockBytes !== 0) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `image ${image.path} lies on a medium with blocks of ${image.blockBytes} bytes, and the metadata has stripes ` +
        `of ${stripeBytes(metadata)}; make metadata with larger stripes`,
    );
  }
  const stripes = Math.ceil(sizeBytes / stripeBytes(metadata));
  const last = lastUnfetched(metadata.flags);
  if (last >= stripes) {
    throw new UbiError(
      "E_STRIPE_SOURCE",
      `image ${image.path} has ${sizeBytes} bytes and ends before stripe ${last}, which is still to be fetched; ` +
        "bring back the image that the metadata was made with",
    );
  }
}

function lastUnfetched(flags: Uint8Array): number {
  for (let stripe = flags.length - 1; stripe >= 0; stripe--) {
    if (((flags[stripe] ?? 0) & (HAS_SOURCE | FETCHED)) === HAS_SOURCE) {
      return stripe;
    }
  }
  return -1;
}
