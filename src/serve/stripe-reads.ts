/**
 * Reads of whole stripes for a stripe server: from the disk, deciphered, or from its source, into buffers that an
 * answer is sent from as it is.
 *
 *   buffer   | ............ head 9 | stripe: ssc sectors, zeros behind the end of the disk |
 *            0                     4096
 *
 * One thread owns it; nothing here waits. A read whose owner has gone keeps its buffer until its end: the kernel or
 * a worker may write to it up to then.
 */
import type { XtsCipher } from "../disk/cipher.ts";
import { assert } from "../errors.ts";
import { isZeroMemory, mapAnonymous, PAGE_SIZE, unmap, viewOf } from "../ffi/memory.ts";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { encodeSizedHead, SIZED_HEAD_BYTES, STATUS } from "../formats/stripe-protocol.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import type { StripeSource } from "../sources/stripe-source.ts";

/** Who waits for a read. */
export interface ReadOwner {
  /**
   * Once for each answer that the buffer was given for, also where the first one made the owner drop the others.
   * `result` is 0, or a negative errno; the buffer is the owner's, perhaps with others, until it frees it.
   */
  readEnded(buffer: number, result: number): void;
}

export interface StripeReadsOptions {
  /** The disk at the same offsets, as it is stored; undefined where there is a source only. */
  readonly disk: StripeSource | undefined;
  readonly source: StripeSource | undefined;
  readonly cipher: XtsCipher | undefined;
  /** Of the disk, which may end inside its last stripe. */
  readonly diskSectors: number;
  readonly stripeSectors: number;
  /** As the metadata that clients get says. */
  readonly flags: Uint8Array;
}

/** Of all buffers together; stripes may be so large that there are only two of them. */
const BUFFERS_BYTES = 64 * 2 ** 20;
const BUFFERS_MAX = 256;
const BUFFERS_MIN = 2;
/** Deciphered and looked through for zeros at a time. */
const ENDS_BYTES = 8 * 2 ** 20;
const EIO = -5;
const { FETCHED, HAS_SOURCE, WRITTEN } = STRIPE_FLAG;

/** Where a stripe is read from, or the status that is the whole answer. */
export type StripePlace = "disk" | "source" | number;

/** How many stripes of that size are read and sent at once. */
export function buffersFor(stripeBytes: number): number {
  const fitting = Math.floor(BUFFERS_BYTES / stripeBytes);
  return Math.max(BUFFERS_MIN, Math.min(BUFFERS_MAX, fitting));
}

/** Of one of them: the stripe, behind the head of an answer. */
export function bufferBytes(stripeBytes: number): number {
  return PAGE_SIZE + Math.ceil(stripeBytes / PAGE_SIZE) * PAGE_SIZE;
}

export class StripeReads implements Disposable {
  /** Of an answer that holds a stripe. */
  readonly answerBytes: number;
  readonly count: number;
  readonly #options: StripeReadsOptions;
  readonly #stripeBytes: number;
  readonly #bytesEach: number;
  /** Reads whose ends are looked at in one call. */
  readonly #endsMax: number;
  readonly #address: number;
  readonly #free: number[];
  /** By buffer: who is to be told of the end of its read; nobody when all have gone, or none is to come. */
  readonly #waiting: ReadOwner[][];
  /** By buffer: how many answers need it. */
  readonly #holders: number[];
  /** By buffer: the stripe under way, or -1. */
  readonly #stripes: number[];
  readonly #isFromSource: boolean[];
  /** Reads from the source leave some buffers to those from the disk, which do not wait for others. */
  readonly #sourceMax: number;
  #sourceReads = 0;

