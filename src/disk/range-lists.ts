/**
 * The ranges of DISCARD and WRITE_ZEROES requests, by slot: copied once from guest memory, which the guest may
 * change at any time, and checked as a whole before the first of them is carried out.
 *
 *   range    | sector: u64 | sectors: u32 | flags: u32 |   little endian (virtio 5.2.6), at most 32 a request
 */
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { copyMemory } from "../ffi/memory.ts";
import { f64, i32, join64, u32 } from "../ffi/view.ts";
import { SECTOR_BYTES, SEGMENT_BYTES, SEGMENT_UNMAP } from "../formats/virtio-blk.ts";
import { Operation, Outcome, type RequestTable } from "./request-table.ts";

/** Limits that the config space announces. */
export const RANGES_MAX = 32;
export const DISCARD_SECTORS_MAX = 4 * 1024 * 1024;
export const WRITE_ZEROES_SECTORS_MAX = 64 * 1024;

const RANGE_WORDS = SEGMENT_BYTES / 4;
const LIST_WORDS = RANGES_MAX * RANGE_WORDS;

export class RangeLists implements Disposable {
  readonly #requests: RequestTable;
  #diskSectors: number;
  readonly #arena: Arena;
  readonly #words: ArenaView<Uint32Array>;
  readonly #count: Int32Array;

  constructor(requests: RequestTable, diskSectors: number) {
    this.#requests = requests;
    this.#diskSectors = diskSectors;
    this.#arena = new Arena(RangeLists.listBytes(requests.slotsMax));
    this.#words = this.#arena.words(requests.slotsMax * LIST_WORDS);
    this.#count = new Int32Array(requests.slotsMax);
  }

  static listBytes(slots: number): number {
    return slots * LIST_WORDS * 4;
  }

  /** Lists that are loaded from here on may lie in a larger disk. */
  grow(diskSectors: number): void {
    this.#diskSectors = diskSectors;
  }

  /** Reads and checks the list of a request. Returns an outcome. */
  load(slot: number): number {
    this.#count[slot] = 0;
    const bytes = f64(this.#requests.bytes, slot);
    if (bytes === 0 || bytes % SEGMENT_BYTES !== 0 || bytes > RANGES_MAX * SEGMENT_BYTES) {
      return Outcome.ioError;
    }
    this.#copy(slot, bytes);
    const count = bytes / SEGMENT_BYTES;
    for (let range = 0; range < count; range++) {
      const outcome = this.#check(slot, range);
      if (outcome !== Outcome.ok) {
        return outcome;
      }
    }
    this.#count[slot] = count;
    return Outcome.ok;
  }

  // Of a list that was loaded:

  count(slot: number): number {
    return i32(this.#count, slot);
  }

  sector(slot: number, range: number): number {
    const place = placeOf(slot, range);
    return join64(u32(this.#words.view, place), u32(this.#words.view, place + 1));
  }

  sectorCount(slot: number, range: number): number {
    return u32(this.#words.view, placeOf(slot, range) + 2);
  }

  /** Of all its ranges; 0 for a list that was not accepted. */
  bytes(slot: number): number {
    let sectors = 0;
    for (let range = 0; range < this.count(slot); range++) {
      sectors += this.sectorCount(slot, range);
    }
    return sectors * SECTOR_BYTES;
  }

  /** The blocks may be freed. */
  mayUnmap(slot: number, range: number): boolean {
    return (this.#flags(slot, range) & SEGMENT_UNMAP) !== 0;
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }

  // --- internal ---

  #check(slot: number, range: number): number {
    const isDiscard = this.#requests.operation[slot] === Operation.discard;
    const flags = this.#flags(slot, range);
    if ((flags & ~SEGMENT_UNMAP) !== 0 || (isDiscard && flags !== 0)) {
      return Outcome.unsupported; // virtio 5.2.6.2
    }
    const sectors = this.sectorCount(slot, range);
    const sectorsMax = isDiscard ? DISCARD_SECTORS_MAX : WRITE_ZEROES_SECTORS_MAX;
    const isInside = this.sector(slot, range) + sectors <= this.#diskSectors;
    return sectors <= sectorsMax && isInside ? Outcome.ok : Outcome.ioError;
  }

  #flags(slot: number, range: number): number {
    return u32(this.#words.view, placeOf(slot, range) + 3);
  }

  #copy(slot: number, bytes: number): void {
    const requests = this.#requests;
    const target = this.#words.address + slot * LIST_WORDS * 4;
    let done = 0;
    for (let place = i32(requests.segmentStart, slot); done < bytes; place++) {
      const length = u32(requests.segmentLength, place);
      copyMemory(target + done, f64(requests.segmentAddress, place), length);
      done += length;
    }
  }
}

function placeOf(slot: number, range: number): number {
  return slot * LIST_WORDS + range * RANGE_WORDS;
}
