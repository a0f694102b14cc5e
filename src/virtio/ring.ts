/** A virtqueue's ring: one kind or the other, for as long as a driver runs, with the same methods. */
import type { DirtyLog } from "./dirty-log.ts";
import { PackedRing } from "./packed-ring.ts";
import { type RingAreas, type RingNotes, SplitRing } from "./split-ring.ts";

export type Ring = SplitRing | PackedRing;

export interface OpenedRing {
  readonly ring: Ring;
  /** Why the ring must be left alone. */
  readonly fault: string | undefined;
}

/**
 * @param next index, or position in a packed ring, of the first chain to take
 * @param notes where requests under way are noted, and were by a back end before this one
 * @param isForeign nobody here stopped the ring there: a back end before this one may have died with requests under way
 */
export function openRing(options: {
  readonly isPacked: boolean;
  readonly areas: RingAreas;
  readonly next: number;
  readonly hasEventIndex: boolean;
  readonly notes: RingNotes | undefined;
  readonly isForeign: boolean;
  readonly dirtyLog: DirtyLog;
}): OpenedRing {
  const { isPacked, areas, next, hasEventIndex, notes, isForeign, dirtyLog } = options;
  const ring = isPacked
    ? new PackedRing(areas, next, hasEventIndex, dirtyLog)
    : new SplitRing(areas, next, hasEventIndex, dirtyLog);
  if (notes !== undefined) {
    const fault = ring.resume(notes);
    return { ring, fault: fault && `its in-flight region does not fit: ${fault}` };
  }
  return { ring, fault: isForeign || isPacked ? ring.resumeWithoutNotes() : undefined };
}
