/**
 * Checked requests of a fuzzing guest: well-formed ones on the checked sectors, and wrong ones whose answer is known.
 * All that they are made of lies in the trusted half; each has a slot with header, status, table and data.
 */
import { REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import type { FuzzGuest } from "./fuzz-guest.ts";
import {
  CHECKED_SECTOR,
  CHECKED_SECTORS,
  DATA,
  DATA_BYTES,
  DATA_STRIDE,
  DEVICE_ID,
  DISK_SECTORS,
  guestAddress,
  HEADERS,
  LARGE_DATA,
  LARGE_DATA_BYTES,
  NOWHERE,
  SEGMENTS_MAX,
  SLOTS,
  STATUS_STRIDE,
  STATUSES,
  TABLE_BYTES,
  TABLES,
} from "./fuzz-layout.ts";
import { type Descriptor, writeDescriptor } from "./fuzz-ring.ts";
import type { FuzzSectors } from "./fuzz-sectors.ts";
import type { SeededRandom } from "./random.ts";

const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = REQUEST_TYPE;
const NEXT = 1;
const WRITE = 2;
const STATUS_UNSET = 0xee;
const GUARD = 0xa5;
const GUARD_BYTES = 64;
const UNTOUCHED = 0x5a;
const SECTOR_BYTES = 512;

/** What a slot waits for. */
interface Expected {
  status: number;
  /** Bytes that the device says it wrote. */
  length: number;
  /** Where the data lies: pairs of offset and length. */
  segments: number[];
  /** What the data must be afterwards; undefined where nobody can know. */
  data: Uint8Array | undefined;
}

export class FuzzRequests {
  readonly #guest: FuzzGuest;
  readonly #sectors: FuzzSectors;
  readonly #random: SeededRandom;
  readonly #isDiscardOffered: () => boolean;
  readonly #expected: Expected[] = Array.from({ length: SLOTS }, () => ({
    status: 0,
    length: 0,
    segments: [],
    data: undefined,
  }));
  readonly #data = Array.from({ length: SLOTS }, () => new Uint8Array(DATA_BYTES));
  readonly #largeData = new Uint8Array(LARGE_DATA_BYTES);
  /** Where the next transfer goes: requests of a batch never overlap, and often touch. */
  #sector = CHECKED_SECTOR;
  #sectorsLeft = 0;

  constructor(
    guest: FuzzGuest,
    sectors: FuzzSectors,
    random: SeededRandom,
    isDiscardOffered: () => boolean,
  ) {
    this.#guest = guest;
    this.#sectors = sectors;
    this.#random = random;
    this.#isDiscardOffered = isDiscardOffered;
    this.reset();
  }

  /** Forgets what was under way. */
  reset(): void {
    const { bytes } = this.#guest;
    bytes.fill(STATUS_UNSET, STATUSES, STATUSES + SLOTS * STATUS_STRIDE);
    bytes.fill(GUARD, DATA, LARGE_DATA + LARGE_DATA_BYTES + 4096);
  }

  /** From here on sectors may be used anew: nothing is under way. */
  beginBatch(): void {
    this.#sector = CHECKED_SECTOR + this.#random.below(CHECKED_SECTORS);
    this.#sectorsLeft = CHECKED_SECTORS;
  }

  /** The chain of any checked request. */
  any(slot: number): readonly Descriptor[] {
    const random = this.#random;
    switch (random.below(20)) {
      case 0:
      case 1:
        return this.#flush(slot);
      case 2:
        return this.#getId(slot);
      case 3:
        return this.#ranges(slot, random.oneIn(2) ? DISCARD : WRITE_ZEROES);
      case 4:
      case 5:
      case 6:
      case 7:
        return this.#wrong(slot);
      default:
        return this.transfer(slot, random.oneIn(2) ? IN : OUT);
    }
  }

  /** A read that is much larger than the device's buffers for one request. */
  large(slot: number): readonly Descriptor[] {
    const count = this.#random.between(513, LARGE_DATA_BYTES / SECTOR_BYTES - 16);
    const sector = this.#takeSectors(count);
    if (sector === undefined) {
      return this.#flush(slot);
    }
    const expected = this.#begin(slot, STATUS.OK, count * SECTOR_BYTES + 1);
    expected.segments.push(LARGE_DATA + 4096, count * SECTOR_BYTES);
    if (this.#sectors.isKnown(sector, count)) {
      this.#sectors.expected(sector, count, this.#largeData);
      expected.data = this.#largeData;
    }
    return this.#chain(slot, IN, sector, WRITE);
  }

  transfer(
    slot: number,
    type: number,
    sectorCount = this.#transferSectors(),
  ): readonly Descriptor[] {
    const sector = this.#takeSectors(sectorCount);
    if (sector === undefined) {
      return this.#flush(slot);
    }
    return this.transferAt(slot, type, sector, sectorCount);
  }

  /** A read or a write of these sectors, cut into segments of any size. */
  transferAt(slot: number, type: number, sector: number, count: number): readonly Descriptor[] {
    const bytes = count * SECTOR_BYTES;
    const data = this.#data[slot] ?? this.#largeData;
    const expected = this.#begin(slot, STATUS.OK, type === IN ? bytes + 1 : 1);
    this.#cut(slot, bytes, expected.segments);
    if (type === IN) {
      if (this.#sectors.isKnown(sector, count)) {
        this.#sectors.expected(sector, count, data);
        expected.data = data;
      }
      return this.#chain(slot, IN, sector, WRITE);
    }
    this.#sectors.write(sector, count, data);
    expected.data = data; // still there afterwards
    this.#fill(expected.segments, data);
    return this.#chain(slot, OUT, sector, 0);
  }

  /** Throws when what came is not what must come. */
  check(slot: number, length: number): void {
    const expected = this.#expected[slot] ?? this.#begin(slot, 0, 0);
    const { bytes } = this.#guest;
    const place = STATUSES + slot * STATUS_STRIDE;
    const status = bytes[place];
    const isNear = bytes[place - 1] !== STATUS_UNSET || bytes[place + 1] !== STATUS_UNSET;
    if (status !== expected.status || length !== expected.length || (slot > 0 && isNear)) {
      const wanted = `${expected.status} and ${expected.length} bytes`;
      throw new Error(`${this.#name(slot)}: status ${status} and ${length} bytes, not ${wanted}`);
    }
    bytes[place] = STATUS_UNSET;
    this.#checkData(slot, expected);
  }

  // --- internal: kinds of requests ---

  #flush(slot: number): readonly Descriptor[] {
    this.#begin(slot, STATUS.OK, 1);
    return this.#chain(slot, FLUSH, this.#random.pick([0, 7, DISK_SECTORS + 9]), 0);
  }

  #getId(slot: number): readonly Descriptor[] {
    const expected = this.#begin(slot, STATUS.OK, 21);
    this.#cut(slot, 20, expected.segments);
    expected.data = new Uint8Array(20);
    expected.data.set(Buffer.from(DEVICE_ID));
    return this.#chain(slot, GET_ID, 0, WRITE);
  }

  #ranges(slot: number, type: number): readonly Descriptor[] {
    const isOffered = type === WRITE_ZEROES || this.#isDiscardOffered();
    const expected = this.#begin(slot, isOffered ? STATUS.OK : STATUS.UNSUPPORTED, 1);
    const count = this.#random.between(1, 4);
    this.#cut(slot, count * 16, expected.segments);
    const data = new Uint8Array(count * 16);
    const view = new DataView(data.buffer);
    for (let i = 0; i < count; i++) {
      const sectorCount = this.#random.pick([1, 8, 8, 16, 33]);
      const sector = this.#takeSectors(sectorCount);
      if (sector === undefined) {
        return this.#flush(slot);
      }
      view.setBigUint64(i * 16, BigInt(sector), true);
      view.setUint32(i * 16 + 8, sectorCount, true);
      view.setUint32(i * 16 + 12, type === WRITE_ZEROES ? this.#random.below(2) : 0, true);
      if (!isOffered) {
        continue;
      }
      if (type === DISCARD) {
        this.#sectors.forget(sector, sectorCount);
      } else {
        this.#sectors.zero(sector, sectorCount);
      }
    }
    expected.data = data;
    this.#fill(expected.segments, data);
    return this.#chain(slot, type, 0, 0);
  }

  /** What no device may carry out: nothing is read, nothing is written but the status. */
  #wrong(slot: number): readonly Descriptor[] {
    const random = this.#random;
    const { IOERR, UNSUPPORTED } = STATUS;
    const expected = this.#begin(slot, IOERR, 1);
    this.#cut(slot, SECTOR_BYTES, expected.segments);
    expected.data = new Uint8Array(SECTOR_BYTES).fill(UNTOUCHED);
    this.#fill(expected.segments, expected.data);
    const last = expected.segments.at(-1) ?? 0;
    const beyond = random.pick([DISK_SECTORS, 2 ** 41, 2 ** 52, DISK_SECTORS + 1]);
    const absent = { address: NOWHERE, length: SECTOR_BYTES };
    const header = this.#header(slot, IN, CHECKED_SECTOR);
    const status = this.#status(slot);
    switch (random.below(10)) {
      case 0:
        return this.#chain(slot, IN, beyond, WRITE);
      case 1:
        return this.#chain(slot, OUT, beyond, 0);
      case 2:
        expected.status = UNSUPPORTED;
        return this.#chain(slot, random.pick([2, 3, 0xdead, 2 ** 31, 255]), CHECKED_SECTOR, 0);
      case 3: // a read into what may only be read
        return this.#chain(slot, IN, CHECKED_SECTOR, 0);
      case 4: // a write from what may only be written
        return this.#chain(slot, OUT, CHECKED_SECTOR, WRITE);
      case 5:
        return [header, { ...absent, flags: WRITE }, status];
      case 6:
        return [this.#header(slot, OUT, CHECKED_SECTOR), { ...absent, flags: 0 }, status];
      case 7: // half a header
        return [{ ...header, length: random.between(0, 15) }, status];
      case 8: // no place for a status
        expected.status = STATUS_UNSET;
        expected.length = 0;
        return [this.#header(slot, OUT, CHECKED_SECTOR), { ...status, flags: 0 }];
      default: // a sector that is cut off
        expected.segments[expected.segments.length - 1] = last - 1;
        expected.data = expected.data.subarray(0, SECTOR_BYTES - 1);
        this.#guest.bytes[(expected.segments.at(-2) ?? 0) + last - 1] = GUARD;
        return this.#chain(slot, OUT, CHECKED_SECTOR, 0);
    }
  }

  // --- internal: memory ---

  #begin(slot: number, status: number, length: number): Expected {
    const expected = this.#expected[slot];
    if (expected === undefined) {
      throw new Error(`there is no slot ${slot}`);
    }
    expected.status = status;
    expected.length = length;
    expected.segments.length = 0;
    expected.data = undefined;
    return expected;
  }

  /** Header, the slot's segments in one direction, status. */
  #chain(slot: number, type: number, sector: number, direction: number): readonly Descriptor[] {
    const header = this.#header(slot, type, sector);
    const chain: Descriptor[] = [];
    if (this.#random.oneIn(10)) {
      const cut = this.#random.between(1, 15);
      chain.push({ ...header, length: cut });
      chain.push({ address: header.address + cut, length: 16 - cut, flags: 0 });
    } else {
      chain.push(header);
    }
    const { segments } = this.#expected[slot] ?? this.#begin(slot, 0, 0);
    for (let i = 0; i < segments.length; i += 2) {
      const [offset = 0, length = 0] = [segments[i], segments[i + 1]];
      chain.push({ address: guestAddress(offset), length, flags: direction });
    }
    chain.push(this.#status(slot));
    return chain;
  }

  #header(slot: number, type: number, sector: number): Descriptor {
    const { words } = this.#guest;
    const place = HEADERS / 4 + slot * 4;
    words[place] = type;
    words[place + 1] = this.#random.below(4);
    words[place + 2] = sector % 2 ** 32;
    words[place + 3] = Math.floor(sector / 2 ** 32);
    return { address: guestAddress(HEADERS + slot * 16), length: 16, flags: 0 };
  }

  #status(slot: number): Descriptor {
    return { address: guestAddress(STATUSES + slot * STATUS_STRIDE), length: 1, flags: WRITE };
  }

  /** Where the data of a slot begins, aligned or not. */
  #place(slot: number): number {
    const shift = this.#random.oneIn(2) ? 0 : this.#random.pick([512, 16, 1, 7, 2048]);
    return DATA + slot * DATA_STRIDE + 4096 + shift;
  }

  #cut(slot: number, bytes: number, segments: number[]): void {
    let offset = this.#place(slot);
    const end = DATA + (slot + 1) * DATA_STRIDE;
    const parts = this.#random.pick([1, 1, 1, 2, 3, 8, SEGMENTS_MAX]);
    let left = bytes;
    for (let part = 1; left > 0; part++) {
      const length = part === parts ? left : Math.min(left, this.#random.between(1, left));
      segments.push(offset, length);
      left -= length;
      const gap = this.#random.pick([0, 0, 0, 8, 512]);
      offset += length + (offset + length + left + gap + GUARD_BYTES <= end ? gap : 0);
    }
  }

  #fill(segments: readonly number[], data: Uint8Array): void {
    let done = 0;
    for (let i = 0; i < segments.length; i += 2) {
      const [offset = 0, length = 0] = [segments[i], segments[i + 1]];
      this.#guest.bytes.set(data.subarray(done, done + length), offset);
      done += length;
    }
  }

  /** Data, and what lies around it, which is made a guard again. */
  #checkData(slot: number, { segments, data }: Expected): void {
    const { bytes } = this.#guest;
    let done = 0;
    for (let i = 0; i < segments.length; i += 2) {
      const [offset = 0, length = 0] = [segments[i], segments[i + 1]];
      const wanted = data?.subarray(done, done + length);
      done += length;
      if (wanted !== undefined && !isSame(bytes, offset, wanted)) {
        throw new Error(`${this.#name(slot)}: other data than it must be, in segment ${i / 2}`);
      }
      bytes.fill(GUARD, offset, offset + length);
    }
    const [first] = segments;
    const last = (segments.at(-2) ?? 0) + (segments.at(-1) ?? 0);
    if (first !== undefined && !(isGuard(bytes, first - GUARD_BYTES) && isGuard(bytes, last))) {
      throw new Error(`${this.#name(slot)}: memory beside its data was written`);
    }
  }

  // --- internal: sectors ---

  #transferSectors(): number {
    return this.#random.pick([1, 1, 1, 2, 3, 7, 8, 8, 8, 9, 16, 32]);
  }

  /** The next sectors of this batch; undefined when none are left. */
  #takeSectors(count: number): number | undefined {
    const gap = this.#random.oneIn(3) ? this.#random.below(20) : 0;
    const end = CHECKED_SECTOR + CHECKED_SECTORS;
    const isAround = this.#sector + gap + count > end;
    const skipped = isAround ? end - this.#sector : gap;
    if (skipped + count > this.#sectorsLeft) {
      return undefined;
    }
    this.#sectorsLeft -= skipped + count;
    const start = isAround ? CHECKED_SECTOR : this.#sector + gap;
    this.#sector = start + count;
    return start;
  }

  #name(slot: number): string {
    const { words } = this.#guest;
    const place = HEADERS / 4 + slot * 4;
    const sector = (words[place + 2] ?? 0) + (words[place + 3] ?? 0) * 2 ** 32;
    const segments = JSON.stringify(this.#expected[slot]?.segments);
    return `request of type ${words[place]} at sector ${sector} with segments ${segments}`;
  }
}

/** Puts a chain into the table of a slot, which is all of it for a packed ring. Returns where that is. */
export function writeTable(guest: FuzzGuest, slot: number, chain: readonly Descriptor[]): number {
  const table = TABLES + slot * TABLE_BYTES;
  chain.forEach((descriptor, i) => {
    const link = i + 1 < chain.length ? NEXT | ((i + 1) << 16) : 0;
    const last = guest.ring.isPacked ? descriptor.flags << 16 : descriptor.flags | link;
    writeDescriptor(guest.words, table + i * 16, descriptor, last);
  });
  return table;
}

function isSame(bytes: Uint8Array, offset: number, wanted: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(offset, offset + wanted.length), wanted) === 0;
}

const GUARDS = new Uint8Array(GUARD_BYTES).fill(GUARD);

function isGuard(bytes: Uint8Array, offset: number): boolean {
  return isSame(bytes, offset, GUARDS);
}
