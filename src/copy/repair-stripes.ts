/**
 * Lets stripes of a disk be fetched anew that were found to differ from their source: the metadata says again that they
 * are only there. What a guest wrote to in the meantime is left alone.
 */
import { closeSync, constants, openSync } from "node:fs";
import { lockDisk } from "../disk/disk-lock.ts";
import { errorText, UbiError } from "../errors.ts";
import { groupOfStripe, STRIPE_FLAG, sectorOfGroup } from "../formats/metadata.ts";
import { encodeGroup } from "../formats/metadata-codec.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { FileMedium, loadMetadata, type MetadataFile } from "../stripes/metadata-file.ts";
import type { ArchivedDisk } from "./archived-disk.ts";

/**
 * Returns how many of the stripes are to be fetched anew. The shared locks of the disk become exclusive ones, which is
 * not done in one step: so the metadata is read again.
 * @throws UbiError E_DISK_LOCKED, E_DISK_OPEN, E_DISK_IO, E_METADATA, E_CIPHER
 */
export function forgetStripes(disk: ArchivedDisk, stripes: readonly number[]): number {
  const { data, metadataFile, cipher } = disk;
  lockDisk(data.fd, `data ${data.path}`, "exclusive");
  lockDisk(metadataFile.fd, `metadata ${metadataFile.path}`, "exclusive");
  const { path, geometry } = metadataFile;
  const fd = openForWriting(path, metadataFile.fd);
  try {
    return forget({ path, fd, sizeBytes: geometry.sizeBytes, cipher }, stripes);
  } finally {
    closeSync(fd);
  }
}

// --- internal ---

const { FETCHED, WRITTEN, HAS_SOURCE } = STRIPE_FLAG;
const ALL = FETCHED | WRITTEN | HAS_SOURCE;
/** Fetched, and as it came. */
const UNTOUCHED = FETCHED | HAS_SOURCE;

/** The very file that is locked, whatever its name leads to by now. */
function openForWriting(path: string, fd: number): number {
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_RDWR);
  } catch (error) {
    throw new UbiError("E_DISK_OPEN", `cannot write to metadata ${path}: ${errorText(error)}`, {
      cause: error,
    });
  }
}

/** A sector is written whole or not at all: a crash leaves some of the stripes forgotten. */
function forget(file: MetadataFile, stripes: readonly number[]): number {
  const { flags } = loadMetadata(file);
  const untouched = stripes.filter((stripe) => ((flags[stripe] ?? 0) & ALL) === UNTOUCHED);
  for (const stripe of untouched) {
    flags[stripe] = (flags[stripe] ?? 0) & ~FETCHED;
  }
  using medium = new FileMedium(file);
  for (const group of new Set(untouched.map(groupOfStripe))) {
    encodeGroup(flags, group, medium.buffer.subarray(0, SECTOR_BYTES));
    medium.write(sectorOfGroup(group), 1);
  }
  medium.sync();
  return untouched.length;
}
