/**
 * What a region of requests in flight says when a packed ring starts: which of them the driver still waits for, and
 * where the ring goes on. The region is the front end's, so nothing it says is believed before it fits together;
 * what does not fit leaves the ring alone: a request done twice or never is worse.
 *
 * Every entry belongs to the free list, which ends with FREE_END, or to one chain:
 *
 *   free_head -> entry -> entry -> FREE_END          entry in flight -> entry ... (num of them, the last is `last`)
 */
import { viewOf } from "../ffi/memory.ts";
import {
  FREE_END,
  PACKED_ENTRY,
  PACKED_ENTRY_BYTES,
  PACKED_FIELD,
  PACKED_HEADER_BYTES,
  packedRegionBytes,
  REGION_FIELD,
  REGION_VERSION,
} from "../formats/inflight-region.ts";
import {
  availableBits,
  LAP_BIT,
  OWNER_MASK,
  PACKED_NEXT,
  PLACE_MASK,
} from "../formats/packed-ring.ts";
import type { PackedNotes } from "./packed-inflight.ts";
import { isPositionOf, NO_POSITION } from "./packed-position.ts";

export interface PackedChain {
  /** Of the region. */
  readonly entry: number;
  readonly last: number;
  readonly id: number;
  /** Four words a descriptor, as in a ring. */
  readonly words: readonly number[];
}

export interface PackedRecovery extends PackedNotes {
  /** To be done again, in the order in which they were taken. */
  readonly chains: readonly PackedChain[];
  /** Where used descriptors go on; undefined where the region is new and knows nothing of it. */
  readonly usedPosition: number | undefined;
}

/**
 * Reads the region and puts it in order.
 * @param entries that the region was made for
 * @param position where the ring goes on as the front end says
 * @param ring its descriptors, as words
 * @returns what to do, or why the region and the ring do not belong together
 */
export function recoverPacked(
  address: number,
  entries: number,
  position: number,
  ring: Int32Array,
): PackedRecovery | string {
  const bytes = new Uint8Array(viewOf(address, packedRegionBytes(entries)));
  const region = new PackedRegion(bytes, entries);
  // What is decided is decided by a copy: the front end can change the region meanwhile.
  const copy = new PackedRegion(bytes.slice(), entries);
  if (copy.version === 0) {
    if (!isPositionOf(ring, position)) {
      return NO_POSITION;
    }
    bytes.fill(0, REGION_FIELD.version); // the features are not the ring's
    region.begin(position);
    return {
      entries,
      next: region.links(),
      freeHead: 0,
      counter: 0n,
      chains: [],
      usedPosition: undefined,
    };
  }
  if (copy.version !== REGION_VERSION) {
    return `its version is ${copy.version}, known is ${REGION_VERSION}`;
  }
  if (copy.entriesNoted !== entries) {
    return `it was kept for ${copy.entriesNoted} entries, not for ${entries}`;
  }
  const ringEntries = ring.length / 4;
  const places = [copy.used, copy.oldUsed].map((each) => each & PLACE_MASK);
  if (places.some((place) => place >= ringEntries)) {
    return "the place of its last answer is outside the ring";
  }
  const isShown = isBatchShown(copy, ring);
  const freeHead = isShown ? copy.freeHead : copy.oldFreeHead;
  const usedPosition = isShown ? copy.used : copy.oldUsed;
  const free = freeEntries(copy, freeHead);
  const chains = free === undefined ? "its free list goes in circles" : chainsOf(copy, free);
  if (free === undefined || typeof chains === "string") {
    return typeof chains === "string" ? chains : "its free list goes in circles";
  }
  const count = chains.reduce((sum, { words }) => sum + words.length / 4, 0);
  if (count > ringEntries) {
    return `it has ${count} descriptors in flight, the ring ${ringEntries}`;
  }
  region.settle({ free, isShown, freeHead, usedPosition });
  return {
    entries,
    next: copy.links(),
    freeHead,
    counter: nextCounter(copy, chains),
    chains,
    usedPosition,
  };
}

// --- internal ---

/** Whether what the region says last is what holds; otherwise it is what it said before. */
function isBatchShown(region: PackedRegion, ring: Int32Array): boolean {
  if (region.freeHead === region.oldFreeHead) {
    return true; // settled, but perhaps for the old position
  }
  if (region.used === region.oldUsed) {
    return false; // while a chain was taken, or a batch linked
  }
  const place = region.oldUsed & PLACE_MASK;
  const tail = ring[place * 4 + 3] ?? 0;
  return (tail & OWNER_MASK) !== availableBits(region.oldUsed & LAP_BIT);
}

function freeEntries(region: PackedRegion, head: number): ReadonlySet<number> | undefined {
  const free = new Set<number>();
  // The specification names no end: others than FREE_END, such as the number of entries, are written too.
  for (let entry = head; entry < region.entries; entry = region.next(entry)) {
    if (free.has(entry)) {
      return undefined;
    }
    free.add(entry);
  }
  return free;
}

/** The chains in flight, oldest first. */
function chainsOf(
  region: PackedRegion,
  free: ReadonlySet<number>,
): readonly PackedChain[] | string {
  const seen = new Set(free);
  const found: PackedChain[] = [];
  for (let entry = 0; entry < region.entries; entry++) {
    const flag = region.flag(entry);
    if (flag > 1) {
      return "it marks requests with other values than 0 and 1";
    }
    if (flag === 1 && !free.has(entry)) {
      const chain = chainAt(region, entry, seen);
      if (chain === undefined) {
        return `the descriptors of its entry ${entry} are no chain`;
      }
      found.push(chain);
    }
  }
  if (seen.size !== region.entries) {
    return `${region.entries - seen.size} of its entries belong to nothing`;
  }
  const counters = new Set(found.map(({ entry }) => region.counter(entry)));
  if (counters.size !== found.length) {
    return "two requests in flight have the same counter";
  }
  return found.toSorted((a, b) => (region.counter(a.entry) < region.counter(b.entry) ? -1 : 1));
}

