/**
 * Reads one chain of a block device's queue (virtio 1.2, 5.2.6): header, data, status. The chain is the
 * guest's and hostile until proven otherwise: every descriptor is read once, translated and bounded.
 *
 *   readable                      writable
 *   | header 16 | data (OUT) |    | data (IN) | status 1 |      any split into descriptors (2.7.4.2)
 *
 * What can be wrong ends in a verdict, never in an exception:
 *   ok        all is there; data that lies outside guest memory is told by `isDataMapped`
 *   bad       no request can be read from it; `statusAddress` is set when it still has a writable tail
 *
 * Cost: about 10 ns a descriptor. An indirect table is copied once, by one native call for the first
 * WINDOW_ENTRIES of it; what lies behind them is fetched one by one.
 */
import { Arena } from "../ffi/arena.ts";
import { copyMemory, load16 } from "../ffi/memory.ts";
import { f64, join64, u32 } from "../ffi/view.ts";
import { PACKED_INDIRECT, PACKED_NEXT, PACKED_WRITE } from "../formats/packed-ring.ts";
import { REQUEST_HEADER_BYTES, REQUEST_TYPE } from "../formats/virtio-blk.ts";
import {
  DESCRIPTOR_BYTES,
  DESCRIPTOR_INDIRECT,
  DESCRIPTOR_NEXT,
  DESCRIPTOR_WRITE,
} from "../formats/virtio-ring.ts";
import type { GuestMemory } from "./guest-memory.ts";
import type { PackedRing } from "./packed-ring.ts";
import type { Ring } from "./ring.ts";
import type { SplitRing } from "./split-ring.ts";

/**
 * Entries of an indirect table, and segments of one chain with its header and status: the largest ring
 * there is. A descriptor is one segment unless it crosses regions.
 */
const DESCRIPTORS_MAX = 32_768;
/** Of a table; most chains of a guest are shorter. */
const WINDOW_ENTRIES = 16;
const DESCRIPTOR_WORDS = DESCRIPTOR_BYTES / 4;
const LENGTH_MAX = 2 ** 32 - 1;
const UNMAPPED = -1;

/** Of a chain whose end is not to be found. */
export const NO_TICKET = -1;

export class BlockChain {
  /** Of the last chain read: */
  type = 0;
  /** What its ring takes and answers it by; NO_TICKET breaks a packed ring, where the next chain is not to be found either. */
  ticket = 0;
  sector = 0;
  /** Places of the data segments in `address` and `length`, and their number. */
  dataStart = 0;
  dataCount = 0;
  dataBytes = 0;
  isDataMapped = true;
  /** Where the status byte goes, or 0. */
  statusAddress = 0;
  /** Host address (UNMAPPED outside guest memory) and length of each segment. */
  readonly address = new Float64Array(DESCRIPTORS_MAX);
  readonly length = new Uint32Array(DESCRIPTORS_MAX);

