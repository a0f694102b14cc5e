/**
 * Moves sectors between a request's segments (guest memory, any alignment) and a bounce buffer, through
 * the cipher where there is one: copy and cipher are one pass when the segments are whole sectors.
 *
 * Cost: one native call a segment.
 */
import { copyMemory } from "../ffi/memory.ts";
import { f64, i32, u32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { RequestTable } from "./request-table.ts";

/** A cipher over 512-byte sectors; source and target are addresses and may be equal. 0 or an errno. */
export interface SectorCipher {
  encrypt(sector: number, sectorCount: number, source: number, target: number): number;
  decrypt(sector: number, sectorCount: number, source: number, target: number): number;
}

export class SectorCopy {
  readonly #requests: RequestTable;
  readonly #cipher: SectorCipher | undefined;
  /** Where a request that is moved in pieces goes on: place of the segment and bytes done in it. */
  readonly #cursorSegment: Int32Array;
  readonly #cursorOffset: Float64Array;

  constructor(requests: RequestTable, cipher: SectorCipher | undefined) {
    this.#requests = requests;
    this.#cipher = cipher;
    this.#cursorSegment = new Int32Array(requests.slotsMax);
    this.#cursorOffset = new Float64Array(requests.slotsMax);
  }

  /** Sets a request's cursor to its first byte. */
  rewind(slot: number): void {
    this.#cursorSegment[slot] = i32(this.#requests.segmentStart, slot);
    this.#cursorOffset[slot] = 0;
  }

  /**
   * The next `bytes` of the request (whole sectors) go to `buffer`, enciphered as of `sector`. False when
   * the cipher failed: the buffer must not be written.
   */
  gather(slot: number, sector: number, buffer: number, bytes: number): boolean {
    const cipher = this.#cipher;
    if (cipher === undefined) {
      this.#walkPlain(slot, buffer, bytes, true);
      return true;
    }
    if (this.#isWholeSectors(slot, bytes)) {
      return this.#walkCipher(slot, sector, buffer, bytes, cipher, true);
    }
    this.#walkPlain(slot, buffer, bytes, true);
    return cipher.encrypt(sector, bytes / SECTOR_BYTES, buffer, buffer) === 0;
  }

  /** `buffer` goes to the next `bytes` of the request, deciphered as of `sector`. False as for `gather`. */
  scatter(slot: number, sector: number, buffer: number, bytes: number): boolean {
    const cipher = this.#cipher;
    if (cipher === undefined) {
      this.#walkPlain(slot, buffer, bytes, false);
      return true;
    }
    if (this.#isWholeSectors(slot, bytes)) {
      return this.#walkCipher(slot, sector, buffer, bytes, cipher, false);
    }
    const isOk = cipher.decrypt(sector, bytes / SECTOR_BYTES, buffer, buffer) === 0;
    this.#walkPlain(slot, buffer, bytes, false);
    return isOk;
  }

  // --- internal ---

  /** True when the next `bytes` fall into parts of whole sectors. */
  #isWholeSectors(slot: number, bytes: number): boolean {
    const lengths = this.#requests.segmentLength;
    let segment = i32(this.#cursorSegment, slot);
    let offset = f64(this.#cursorOffset, slot);
    let rest = bytes;
    while (rest > 0) {
      const part = Math.min(rest, u32(lengths, segment) - offset);
      if ((part & (SECTOR_BYTES - 1)) !== 0) {
        return false;
      }
      rest -= part;
      segment += 1;
      offset = 0;
    }
    return true;
  }

  #walkPlain(slot: number, buffer: number, bytes: number, isGather: boolean): void {
    const requests = this.#requests;
    let segment = i32(this.#cursorSegment, slot);
    let offset = f64(this.#cursorOffset, slot);
    let done = 0;
    while (done < bytes) {
      const length = u32(requests.segmentLength, segment);
      const part = Math.min(bytes - done, length - offset);
      const guest = f64(requests.segmentAddress, segment) + offset;
      if (isGather) {
        copyMemory(buffer + done, guest, part);
      } else {
        copyMemory(guest, buffer + done, part);
      }
      done += part;
      offset += part;
      if (offset === length) {
        segment += 1;
        offset = 0;
      }
    }
    this.#cursorSegment[slot] = segment;
    this.#cursorOffset[slot] = offset;
  }

  #walkCipher(
    slot: number,
    sector: number,
    buffer: number,
    bytes: number,
    cipher: SectorCipher,
    isGather: boolean,
  ): boolean {
    const requests = this.#requests;
    let segment = i32(this.#cursorSegment, slot);
    let offset = f64(this.#cursorOffset, slot);
    let done = 0;
    let failure = 0;
    while (done < bytes) {
      const length = u32(requests.segmentLength, segment);
      const part = Math.min(bytes - done, length - offset);
      const guest = f64(requests.segmentAddress, segment) + offset;
      const at = sector + done / SECTOR_BYTES;
      if (isGather) {
        failure |= cipher.encrypt(at, part / SECTOR_BYTES, guest, buffer + done);
      } else {
        failure |= cipher.decrypt(at, part / SECTOR_BYTES, buffer + done, guest);
      }
      done += part;
      offset += part;
      if (offset === length) {
        segment += 1;
        offset = 0;
      }
    }
    this.#cursorSegment[slot] = segment;
    this.#cursorOffset[slot] = offset;
    return failure === 0;
  }
}
