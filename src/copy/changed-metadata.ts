/**
 * The metadata of a disk that a tool has read, and now changes: its shared locks become exclusive ones, which is not done
 * in one step. So whoever changes it reads it again.
 */
import { constants, openSync } from "node:fs";
import { lockDisk } from "../disk/disk-lock.ts";
import { errorText, UbiError } from "../errors.ts";
import type { MetadataFile } from "../stripes/metadata-file.ts";
import type { ArchivedDisk } from "./archived-disk.ts";

/** The caller closes the descriptor. @throws UbiError E_DISK_LOCKED, E_DISK_OPEN */
export function lockForChange(disk: ArchivedDisk): MetadataFile {
  const { data, metadataFile, cipher } = disk;
  lockDisk(data.fd, `data ${data.path}`, "exclusive");
  lockDisk(metadataFile.fd, `metadata ${metadataFile.path}`, "exclusive");
  const { path, geometry } = metadataFile;
  return { path, fd: openForWriting(path, metadataFile.fd), sizeBytes: geometry.sizeBytes, cipher };
}

// --- internal ---

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