  /** @throws UbiError E_MEMORY */
  constructor(options: StripeReadsOptions) {
    this.#options = options;
    this.#stripeBytes = options.stripeSectors * SECTOR_BYTES;
    this.answerBytes = SIZED_HEAD_BYTES + this.#stripeBytes;
    this.count = buffersFor(this.#stripeBytes);
    this.#bytesEach = bufferBytes(this.#stripeBytes);
    this.#endsMax = Math.max(1, Math.floor(ENDS_BYTES / this.#stripeBytes));
    this.#address = mapAnonymous(this.count * this.#bytesEach);
    this.#free = Array.from({ length: this.count }, (_, buffer) => this.count - 1 - buffer);
    this.#waiting = Array.from({ length: this.count }, () => []);
    this.#holders = new Array<number>(this.count).fill(0);
    this.#stripes = new Array<number>(this.count).fill(-1);
    this.#isFromSource = new Array<boolean>(this.count).fill(false);
    const spared = options.disk === undefined ? 0 : Math.max(1, Math.floor(this.count / 4));
    this.#sourceMax = this.count - spared;
    for (let buffer = 0; buffer < this.count; buffer++) {
      const page = new Uint8Array(viewOf(this.#address + buffer * this.#bytesEach, PAGE_SIZE));
      encodeSizedHead(page, PAGE_SIZE - SIZED_HEAD_BYTES, this.#stripeBytes);
    }
  }

  get hasFreeBuffers(): boolean {
    return this.#free.length > 0;
  }

  get buffersInUse(): number {
    return this.count - this.#free.length;
  }

  get isReading(): boolean {
    return this.#stripes.some((stripe) => stripe !== -1);
  }

  /** Descriptors that are signalled when something ends; -1 for those that need none. */
  get waitFds(): { readonly disk: number; readonly source: number } {
    const { disk, source } = this.#options;
    return { disk: disk?.waitFd ?? -1, source: source?.waitFd ?? -1 };
  }

  /** What to answer to a read of a stripe. */
  placeOf(stripe: number): StripePlace {
    const { flags, source } = this.#options;
    if (stripe >= flags.length) {
      return STATUS.OUT_OF_RANGE;
    }
    const flag = flags[stripe] ?? 0;
    if ((flag & (HAS_SOURCE | FETCHED)) === HAS_SOURCE) {
      return source?.has(stripe) === true ? "source" : STATUS.NOT_FETCHED;
    }
    return (flag & (WRITTEN | HAS_SOURCE)) === 0 ? STATUS.NO_DATA : "disk";
  }

  /**
   * Begins a read into a free buffer and returns its number, or -1 when there is none for this place now. A read of
   * the stripe that is under way already does for this owner too, so who gives up and asks again costs nothing.
   */
  begin(stripe: number, place: "disk" | "source", owner: ReadOwner): number {
    const isFromSource = place === "source";
    const same = this.#stripes.indexOf(stripe);
    if (same >= 0) {
      this.#hold(same, owner);
      return same;
    }
    if (isFromSource && this.#sourceReads >= this.#sourceMax) {
      return -1;
    }
    const buffer = this.#free.pop();
    if (buffer === undefined) {
      return -1;
    }
    this.#hold(buffer, owner);
    this.#stripes[buffer] = stripe;
    this.#isFromSource[buffer] = isFromSource;
    this.#sourceReads += isFromSource ? 1 : 0;
    const from = isFromSource ? this.#options.source : this.#options.disk;
    assert(from !== undefined, "a stripe is read from where it is");
    const part = { stripe, offsetBytes: 0, lengthBytes: this.#stripeBytes };
    from.request(buffer, part, this.#dataAt(buffer), true);
    return buffer;
  }

  /** Where the answer that holds the stripe of a buffer begins. */
  answerAt(buffer: number): number {
    return this.#dataAt(buffer) - SIZED_HEAD_BYTES;
  }

  isZero(buffer: number): boolean {
    return isZeroMemory(this.#dataAt(buffer), this.#stripeBytes);
  }

  /** An answer of the owner needs the buffer no more, whether its read has ended or not. */
  free(buffer: number, owner: ReadOwner): void {
    const left = (this.#holders[buffer] ?? 0) - 1;
    assert(left >= 0, "a buffer is freed as often as it was given");
    this.#holders[buffer] = left;
    if (this.#stripes[buffer] !== -1) {
      const waiting = this.#waitingFor(buffer);
      waiting.splice(waiting.indexOf(owner), 1);
    } else if (left === 0) {
      this.#free.push(buffer);
    }
  }

  /**
   * Hands over what was begun and tells owners of what has ended, some megabytes at most. Returns how many reads
   * those were; there may be more.
   */
  advance(): number {
    const { disk, source } = this.#options;
    return this.#collect(disk) + this.#collect(source);
  }

  [Symbol.dispose](): void {
    this.#options.disk?.[Symbol.dispose]();
    this.#options.source?.[Symbol.dispose]();
    if (!this.isReading) {
      unmap(this.#address, this.count * this.#bytesEach);
    }
  }

  // --- internal ---

  #dataAt(buffer: number): number {
    return this.#address + buffer * this.#bytesEach + PAGE_SIZE;
  }

  #collect(from: StripeSource | undefined): number {
    if (from === undefined) {
      return 0;
    }
    from.submit();
    const count = Math.min(from.completions(), this.#endsMax);
    for (let i = 0; i < count; i++) {
      this.#end(from.completedId(i), from.completedResult(i));
    }
    from.release(count);
    return count;
  }

  #end(buffer: number, result: number): void {
    const stripe = this.#stripes[buffer] ?? -1;
    assert(stripe >= 0, "a read ends once");
    const isFromSource = this.#isFromSource[buffer] === true;
    this.#sourceReads -= isFromSource ? 1 : 0;
    this.#stripes[buffer] = -1;
    if (this.#holders[buffer] === 0) {
      this.#free.push(buffer);
      return;
    }
    const isPlain = result === 0 && (isFromSource || this.#decipher(buffer, stripe));
    const waiting = this.#waitingFor(buffer);
    for (let owner = waiting.shift(); owner !== undefined; owner = waiting.shift()) {
      owner.readEnded(buffer, isPlain ? 0 : result === 0 ? EIO : result);
    }
  }

  #hold(buffer: number, owner: ReadOwner): void {
    this.#holders[buffer] = (this.#holders[buffer] ?? 0) + 1;
    this.#waitingFor(buffer).push(owner);
  }

  #waitingFor(buffer: number): ReadOwner[] {
    const waiting = this.#waiting[buffer];
    assert(waiting !== undefined, "a buffer has its number");
    return waiting;
  }

  /** Zeros behind the end of the disk are no ciphertext, and stay zeros. */
  #decipher(buffer: number, stripe: number): boolean {
    const { cipher, diskSectors, stripeSectors } = this.#options;
    const first = stripe * stripeSectors;
    const count = Math.min(stripeSectors, diskSectors - first);
    const data = this.#dataAt(buffer);
    return cipher === undefined || cipher.decrypt(first, count, data, data) === 0;
  }
}
