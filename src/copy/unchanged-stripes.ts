/**
 * What an archive run need not read: stripes that nobody wrote to since the archive at the target was made of this very
 * disk. The metadata has a note of that archive (stripes/archive-note.ts); where it is not true, all is read.
 *
 *   run with --track-changes:  ... manifest is there -> note away -> CHANGED cleared -> note     each durable
 *
 * A crash in between leaves no note, and the next run reads all.
 */
import { closeSync } from "node:fs";
import type { ArchiveManifest } from "../archive/archive-manifest.ts";
import type { StripeMap } from "../archive/stripe-map.ts";
import { errorText, UbiError } from "../errors.ts";
import {
  type FileTimes,
  groupOfStripe,
  type Metadata,
  STRIPE_FLAG,
  sectorOfGroup,
} from "../formats/metadata.ts";
import { encodeGroup, replaceNote } from "../formats/metadata-codec.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { log } from "../log.ts";
import { areSameTimes, isNoteCurrent, timesOf } from "../stripes/archive-note.ts";
import { FileMedium, loadMetadata, type MetadataFile } from "../stripes/metadata-file.ts";
import type { ArchivedDisk } from "./archived-disk.ts";
import { lockForChange } from "./changed-metadata.ts";
import { STRIPE_FROM, type StripePlan } from "./stripe-plan.ts";

/**
 * Takes what the archive has already over into the map of the new one. Returns what is left to read.
 * @param current the archive at the target, whose keys the new one keeps
 */
export function keepUnchanged(
  disk: ArchivedDisk,
  current: ArchiveManifest | undefined,
  map: StripeMap,
): StripePlan {
  const { note, flags } = disk.metadata;
  const isSame =
    note !== undefined &&
    current !== undefined &&
    isNoteCurrent(note, disk.data.fd) &&
    Buffer.compare(note.mapping, current.mappingSha256) === 0;
  if (!isSame) {
    return disk.plan;
  }
  const from = new Uint8Array(new SharedArrayBuffer(disk.plan.from.length));
  const left = [0, 0, 0];
  for (let stripe = 0; stripe < from.length; stripe += 1) {
    const place = disk.plan.from[stripe] ?? STRIPE_FROM.NOWHERE;
    const isChanged = ((flags[stripe] ?? 0) & STRIPE_FLAG.CHANGED) !== 0;
    const isKept =
      place !== STRIPE_FROM.NOWHERE && !isChanged && copyEntry(current.map, map, stripe);
    from[stripe] = isKept ? STRIPE_FROM.NOWHERE : place;
    left[from[stripe] ?? 0] = (left[from[stripe] ?? 0] ?? 0) + 1;
  }
  return {
    from,
    diskStripes: left[STRIPE_FROM.DISK] ?? 0,
    sourceStripes: left[STRIPE_FROM.SOURCE] ?? 0,
  };
}

/** What is known of a disk when a run begins: it has to be so at its end. */
export interface DiskMoment {
  readonly times: FileTimes;
}

/** @throws UbiError E_CONFIG where nobody could tell later what was written */
export function momentOf(disk: ArchivedDisk): DiskMoment {
  const times = timesOf(disk.data.fd);
  if (times === undefined || !disk.isWriteTracked) {
    const why =
      times === undefined
        ? `${disk.data.path} is a device, or on a file system that counts time by the second: it does not tell when it was written to`
        : "device.track_written is off";
    throw new UbiError("E_CONFIG", `--track-changes: ${why}; run without it, which reads the disk`);
  }
  return { times };
}

/**
 * The archive is there: from here on only what is written anew counts as changed. What fails is only a warning, since
 * then the next run reads all.
 * @param mapping SHA-256 of its `stripe-mapping`
 */
export function noteArchive(disk: ArchivedDisk, moment: DiskMoment, mapping: Uint8Array): void {
  try {
    const place = lockForChange(disk);
    try {
      writeNote(disk, place, { ...moment.times, mapping });
    } finally {
      closeSync(place.fd);
    }
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    log.warn(
      "the archive is made, but not noted in the metadata: the next one reads all of the disk",
      {
        cause: errorText(error),
      },
    );
  }
}

// --- internal ---

function copyEntry(source: StripeMap, target: StripeMap, stripe: number): boolean {
  const kind = stripe < source.stripeEnd ? source.kind(stripe) : "absent";
  if (kind === "zero") {
    target.setZero(stripe);
  } else if (kind === "stored") {
    target.setStored(stripe, source.hash(stripe));
  }
  return kind !== "absent";
}

/** @throws UbiError E_DISK_LOCKED when somebody had the disk for a moment; E_DISK_IO, E_CIPHER, E_METADATA */
function writeNote(
  disk: ArchivedDisk,
  place: MetadataFile,
  note: NonNullable<Metadata["note"]>,
): void {
  const { flags } = loadMetadata(place);
  const times = timesOf(disk.data.fd);
  const isUntouched = times !== undefined && areSameTimes(times, note);
  if (!isUntouched || Buffer.compare(flags, disk.metadata.flags) !== 0) {
    throw new UbiError("E_DISK_LOCKED", `${disk.data.path} was in use for a moment`);
  }
  using medium = new FileMedium(place);
  replaceNote(medium, undefined);
  const groups = new Set<number>();
  for (let stripe = 0; stripe < flags.length; stripe += 1) {
    const value = flags[stripe] ?? 0;
    if ((value & STRIPE_FLAG.CHANGED) !== 0) {
      flags[stripe] = value & ~STRIPE_FLAG.CHANGED;
      groups.add(groupOfStripe(stripe));
    }
  }
  for (const group of groups) {
    encodeGroup(flags, group, medium.buffer.subarray(0, SECTOR_BYTES));
    medium.write(sectorOfGroup(group), 1);
  }
  medium.sync();
  replaceNote(medium, note);
}
