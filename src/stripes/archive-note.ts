/**
 * The note in the metadata that an archive has the disk but for its CHANGED stripes (formats/metadata.ts), held against
 * the data file: who writes there without setting CHANGED moves its times, and the note counts for nothing.
 */
import { fstatSync } from "node:fs";
import type { ArchiveNote, FileTimes } from "../formats/metadata.ts";

/** When the data file was written last; undefined for a device, whose node does not tell. */
export function timesOf(fd: number): FileTimes | undefined {
  const status = fstatSync(fd, { bigint: true });
  return status.isFile() ? { modifiedNs: status.mtimeNs, changedNs: status.ctimeNs } : undefined;
}

/** Whether nobody has written to the data file since the note was made. */
export function isNoteCurrent(note: ArchiveNote, fd: number): boolean {
  const times = timesOf(fd);
  return times !== undefined && areSameTimes(times, note);
}

export function areSameTimes(a: FileTimes, b: FileTimes): boolean {
  return a.modifiedNs === b.modifiedNs && a.changedNs === b.changedNs;
}
