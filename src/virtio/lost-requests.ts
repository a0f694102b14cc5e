/**
 * What a split ring alone tells of the requests that a dead back end had taken and not answered. Its front end
 * knows where the answers ended, so what is outstanding is a number; which ones it is shows only in what is left of
 * both rings: the heads that were offered last, and the last N that were answered.
 *
 *   offered               [U ......... A)     A = available index; what lies before may be written over by a driver
 *   answered   [U-N ...... U)                 U = used index; A - U are outstanding
 *
 * Those that were offered last are the outstanding ones where none of them was answered. A head that was offered at place
 * p can have been answered from place p+1-N on, not before: so many at most were outstanding then. Where requests end in
 * another order than they began, and heads are used again soon, an older one is open in place of one of these.
 *
 * A back end that died between writing answers and showing them wrote over the oldest of those places, as many as were
 * outstanding at most. An answer that stood there matters only if it came when the ring was almost full: all that were
 * outstanding then had heads of their own, and were answered at the places behind it, among fewer new requests than are
 * outstanding now. So where those places name a head again as often as that, there was no such answer.
 */

/** What `usedHead` tells of a place in which there never was an answer. */
export const NO_ANSWER = -1;

export interface LostRing {
  readonly entries: number;
  readonly availableIndex: number;
  readonly usedIndex: number;
  /** Heads by place; `index` runs freely. */
  readonly availableHead: (index: number) => number;
  /** `NO_ANSWER` where nothing was ever written. */
  readonly usedHead: (index: number) => number;
}

/** The heads of all outstanding requests, in the order in which they were offered; undefined when that is not certain. */
export function lostRequests(ring: LostRing): readonly number[] | undefined {
  const outstanding = (ring.availableIndex - ring.usedIndex) & 0xffff;
  if (outstanding > ring.entries) {
    return undefined;
  }
  const heads = new Set<number>();
  for (let ahead = 0; ahead < outstanding; ahead++) {
    const head = ring.availableHead(ring.usedIndex + ahead);
    if (wasAnswered(ring, head, ahead + 1 - ring.entries)) {
      return undefined;
    }
    heads.add(head);
  }
  const isCertain = heads.size === outstanding && isNothingHidden(ring, outstanding);
  return isCertain ? [...heads] : undefined;
}

/** A ring that no request has been answered in: whatever was offered is outstanding. */
export function isUntouched(ring: LostRing): boolean {
  if (ring.usedIndex !== 0) {
    return false;
  }
  for (let i = 0; i < ring.entries; i++) {
    if (ring.usedHead(i) !== NO_ANSWER) {
      return false;
    }
  }
  return true;
}

// --- internal ---

/** Whether no place that may have been written over held the answer to a request that looks outstanding. */
function isNothingHidden(ring: LostRing, outstanding: number): boolean {
  const heads = new Set<number>();
  let repeated = 0;
  for (let behind = outstanding - ring.entries; behind < 0; behind++) {
    const head = ring.usedHead(ring.usedIndex + behind);
    if (head === NO_ANSWER) {
      return true; // the ring is so young that there was nothing before
    }
    repeated += heads.has(head) ? 1 : 0;
    heads.add(head);
  }
  return repeated >= outstanding;
}

/** @param first place, counted from the used index */
function wasAnswered(ring: LostRing, head: number, first: number): boolean {
  for (let behind = first; behind < 0; behind++) {
    if (ring.usedHead(ring.usedIndex + behind) === head) {
      return true;
    }
  }
  return false;
}
