/**
 * Reads and writes of a front end that owns the memory of its requests: I/O and cipher work in place, nothing
 * is copied. What a write enciphers is lost to the front end, which gets it anew with the next request.
 *
 *   write -> encipher in place -> I/O            read -> I/O -> decipher in place
 *
 * A request has one segment: an address, or an offset in a registered buffer that has no address here.
 *
 * Cost: about 30 ns a request besides the cipher and the kernel; no allocation.
 */
import { f64, i32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { type IoEngine, isPassing, RETRIES_MAX } from "./io-engine.ts";
import { Operation, Outcome, type RequestTable } from "./request-table.ts";
import type { SectorCipher } from "./sector-copy.ts";

export interface InPlaceOptions {
  readonly engine: IoEngine;
  readonly requests: RequestTable;
  readonly cipher: SectorCipher | undefined;
  /** By slot: the registered buffer that its memory lies in, or -1. */
  readonly registeredBuffer: Int32Array;
  /** The request's outcome is known. */
  readonly finish: (slot: number, outcome: number) => void;
  /** The disk's I/O of this request failed for good, or stayed short; its outcome follows. */
  readonly failed: (slot: number, result: number) => void;
}

export class InPlaceRunner implements Disposable {
  readonly #options: InPlaceOptions;
  readonly #engine: IoEngine;
  readonly #requests: RequestTable;
  readonly #cipher: SectorCipher | undefined;
  readonly #registeredBuffer: Int32Array;
  readonly #retries: Uint8Array;

  constructor(options: InPlaceOptions) {
    this.#options = options;
    this.#engine = options.engine;
    this.#requests = options.requests;
    this.#cipher = options.cipher;
    this.#registeredBuffer = options.registeredBuffer;
    this.#retries = new Uint8Array(options.requests.slotsMax);
  }

  /** Takes a read or write of whole blocks. */
  start(slot: number): void {
    const requests = this.#requests;
    this.#retries[slot] = 0;
    if (this.#cipher !== undefined && requests.operation[slot] === Operation.write) {
      const address = this.#addressOf(slot);
      const sectors = f64(requests.bytes, slot) / SECTOR_BYTES;
      if (this.#cipher.encrypt(f64(requests.sector, slot), sectors, address, address) !== 0) {
        this.#options.finish(slot, Outcome.ioError);
        return;
      }
    }
    this.#prepare(slot);
  }

  endBatch(): void {
    // Nothing waits for a neighbour: the kernel merged what could be.
  }

  /** Handles the completion of the I/O of `slot`. */
  complete(slot: number, result: number): void {
    const requests = this.#requests;
    const bytes = f64(requests.bytes, slot);
    if (result !== bytes) {
      this.#recover(slot, result);
      return;
    }
    let isOk = true;
    if (this.#cipher !== undefined && requests.operation[slot] === Operation.read) {
      const address = this.#addressOf(slot);
      const sector = f64(requests.sector, slot);
      isOk = this.#cipher.decrypt(sector, bytes / SECTOR_BYTES, address, address) === 0;
    }
    this.#options.finish(slot, isOk ? Outcome.ok : Outcome.ioError);
  }

  /** No transfer of this runner waits for a buffer. */
  resume(): boolean {
    return true;
  }

  [Symbol.dispose](): void {
    // It has no memory of its own.
  }

  // --- internal ---

  #addressOf(slot: number): number {
    return f64(this.#requests.segmentAddress, i32(this.#requests.segmentStart, slot));
  }

  #prepare(slot: number): void {
    const requests = this.#requests;
    const offset = f64(requests.sector, slot) * SECTOR_BYTES;
    const bytes = f64(requests.bytes, slot);
    const address = this.#addressOf(slot);
    const buffer = i32(this.#registeredBuffer, slot);
    if (requests.operation[slot] === Operation.read) {
      if (buffer >= 0) {
        this.#engine.prepareReadFixed(slot, offset, address, bytes, buffer);
      } else {
        this.#engine.prepareRead(slot, offset, address, bytes);
      }
    } else if (buffer >= 0) {
      this.#engine.prepareWriteFixed(slot, offset, address, bytes, buffer);
    } else {
      this.#engine.prepareWrite(slot, offset, address, bytes);
    }
  }

  /** A failed or short transfer: the whole once more for passing causes, then an error. */
  #recover(slot: number, result: number): void {
    const retries = (this.#retries[slot] ?? 0) + 1;
    this.#retries[slot] = retries;
    if (isPassing(result) && retries <= RETRIES_MAX) {
      this.#prepare(slot);
    } else {
      this.#options.failed(slot, result);
      this.#options.finish(slot, Outcome.ioError);
    }
  }
}