  readonly #memory: GuestMemory;
  readonly #arena = new Arena(4096);
  readonly #header = this.#arena.words(REQUEST_HEADER_BYTES / 4);
  /** The beginning of an indirect table, and one place for a later entry. */
  readonly #window = this.#arena.words((WINDOW_ENTRIES + 1) * DESCRIPTOR_WORDS);
  #count = 0;
  #readableCount = 0;
  #readableBytes = 0;
  #totalBytes = 0;
  /** Of the last descriptor: its first segment, its length and its direction. */
  #lastStart = 0;
  #lastLength = 0;
  #isLastWritable = false;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Reads the chain that starts at `head`. True when it holds a request. */
  read(ring: Ring, head: number): boolean {
    this.type = 0;
    this.sector = 0;
    this.statusAddress = 0;
    this.dataCount = 0;
    this.dataBytes = 0;
    this.isDataMapped = true;
    this.ticket = head;
    if (!(ring.isPacked ? this.#walkPacked(ring, head) : this.#walk(ring, head))) {
      return false;
    }
    const hasHeader = this.#readHeader();
    const isIn = hasHeader && (this.type === REQUEST_TYPE.IN || this.type === REQUEST_TYPE.GET_ID);
    return this.#splitStatus(isIn) && hasHeader && this.#splitData(isIn);
  }

  // --- internal ---

  /** Collects all segments, in locals: most of a request's cost is here. False when the chain breaks off. */
  #walk(ring: SplitRing, head: number): boolean {
    let words = ring.descriptors;
    let entries = ring.entries;
    let tableAddress = 0;
    let index = head;
    let count = 0;
    let readableCount = 0;
    let readableBytes = 0;
    let totalBytes = 0;
    let isWritable = false;
    for (let budget = entries; budget > 0; budget--) {
      if (index >= entries) {
        return false;
      }
      const place =
        index < WINDOW_ENTRIES || tableAddress === 0 ? index : this.#fetch(tableAddress, index);
      const at = place * DESCRIPTOR_WORDS;
      const address = join64(u32(words, at), u32(words, at + 1));
      const length = u32(words, at + 2);
      const flags = u32(words, at + 3);
      if ((flags & DESCRIPTOR_INDIRECT) !== 0) {
        tableAddress = tableAddress === 0 ? this.#openTable(address, length) : UNMAPPED;
        if (tableAddress === UNMAPPED) {
          return false;
        }
        words = this.#window.view;
        entries = length / DESCRIPTOR_BYTES;
        budget = entries + 1;
        index = 0;
        continue;
      }
      totalBytes += length;
      if (totalBytes > LENGTH_MAX || (isWritable && (flags & DESCRIPTOR_WRITE) === 0)) {
        return false; // too long, or something to read behind something to write
      }
      isWritable = (flags & DESCRIPTOR_WRITE) !== 0;
      const start = count;
      count = this.#add(count, address, length);
      if (count < 0) {
        return false;
      }
      if (!isWritable) {
        readableCount = count;
        readableBytes += length;
      }
      if ((flags & DESCRIPTOR_NEXT) === 0) {
        this.#count = count;
        this.#readableCount = readableCount;
        this.#readableBytes = readableBytes;
        this.#lastStart = start;
        this.#lastLength = length;
        this.#isLastWritable = isWritable;
        return true;
      }
      index = flags >>> 16;
    }
    return false; // more descriptors than there are: it goes in circles
  }

