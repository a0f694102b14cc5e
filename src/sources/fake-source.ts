/**
 * Sources for tests. `FakeSource` ends its requests when the test says so and in the order it says;
 * `FlakySource` is any source with faults.
 */
import { assert } from "../errors.ts";
import { viewOf } from "../ffi/memory.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { CompletionList } from "./completion-list.ts";
import type { StripePart, StripeSource } from "./stripe-source.ts";

export interface FakeSourceOptions {
  readonly sectors: number;
  readonly stripeBytes: number;
  readonly requestsMax: number;
  /** What the source holds; what lies behind its end is zeros without a question to this. */
  readonly byteAt: (offset: number) => number;
  /** Puts bytes into memory. Simulations without memory have their own. */
  readonly store?: (address: number, bytes: Uint8Array) => void;
}

/** A request that was not ended. */
export interface FakeRequest extends StripePart {
  readonly id: number;
  readonly address: number;
  readonly isDemanded: boolean;
}

const ENODATA = -61;

export class FakeSource implements StripeSource {
  readonly sectors: number;
  readonly unitBytes = SECTOR_BYTES;
  readonly waitFd = -1;
  readonly #options: FakeSourceOptions;
  readonly #ends: CompletionList;
  #underWay: FakeRequest[] = [];
  isDisposed = false;

  constructor(options: FakeSourceOptions) {
    this.#options = options;
    this.sectors = options.sectors;
    this.#ends = new CompletionList(options.requestsMax);
  }

  get underWay(): readonly FakeRequest[] {
    return this.#underWay;
  }

  /** Ends the request at `index` of `underWay`. */
  finish(index: number, result = 0): void {
    const [request] = this.#underWay.splice(index, 1);
    assert(request !== undefined, "only a request under way is ended");
    const end = result === 0 && !this.has(request.stripe) ? ENODATA : result;
    if (end === 0) {
      this.#fill(request);
    }
    this.#ends.add(request.id, end);
  }

  has(stripe: number): boolean {
    return stripe * this.#options.stripeBytes < this.sectors * SECTOR_BYTES;
  }

  request(id: number, part: StripePart, address: number, isDemanded = false): void {
    const { stripeBytes, requestsMax } = this.#options;
    assert(part.offsetBytes % SECTOR_BYTES === 0, "a source is read from the start of a sector");
    assert(part.lengthBytes % SECTOR_BYTES === 0, "a source is read in whole sectors");
    assert(part.offsetBytes + part.lengthBytes <= stripeBytes, "a part lies inside its stripe");
    assert(id < requestsMax, "ids are below the number of requests");
    assert(!this.#underWay.some((other) => other.id === id), "an id is under way once");
    this.#underWay.push({ ...part, id, address, isDemanded });
  }

  raise(id: number): void {
    const index = this.#underWay.findIndex((request) => request.id === id);
    const request = this.#underWay[index];
    if (request !== undefined) {
      this.#underWay[index] = { ...request, isDemanded: true };
    }
  }

  submit(): void {}

  completions(): number {
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
    this.isDisposed = true;
  }

  // --- internal ---

  #fill(request: FakeRequest): void {
    const { stripeBytes, byteAt, store } = this.#options;
    const start = request.stripe * stripeBytes + request.offsetBytes;
    const end = this.sectors * SECTOR_BYTES;
    const bytes = new Uint8Array(request.lengthBytes);
    for (let i = 0; i < bytes.length && start + i < end; i++) {
      bytes[i] = byteAt(start + i);
    }
    if (store === undefined) {
      new Uint8Array(viewOf(request.address, bytes.length)).set(bytes);
    } else {
      store(request.address, bytes);
    }
  }
}

/** 0 for none, or the negative errno with which a request ends. */
type SourceFault = (part: StripePart) => number;

export class FlakySource implements StripeSource {
  readonly #source: StripeSource;
  readonly #fault: SourceFault;
  readonly #ends: CompletionList;

  constructor(source: StripeSource, requestsMax: number, fault: SourceFault) {
    this.#source = source;
    this.#fault = fault;
    this.#ends = new CompletionList(requestsMax);
  }

  get sectors(): number {
    return this.#source.sectors;
  }

  get unitBytes(): number {
    return this.#source.unitBytes;
  }

  get waitFd(): number {
    return this.#source.waitFd;
  }

  has(stripe: number): boolean {
    return this.#source.has(stripe);
  }

  request(id: number, part: StripePart, address: number, isDemanded = false): void {
    const fault = this.#fault(part);
    if (fault === 0) {
      this.#source.request(id, part, address, isDemanded);
    } else {
      this.#ends.add(id, fault);
    }
  }

  raise(id: number): void {
    this.#source.raise(id);
  }

  submit(): void {
    this.#source.submit();
  }

  completions(): number {
    const count = this.#source.completions();
    for (let i = 0; i < count; i++) {
      this.#ends.add(this.#source.completedId(i), this.#source.completedResult(i));
    }
    this.#source.release(count);
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
    this.#source[Symbol.dispose]();
  }
}
