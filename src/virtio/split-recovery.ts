/**
 * What a region of requests in flight says when a ring starts: which of them the driver still waits for, and
 * where the ring goes on. The region and the ring are the front end's, so nothing they say is believed before
 * it fits together; what does not fit leaves the ring alone: a request done twice or never is worse.
 */
import { viewOf } from "../ffi/memory.ts";
import {
  ENTRY_FIELD,
  REGION_FIELD,
  REGION_VERSION,
  SPLIT_ENTRY_BYTES,
  SPLIT_HEADER_BYTES,
  splitRegionBytes,
} from "../formats/inflight-region.ts";

/** A ring as it was found. */
export interface FoundRing {
  readonly entries: number;
  readonly availableIndex: number;
  readonly usedIndex: number;
  /** The head in a place of the available ring; `index` runs freely. */
  readonly availableHead: (index: number) => number;
}

export interface SplitRecovery {
  /** Heads to be done again, in the order in which they were taken. */
  readonly heads: readonly number[];
  /** Of the next request. */
  readonly counter: bigint;
  /** Index of the next chain to take; undefined where the region is new and knows nothing of it. */
  readonly nextAvailable: number | undefined;
}

interface Entry {
  readonly head: number;
  readonly counter: bigint;
}

/**
 * Reads the region and puts it in order.
 * @param entries that the region was made for
 * @returns what to do, or why the region and the ring do not belong together
 */
export function recoverSplit(
  address: number,
  entries: number,
  ring: FoundRing,
): SplitRecovery | string {
  const bytes = new Uint8Array(viewOf(address, splitRegionBytes(entries)));
  const region = new SplitRegion(bytes, entries);
  // What is decided is decided by a copy: the front end can change the region meanwhile.
  const copy = new SplitRegion(bytes.slice(), entries);
  if (copy.version === 0) {
    bytes.fill(0, REGION_FIELD.version); // the features are not the ring's
    region.begin(ring.usedIndex);
    return { heads: [], counter: 0n, nextAvailable: undefined };
  }
  if (copy.version !== REGION_VERSION) {
    return `its version is ${copy.version}, known is ${REGION_VERSION}`;
  }
  if (copy.entriesNoted !== entries) {
    return `it was kept for ${copy.entriesNoted} entries, not for ${entries}`;
  }
  const outstanding = (ring.availableIndex - ring.usedIndex) & 0xffff;
  const inFlight = outstanding === 0 ? [] : inFlightOf(copy, ring);
  if (typeof inFlight === "string") {
    return inFlight;
  }
  const fault = faultOf(inFlight, outstanding, ring);
  if (fault !== undefined) {
    return fault;
  }
  const heads = inFlight.map(({ head }) => head);
  region.settle(heads, ring.usedIndex);
  const last = inFlight.at(-1);
  return {
    heads,
    counter: last === undefined ? 0n : last.counter + 1n,
    nextAvailable: (ring.usedIndex + heads.length) & 0xffff,
  };
}

// --- internal ---

/** What is in flight less the last batch, where that was shown before it could be taken out. Oldest first. */
function inFlightOf(region: SplitRegion, ring: FoundRing): readonly Entry[] | string {
  const found = region.inFlight();
  if (found === undefined) {
    return "it marks requests with other values than 0 and 1";
  }
  const shown = shownHeads(region, (ring.usedIndex - region.usedIndex) & 0xffff);
  if (shown === undefined && found.length > 0) {
    return "its list of the last answers goes in circles or leads out of it";
  }
  return found
    .filter(({ head }) => shown?.has(head) !== true)
    .toSorted((a, b) => (a.counter < b.counter ? -1 : a.counter > b.counter ? 1 : 0));
}

/** The list of the last batch, or undefined when it is none of that length. */
function shownHeads(region: SplitRegion, count: number): ReadonlySet<number> | undefined {
  const heads = new Set<number>();
  let head = region.lastBatchHead;
  for (let i = 0; i < count; i++) {
    if (head >= region.entries || heads.has(head)) {
      return undefined;
    }
    heads.add(head);
    head = region.next(head);
  }
  return heads;
}

/** Why requests that are said to be in flight cannot be those of this ring. */
function faultOf(
  inFlight: readonly Entry[],
  outstanding: number,
  ring: FoundRing,
): string | undefined {
  if (inFlight.length === 0) {
    return undefined;
  }
  if (outstanding > ring.entries) {
    return "the available index is further ahead than the ring is large";
  }
  if (inFlight.length > outstanding) {
    return `it has ${inFlight.length} requests in flight, the ring ${outstanding}`;
  }
  const heads = new Set(inFlight.map(({ head }) => head));
  if (inFlight.some(({ head }) => head >= ring.entries)) {
    return "a request in flight is outside the ring";
  }
  if (new Set(inFlight.map(({ counter }) => counter)).size !== inFlight.length) {
    return "two requests in flight have the same counter";
  }
  for (let i = inFlight.length; i < outstanding; i++) {
    if (heads.has(ring.availableHead(ring.usedIndex + i))) {
      return "a request in flight waits to be taken as well";
    }
  }
  return undefined;
}

/** The fields of a region; not for the time of requests. */
class SplitRegion {
  readonly entries: number;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, entries: number) {
    this.entries = entries;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get version(): number {
    return this.#view.getUint16(REGION_FIELD.version, true);
  }

  get entriesNoted(): number {
    return this.#view.getUint16(REGION_FIELD.entries, true);
  }

  get lastBatchHead(): number {
    return this.#view.getUint16(REGION_FIELD.lastBatchHead, true);
  }

  get usedIndex(): number {
    return this.#view.getUint16(REGION_FIELD.usedIndex, true);
  }

  next(head: number): number {
    return this.#view.getUint16(placeOf(head) + ENTRY_FIELD.next, true);
  }

  /** Undefined when a flag is none. */
  inFlight(): readonly Entry[] | undefined {
    const found: Entry[] = [];
    for (let head = 0; head < this.entries; head++) {
      const flag = this.#view.getUint8(placeOf(head) + ENTRY_FIELD.isInFlight);
      if (flag > 1) {
        return undefined;
      }
      if (flag === 1) {
        const counter = this.#view.getBigUint64(placeOf(head) + ENTRY_FIELD.counter, true);
        found.push({ head, counter });
      }
    }
    return found;
  }

  /** Of a region that holds nothing. The version comes last: it says that the rest is there. */
  begin(usedIndex: number): void {
    this.#view.setUint16(REGION_FIELD.entries, this.entries, true);
    this.#view.setUint16(REGION_FIELD.usedIndex, usedIndex, true);
    this.#view.setUint16(REGION_FIELD.version, REGION_VERSION, true);
  }

  /** In flight are these and no others. Killed in here, the same is found again. */
  settle(inFlight: readonly number[], usedIndex: number): void {
    const heads = new Set(inFlight);
    for (let head = 0; head < this.entries; head++) {
      if (!heads.has(head)) {
        this.#view.setUint8(placeOf(head) + ENTRY_FIELD.isInFlight, 0);
      }
    }
    this.#view.setUint16(REGION_FIELD.usedIndex, usedIndex, true);
  }
}

function placeOf(head: number): number {
  return SPLIT_HEADER_BYTES + head * SPLIT_ENTRY_BYTES;
}
