/**
 * A raw image as a source: a file or block device in the clear, read at the same offset as the disk has.
 *
 *   image   |--- stripe 0 ---|--- stripe 1 ---|--- 2: short|
 *   reads    as they are      as they are      as they are  zeros
 *
 * With direct I/O the last read is rounded up to whole blocks and comes back short, at the end of the file. A
 * read that ends before the image does is continued; one that moves nothing there fails: the image was cut.
 */
import { type IoEngine, isPassing, RETRIES_MAX } from "../disk/io-engine.ts";
import { assert } from "../errors.ts";
import { fillMemory } from "../ffi/memory.ts";
import { f64, i32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { CompletionList } from "./completion-list.ts";
import type { StripePart, StripeSource } from "./stripe-source.ts";

export interface RawSourceOptions {
  /** Of the image alone: its completions all belong to this source, which disposes of it. */
  readonly engine: IoEngine;
  readonly sizeBytes: number;
  /** Smallest unit of I/O: a sector for the page cache, a block of the medium for direct I/O. */
  readonly blockBytes: number;
  readonly stripeBytes: number;
  /** Requests under way at once; ids are below it. */
  readonly requestsMax: number;
}

const EIO = -5;
const ENODATA = -61;

export class RawSource implements StripeSource {
  readonly sectors: number;
  readonly unitBytes: number;
  readonly #options: RawSourceOptions;
  readonly #engine: IoEngine;
  readonly #ends: CompletionList;
  /** Columns by id: where in the image, where in memory, bytes of the image not read yet. */
  readonly #offset: Float64Array;
  readonly #address: Float64Array;
  readonly #left: Float64Array;
  readonly #retries: Int32Array;
  #hasContinued = false;

  constructor(options: RawSourceOptions) {
    assert(options.blockBytes % SECTOR_BYTES === 0, "a block is whole sectors");
    assert(options.stripeBytes % options.blockBytes === 0, "a stripe is whole blocks");
    this.#options = options;
    this.#engine = options.engine;
    this.sectors = Math.ceil(options.sizeBytes / SECTOR_BYTES);
    this.unitBytes = options.blockBytes;
    this.#ends = new CompletionList(options.requestsMax);
    this.#offset = new Float64Array(options.requestsMax);
    this.#address = new Float64Array(options.requestsMax);
    this.#left = new Float64Array(options.requestsMax);
    this.#retries = new Int32Array(options.requestsMax);
  }

  get waitFd(): number {
    return this.#engine.waitFd;
  }

  has(stripe: number): boolean {
    return stripe * this.#options.stripeBytes < this.#options.sizeBytes;
  }

  request(id: number, part: StripePart, address: number): void {
    const { stripeBytes, sizeBytes, blockBytes } = this.#options;
    assert(part.offsetBytes % blockBytes === 0, "a source is read from the start of a block");
    assert(part.lengthBytes % blockBytes === 0, "a source is read in whole blocks");
    assert(part.offsetBytes + part.lengthBytes <= stripeBytes, "a part lies inside its stripe");
    if (!this.has(part.stripe)) {
      this.#ends.add(id, ENODATA);
      return;
    }
    const offset = part.stripe * stripeBytes + part.offsetBytes;
    const present = Math.max(0, Math.min(part.lengthBytes, sizeBytes - offset));
    if (present < part.lengthBytes) {
      fillMemory(address + present, 0, part.lengthBytes - present);
    }
    if (present === 0) {
      this.#ends.add(id, 0);
      return;
    }
    this.#offset[id] = offset;
    this.#address[id] = address;
    this.#left[id] = present;
    this.#retries[id] = 0;
    this.#read(id);
  }

  /** Reads have no order that could be changed. */
  raise(_id: number): void {}

  submit(): void {
    do {
      this.#engine.submit(0);
      this.#collect();
    } while (this.#takeContinued());
  }

  completions(): number {
    if (this.#engine.hasWork()) {
      this.submit();
    }
    return this.#ends.count;
  }

  completedId(index: number): number {
    return this.#ends.id(index);
  }

  completedResult(index: number): number {
    return this.#ends.result(index);
  }

  release(count: number): void {
    this.#ends.release(count);
  }

  [Symbol.dispose](): void {
    this.#engine[Symbol.dispose]();
  }

  // --- internal ---

  #read(id: number): void {
    const { blockBytes } = this.#options;
    const length = Math.ceil(f64(this.#left, id) / blockBytes) * blockBytes;
    this.#engine.prepareRead(id, f64(this.#offset, id), f64(this.#address, id), length);
  }

  /** Whether reads were continued, which are to be handed over as well; each is a limited number of times. */
  #takeContinued(): boolean {
    const hasContinued = this.#hasContinued;
    this.#hasContinued = false;
    return hasContinued;
  }

  #collect(): void {
    const count = this.#engine.completions();
    for (let i = 0; i < count; i++) {
      this.#settle(this.#engine.completedId(i), this.#engine.completedResult(i));
    }
    this.#engine.release(count);
  }

  /** What the last block holds behind the end of the image is zeroed again: it may be anything on a device. */
  #settle(id: number, result: number): void {
    const left = f64(this.#left, id);
    if (result >= left) {
      const surplus = result - left;
      fillMemory(f64(this.#address, id) + left, 0, surplus);
      this.#ends.add(id, 0);
      return;
    }
    const { blockBytes } = this.#options;
    const moved = result > 0 ? Math.floor(result / blockBytes) * blockBytes : 0;
    if (moved > 0) {
      this.#retries[id] = 0;
    } else {
      this.#retries[id] = i32(this.#retries, id) + 1;
    }
    if (!isPassing(result) || i32(this.#retries, id) > RETRIES_MAX) {
      this.#ends.add(id, result < 0 ? result : EIO);
      return;
    }
    this.#offset[id] = f64(this.#offset, id) + moved;
    this.#address[id] = f64(this.#address, id) + moved;
    this.#left[id] = left - moved;
    this.#hasContinued = true;
    this.#read(id);
  }
}
