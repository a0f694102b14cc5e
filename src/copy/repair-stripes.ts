/**
 * Lets stripes of a disk be fetched anew that were found to differ from their source: the metadata says again that they
 * are only there. What a guest wrote to in the meantime is left alone.
 */
import { closeSync } from "node:fs";
import { groupOfStripe, STRIPE_FLAG, sectorOfGroup } from "../formats/metadata.ts";
import { encodeGroup } from "../formats/metadata-codec.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { FileMedium, loadMetadata, type MetadataFile } from "../stripes/metadata-file.ts";
import type { ArchivedDisk } from "./archived-disk.ts";
import { lockForChange } from "./changed-metadata.ts";

/**
 * Returns how many of the stripes are to be fetched anew.
 * @throws UbiError E_DISK_LOCKED, E_DISK_OPEN, E_DISK_IO, E_METADATA, E_CIPHER
 */
export function forgetStripes(disk: ArchivedDisk, stripes: readonly number[]): number {
  const place = lockForChange(disk);
  try {
    return forget(place, stripes);
  } finally {
    closeSync(place.fd);
  }
}

// --- internal ---

const { FETCHED, WRITTEN, HAS_SOURCE, CHANGED } = STRIPE_FLAG;
const ALL = FETCHED | WRITTEN | HAS_SOURCE;
/** Fetched, and as it came. */
const UNTOUCHED = FETCHED | HAS_SOURCE;

/** A sector is written whole or not at all: a crash leaves some of the stripes forgotten. */
function forget(file: MetadataFile, stripes: readonly number[]): number {
  const { flags } = loadMetadata(file);
  const untouched = stripes.filter((stripe) => ((flags[stripe] ?? 0) & ALL) === UNTOUCHED);
  for (const stripe of untouched) {
    // What is on the disk may have been archived as it is: the next archive reads the stripe.
    flags[stripe] = ((flags[stripe] ?? 0) & ~FETCHED) | CHANGED;
  }
  using medium = new FileMedium(file);
  for (const group of new Set(untouched.map(groupOfStripe))) {
    encodeGroup(flags, group, medium.buffer.subarray(0, SECTOR_BYTES));
    medium.write(sectorOfGroup(group), 1);
  }
  medium.sync();
  return untouched.length;
}
