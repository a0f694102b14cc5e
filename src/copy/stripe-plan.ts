/**
 * Which stripes of a disk an archive holds, and where each is read from.
 *
 *   flags of the stripe                     taken from
 *   HAS_SOURCE, not FETCHED                 the source, even with WRITTEN: that bit is set before the data has come
 *   WRITTEN, or HAS_SOURCE and FETCHED      the disk
 *   none of these                           the disk when writes are not tracked (who knows what was written?),
 *                                           nowhere when they are: the guest never wrote there
 *
 * A disk without metadata is the disk all over. What turns out to be all zeros costs a few bytes in the map.
 */
import { STRIPE_FLAG } from "../formats/metadata.ts";

export const STRIPE_FROM = { NOWHERE: 0, DISK: 1, SOURCE: 2 } as const;

export interface StripePlan {
  /** One of STRIPE_FROM a stripe, in memory shared with the threads that read. */
  readonly from: Uint8Array<SharedArrayBuffer>;
  readonly diskStripes: number;
  readonly sourceStripes: number;
}

/** @param isWriteTracked the disk's `track_written` */
export function planStripes(flags: Uint8Array, isWriteTracked: boolean): StripePlan {
  const from = new Uint8Array(new SharedArrayBuffer(flags.length));
  const stripes = [0, 0, 0];
  for (let stripe = 0; stripe < flags.length; stripe += 1) {
    const place = placeOf(flags[stripe] ?? 0, isWriteTracked);
    from[stripe] = place;
    stripes[place] = (stripes[place] ?? 0) + 1;
  }
  const [, diskStripes = 0, sourceStripes = 0] = stripes;
  return { from, diskStripes, sourceStripes };
}

// --- internal ---

const { FETCHED, WRITTEN, HAS_SOURCE } = STRIPE_FLAG;

function placeOf(flags: number, isWriteTracked: boolean): number {
  if ((flags & (HAS_SOURCE | FETCHED)) === HAS_SOURCE) {
    return STRIPE_FROM.SOURCE;
  }
  const isPresent = (flags & (WRITTEN | HAS_SOURCE)) !== 0;
  return isPresent || !isWriteTracked ? STRIPE_FROM.DISK : STRIPE_FROM.NOWHERE;
}
