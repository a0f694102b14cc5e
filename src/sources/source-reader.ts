/**
 * Reads stripes from a source in a thread with an event loop: each read is a promise. Several may be under way, as
 * many as the source takes; further ones wait their turn.
 */
import { assert, errnoText, UbiError } from "../errors.ts";
import type { StripeSource } from "./stripe-source.ts";

export interface SourceReaderOptions {
  /** Ids of the source; so many reads are under way at once. */
  readonly requestsMax: number;
  /** As messages name the source. */
  readonly name: string;
  /** What is to be done when the source is not used any more. */
  readonly close?: () => Promise<void>;
}

interface Read {
  readonly stripe: number;
  readonly address: number;
  readonly lengthBytes: number;
  readonly resolve: () => void;
  readonly reject: (error: UbiError) => void;
}

/** Between looks at a source that does not tell when something completed. */
const POLL_MS = 1;

export class SourceReader implements AsyncDisposable {
  readonly name: string;
  readonly #source: StripeSource;
  readonly #close: (() => Promise<void>) | undefined;
  readonly #waiting: Read[] = [];
  readonly #underWay: (Read | undefined)[];
  readonly #freeIds: number[];
  #isPumping = false;
  #isClosed = false;

  /** The source belongs to the reader from here on. */
  constructor(source: StripeSource, options: SourceReaderOptions) {
    this.#source = source;
    this.name = options.name;
    this.#close = options.close;
    this.#underWay = new Array<Read | undefined>(options.requestsMax).fill(undefined);
    this.#freeIds = Array.from({ length: options.requestsMax }, (_, i) => i).reverse();
  }

  /**
   * Fills `lengthBytes`, rounded up to the source's unit (a stripe, where workers fetch), at `address`, which is
   * the source's until then.
   * @throws UbiError E_STRIPE_SOURCE when the source cannot
   */
  read(stripe: number, address: number, lengthBytes: number): Promise<void> {
    assert(!this.#isClosed, "a closed reader reads nothing");
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ stripe, address, lengthBytes, resolve, reject });
    this.#begin();
    this.#source.submit();
    if (!this.#isPumping) {
      this.#isPumping = true;
      void this.#pump();
    }
    return promise;
  }

  has(stripe: number): boolean {
    return this.#source.has(stripe);
  }

  /**
   * Rejects what has not ended. Memory of reads that had not ended must stay mapped: a worker of the source that
   * does not end in time may still write there.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) {
      return;
    }
    this.#isClosed = true;
    this.#source[Symbol.dispose]();
    for (const read of [...this.#underWay, ...this.#waiting]) {
      read?.reject(this.#failure(read, "the source was closed"));
    }
    this.#underWay.fill(undefined);
    this.#waiting.length = 0;
    await this.#close?.();
  }

  // --- internal ---

  #begin(): void {
    const unit = this.#source.unitBytes;
    while (this.#freeIds.length > 0) {
      const read = this.#waiting.shift();
      if (read === undefined) {
        return;
      }
      const id = this.#freeIds.pop();
      assert(id !== undefined, "an id is free");
      this.#underWay[id] = read;
      const lengthBytes = Math.ceil(read.lengthBytes / unit) * unit;
      this.#source.request(id, { stripe: read.stripe, offsetBytes: 0, lengthBytes }, read.address);
    }
  }

  /** Runs while something is under way. */
  async #pump(): Promise<void> {
    while (!this.#isClosed) {
      this.#source.submit();
      this.#collect();
      this.#begin();
      this.#source.submit();
      if (this.#freeIds.length === this.#underWay.length) {
        break;
      }
      if (this.#source.completions() > 0) {
        continue;
      }
      await (this.#source.nextCompletion?.() ?? Bun.sleep(POLL_MS));
    }
    this.#isPumping = false;
  }

  #collect(): void {
    const count = this.#source.completions();
    for (let i = 0; i < count; i++) {
      const id = this.#source.completedId(i);
      const result = this.#source.completedResult(i);
      const read = this.#underWay[id];
      assert(read !== undefined, "a source ends what it was asked for");
      this.#underWay[id] = undefined;
      this.#freeIds.push(id);
      if (result === 0) {
        read.resolve();
      } else {
        read.reject(this.#failure(read, errnoText(result)));
      }
    }
    this.#source.release(count);
  }

  #failure(read: Read, why: string): UbiError {
    return new UbiError(
      "E_STRIPE_SOURCE",
      `cannot read stripe ${read.stripe} from ${this.name}: ${why}`,
    );
  }
}
