/**
 * The note in the metadata that an archive has the disk but for its CHANGED stripes (formats/metadata.ts), held against
 * the data file: who writes there without setting CHANGED moves its times, and the note counts for nothing.
 */
import { type BigIntStats, fstatSync } from "node:fs";
import type { ArchiveNote, FileTimes } from "../formats/metadata.ts";

const SECOND_NS = 1_000_000_000n;

/** When the data file was written last; undefined where that is not told, as `timesIn` says. */
export function timesOf(fd: number): FileTimes | undefined {
  return timesIn(fstatSync(fd, { bigint: true }));
}

/**
 * Undefined for a device, whose node tells nothing, and on a file system that counts by the second: who writes right
 * after a backend has ended would leave the times as they were. Of ctime, which nobody sets, a whole second is no chance.
 */
export function timesIn(
  status: Pick<BigIntStats, "isFile" | "mtimeNs" | "ctimeNs">,
): FileTimes | undefined {
  const { mtimeNs: modifiedNs, ctimeNs: changedNs } = status;
  return status.isFile() && changedNs % SECOND_NS !== 0n ? { modifiedNs, changedNs } : undefined;
}

/** Whether nobody has written to the data file since the note was made. */
export function isNoteCurrent(note: ArchiveNote, fd: number): boolean {
  const times = timesOf(fd);
  return times !== undefined && areSameTimes(times, note);
}

export function areSameTimes(a: FileTimes, b: FileTimes): boolean {
  return a.modifiedNs === b.modifiedNs && a.changedNs === b.changedNs;
}