  /** The same for a packed ring, where even a bad chain is followed to its end: what comes next lies behind it. */
  #walkPacked(ring: PackedRing, place: number): boolean {
    const words = ring.descriptors;
    const { entries, longest } = ring;
    let index = place;
    let isGood = true;
    this.#count = 0;
    this.#readableCount = 0;
    this.#readableBytes = 0;
    this.#totalBytes = 0;
    this.#isLastWritable = false;
    for (let number = 1; number <= longest; number++) {
      const at = index * DESCRIPTOR_WORDS;
      const address = join64(u32(words, at), u32(words, at + 1));
      const length = u32(words, at + 2);
      const tail = u32(words, at + 3);
      const isLast = (tail & PACKED_NEXT) === 0;
      if ((tail & PACKED_INDIRECT) !== 0) {
        isGood = isGood && isLast && number === 1 && this.#appendTable(address, length);
      } else {
        isGood = isGood && this.#append(address, length, (tail & PACKED_WRITE) !== 0);
      }
      if (isLast) {
        this.ticket = (tail & 0xffff) + number * 0x1_0000;
        return isGood;
      }
      index = index + 1 === entries ? 0 : index + 1;
    }
    this.ticket = NO_TICKET;
    return false; // longer than what is free of the ring
  }

  /** All entries of the table belong to the chain, one behind the other, and only WRITE has a meaning (2.8.7). */
  #appendTable(address: number, length: number): boolean {
    const table = this.#openTable(address, length);
    if (table === UNMAPPED) {
      return false;
    }
    const words = this.#window.view;
    const entries = length / DESCRIPTOR_BYTES;
    for (let index = 0; index < entries; index++) {
      const at = (index < WINDOW_ENTRIES ? index : this.#fetch(table, index)) * DESCRIPTOR_WORDS;
      const isWritable = (u32(words, at + 3) & PACKED_WRITE) !== 0;
      const start = join64(u32(words, at), u32(words, at + 1));
      if (!this.#append(start, u32(words, at + 2), isWritable)) {
        return false;
      }
    }
    return true;
  }

  /** One descriptor more. False when it cannot belong to a request. */
  #append(address: number, length: number, isWritable: boolean): boolean {
    this.#totalBytes += length;
    if (this.#totalBytes > LENGTH_MAX || (this.#isLastWritable && !isWritable)) {
      return false;
    }
    const start = this.#count;
    const count = this.#add(start, address, length);
    if (count < 0) {
      return false;
    }
    this.#count = count;
    if (!isWritable) {
      this.#readableCount = count;
      this.#readableBytes += length;
    }
    this.#lastStart = start;
    this.#lastLength = length;
    this.#isLastWritable = isWritable;
    return true;
  }

  /** Where an indirect table lies, or UNMAPPED; its beginning is then in the window. */
  #openTable(address: number, length: number): number {
    const entries = length / DESCRIPTOR_BYTES;
    if (length === 0 || length % DESCRIPTOR_BYTES !== 0 || entries > DESCRIPTORS_MAX) {
      return UNMAPPED;
    }
    const host = this.#memory.translate(address, length);
    if (host !== UNMAPPED) {
      copyMemory(this.#window.address, host, Math.min(entries, WINDOW_ENTRIES) * DESCRIPTOR_BYTES);
    }
    return host;
  }

  /** Brings an entry behind the window into its last place. */
  #fetch(tableAddress: number, index: number): number {
    const target = this.#window.address + WINDOW_ENTRIES * DESCRIPTOR_BYTES;
    load16(target, tableAddress + index * DESCRIPTOR_BYTES);
    return WINDOW_ENTRIES;
  }

  /** Adds what a descriptor names behind `count` segments. Their new number, or -1 when they are too many. */
  #add(count: number, address: number, length: number): number {
    const host = length === 0 ? UNMAPPED : this.#memory.translate(address, length);
    if (host === UNMAPPED || count === DESCRIPTORS_MAX) {
      return this.#addSegments(count, address, length);
    }
    this.address[count] = host;
    this.length[count] = length;
    return count + 1;
  }

  /** A descriptor that no region holds: outside guest memory, or across regions that touch each other. */
  #addSegments(count: number, address: number, length: number): number {
    let end = count;
    let at = address;
    let rest = length;
    while (rest > 0) {
      if (end === DESCRIPTORS_MAX) {
        return -1;
      }
      const region = this.#memory.find(at);
      const part = region < 0 ? rest : Math.min(rest, this.#memory.bytesLeft(region, at));
      this.address[end] = region < 0 ? UNMAPPED : this.#memory.hostAddress(region, at);
      this.length[end] = part;
      end += 1;
      at += part;
      rest -= part;
    }
    return end;
  }

  /**
   * The status is the first byte of the last descriptor; where that one holds the data of a read as well,
   * its last. Without a place in guest memory the request still gets its used element.
   */
  #splitStatus(isIn: boolean): boolean {
    if (!this.#isLastWritable || this.#lastLength === 0) {
      return false;
    }
    const start = this.#lastStart;
    const last = this.#count - 1;
    const isShared = isIn && start === this.#readableCount && this.#lastLength > 1;
    if (isShared) {
      const address = f64(this.address, last);
      const length = u32(this.length, last) - 1;
      this.statusAddress = address === UNMAPPED ? 0 : address + length;
      this.length[last] = length;
      this.#count = length === 0 ? last : this.#count;
    } else {
      const address = f64(this.address, start);
      this.statusAddress = address === UNMAPPED ? 0 : address;
      this.#count = start;
    }
    return true;
  }

  #readHeader(): boolean {
    if (this.#readableBytes < REQUEST_HEADER_BYTES) {
      return false;
    }
    const header = this.#header;
    let segment = 0;
    let done = 0;
    while (done < REQUEST_HEADER_BYTES) {
      const address = f64(this.address, segment);
      if (address === UNMAPPED) {
        return false;
      }
      const length = u32(this.length, segment);
      const part = Math.min(REQUEST_HEADER_BYTES - done, length);
      if (part === REQUEST_HEADER_BYTES) {
        load16(header.address, address);
      } else {
        copyMemory(header.address + done, address, part);
      }
      done += part;
      if (part === length) {
        segment += 1;
      } else {
        this.address[segment] = address + part;
        this.length[segment] = length - part;
      }
    }
    this.type = u32(header.view, 0);
    this.sector = join64(u32(header.view, 2), u32(header.view, 3));
    this.dataStart = segment;
    return true;
  }

  /** What is left is data, in the one direction that the type allows. */
  #splitData(isIn: boolean): boolean {
    const readable = this.#readableCount - this.dataStart;
    const writable = this.#count - this.#readableCount;
    const isOut =
      this.type === REQUEST_TYPE.OUT ||
      this.type === REQUEST_TYPE.DISCARD ||
      this.type === REQUEST_TYPE.WRITE_ZEROES;
    if ((isIn && readable > 0) || (isOut && writable > 0)) {
      return false;
    }
    this.dataStart = isIn ? this.#readableCount : this.dataStart;
    this.dataCount = isIn ? writable : readable;
    const end = this.dataStart + this.dataCount;
    for (let i = this.dataStart; i < end; i++) {
      this.dataBytes += u32(this.length, i);
      if (f64(this.address, i) === UNMAPPED) {
        this.isDataMapped = false;
      }
    }
    return true;
  }
}