function chainAt(region: PackedRegion, head: number, seen: Set<number>): PackedChain | undefined {
  const words: number[] = [];
  const count = region.number(head);
  let entry = head;
  for (let i = 0; i < count; i++) {
    entry = i === 0 ? head : region.next(entry);
    if (entry >= region.entries || seen.has(entry)) {
      return undefined;
    }
    seen.add(entry);
    const descriptor = region.descriptor(entry);
    const hasNext = ((descriptor[3] ?? 0) & PACKED_NEXT) !== 0;
    if (hasNext !== i + 1 < count) {
      return undefined;
    }
    words.push(...descriptor);
  }
  const isWhole = count > 0 && entry === region.last(head);
  return isWhole
    ? { entry: head, last: entry, id: (words.at(-1) ?? 0) & 0xffff, words }
    : undefined;
}

function nextCounter(region: PackedRegion, chains: readonly PackedChain[]): bigint {
  const last = chains.at(-1);
  return last === undefined ? 0n : region.counter(last.entry) + 1n;
}

/** The fields of a region; not for the time of requests. */
class PackedRegion {
  readonly entries: number;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, entries: number) {
    this.entries = entries;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get version(): number {
    return this.#half(REGION_FIELD.version);
  }

  get entriesNoted(): number {
    return this.#half(REGION_FIELD.entries);
  }

  get freeHead(): number {
    return this.#half(PACKED_FIELD.freeHead);
  }

  get oldFreeHead(): number {
    return this.#half(PACKED_FIELD.oldFreeHead);
  }

  /** Positions: place and lap. */
  get used(): number {
    return this.#position(PACKED_FIELD.usedPlace, PACKED_FIELD.usedLap);
  }

  get oldUsed(): number {
    return this.#position(PACKED_FIELD.oldUsedPlace, PACKED_FIELD.oldUsedLap);
  }

  flag(entry: number): number {
    return this.#view.getUint8(placeOf(entry));
  }

  next(entry: number): number {
    return this.#half(placeOf(entry) + PACKED_ENTRY.next);
  }

  last(entry: number): number {
    return this.#half(placeOf(entry) + PACKED_ENTRY.last);
  }

  number(entry: number): number {
    return this.#half(placeOf(entry) + PACKED_ENTRY.number);
  }

  counter(entry: number): bigint {
    return this.#view.getBigUint64(placeOf(entry) + PACKED_ENTRY.counter, true);
  }

  descriptor(entry: number): readonly number[] {
    const at = placeOf(entry);
    const { address, length, id } = PACKED_ENTRY;
    return [at + address, at + address + 4, at + length, at + id].map((offset) =>
      this.#view.getUint32(offset, true),
    );
  }

  links(): Uint16Array {
    return Uint16Array.from({ length: this.entries }, (_, entry) => this.next(entry));
  }

  /** Of a region that holds nothing. The version comes last: it says that the rest is there. */
  begin(position: number): void {
    this.#view.setUint16(REGION_FIELD.entries, this.entries, true);
    for (let entry = 0; entry < this.entries; entry++) {
      const next = entry + 1 < this.entries ? entry + 1 : FREE_END;
      this.#view.setUint16(placeOf(entry) + PACKED_ENTRY.next, next, true);
    }
    this.#setPosition(PACKED_FIELD.usedPlace, PACKED_FIELD.usedLap, position);
    this.#setPosition(PACKED_FIELD.oldUsedPlace, PACKED_FIELD.oldUsedLap, position);
    this.#view.setUint16(REGION_FIELD.version, REGION_VERSION, true);
  }

  /** What is free is not in flight, and old and new agree. Killed in here, the same is found again. */
  settle(found: {
    readonly free: ReadonlySet<number>;
    readonly isShown: boolean;
    readonly freeHead: number;
    readonly usedPosition: number;
  }): void {
    for (const entry of found.free) {
      this.#view.setUint8(placeOf(entry), 0);
    }
    if (found.isShown) {
      this.#view.setUint16(PACKED_FIELD.oldFreeHead, found.freeHead, true);
      const { oldUsedPlace, oldUsedLap } = PACKED_FIELD;
      this.#setPosition(oldUsedPlace, oldUsedLap, found.usedPosition);
    } else {
      this.#setPosition(PACKED_FIELD.usedPlace, PACKED_FIELD.usedLap, found.usedPosition);
      this.#view.setUint16(PACKED_FIELD.freeHead, found.freeHead, true);
    }
  }

  // --- internal ---

  #half(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  #position(place: number, lap: number): number {
    return (this.#half(place) & PLACE_MASK) | (this.#view.getUint8(lap) === 0 ? 0 : LAP_BIT);
  }

  #setPosition(place: number, lap: number, position: number): void {
    this.#view.setUint16(place, position & PLACE_MASK, true);
    this.#view.setUint8(lap, (position & LAP_BIT) === 0 ? 0 : 1);
  }
}

function placeOf(entry: number): number {
  return PACKED_HEADER_BYTES + entry * PACKED_ENTRY_BYTES;
}
