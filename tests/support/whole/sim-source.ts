/**
 * An archive in a simulation: real objects, made and checked by the product's encoder and decoder, in a store that is
 * slow, fails, loses its connection, and has bits that rot. What its hash does not fit must never get into a buffer.
 */
import { StripeDecoder, StripeEncoder } from "../../../src/archive/stripe-object.ts";
import { assert, UbiError } from "../../../src/errors.ts";
import { createEvent, drainEvent, signalEvent } from "../../../src/ffi/event.ts";
import { viewOf } from "../../../src/ffi/memory.ts";
import { closeDescriptor } from "../../../src/ffi/socket.ts";
import { CompletionList } from "../../../src/sources/completion-list.ts";
import type { StripePart, StripeSource } from "../../../src/sources/stripe-source.ts";
import type { SeededRandom } from "../random.ts";
import { SECTOR } from "./sim-disk.ts";
import type { SimTime } from "./sim-time.ts";

export interface SimArchiveOptions {
  readonly content: Uint8Array;
  readonly stripeSectors: number;
  readonly isCompressed: boolean;
  readonly isEnciphered: boolean;
}

interface StoredObject {
  readonly hash: Uint8Array;
  readonly bytes: Uint8Array;
}

const KEY = Uint8Array.from({ length: 64 }, (_, i) => 255 - i);
const EIO = -5;
const ECONNRESET = -104;

/** What lies in the store: outlives the processes that read it. */
export class SimArchive {
  readonly stripes: number;
  readonly sectors: number;
  readonly stripeSectors: number;
  readonly #objects: (StoredObject | undefined)[] = [];
  readonly #decoder: StripeDecoder;

  constructor({ content, stripeSectors, isCompressed, isEnciphered }: SimArchiveOptions) {
    this.stripeSectors = stripeSectors;
    this.sectors = content.length / SECTOR;
    this.stripes = Math.ceil(this.sectors / stripeSectors);
    const xtsKey = isEnciphered ? KEY : undefined;
    const kind = isCompressed ? "zstd" : "none";
    const compression = isCompressed
      ? ({ kind: "zstd", level: 1 } as const)
      : { kind: "none" as const };
    using encoder = new StripeEncoder({ compression, xtsKey, stripeSectors });
    for (let stripe = 0; stripe < this.stripes; stripe++) {
      const data = new Uint8Array(new ArrayBuffer(stripeSectors * SECTOR));
      data.set(content.subarray(stripe * data.length, (stripe + 1) * data.length));
      const encoded = encoder.encode(stripe, data);
      const isZero = encoded === "zero";
      this.#objects.push(
        isZero ? undefined : { hash: encoded.hash.slice(), bytes: encoded.bytes.slice() },
      );
    }
    this.#decoder = new StripeDecoder({ compression: kind, xtsKey, stripeSectors });
  }

  /** 0, or a negative errno. @param rot makes what the store answers another thing */
  read(stripe: number, into: Uint8Array, rot: (object: Uint8Array) => Uint8Array): number {
    const object = this.#objects[stripe];
    if (object === undefined) {
      into.fill(0);
      return 0;
    }
    try {
      this.#decoder.decode(stripe, object.hash, rot(object.bytes.slice()), into);
      return 0;
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
      return EIO;
    }
  }

  /** As the object of another stripe. */
  objectOf(stripe: number): Uint8Array {
    return this.#objects[stripe]?.bytes.slice() ?? new Uint8Array(0);
  }
}

export class SimArchiveSource implements StripeSource {
  readonly sectors: number;
  readonly unitBytes: number;
  readonly waitFd = createEvent();
  readonly #archive: SimArchive;
  readonly #time: SimTime;
  readonly #random: SeededRandom;
  readonly #isFault: () => boolean;
  readonly #ends: CompletionList;
  readonly #underWay = new Map<number, StripePart & { readonly address: number }>();
  #isDead = false;

  constructor(options: {
    readonly archive: SimArchive;
    readonly time: SimTime;
    readonly random: SeededRandom;
    readonly requestsMax: number;
    readonly isFault: () => boolean;
  }) {
    const { archive } = options;
    this.#archive = archive;
    this.#time = options.time;
    this.#random = options.random;
    this.#isFault = options.isFault;
    this.sectors = archive.sectors;
    this.unitBytes = archive.stripeSectors * SECTOR;
    this.#ends = new CompletionList(options.requestsMax);
  }

  has(stripe: number): boolean {
    return stripe < this.#archive.stripes;
  }

  request(id: number, part: StripePart, address: number): void {
    assert(part.lengthBytes === this.unitBytes, "an object is read as a whole");
    const request = { ...part, address };
    this.#underWay.set(id, request);
    const delayMs = this.#random.oneIn(16) ? this.#random.below(3000) : this.#random.below(20);
    this.#time.after(delayMs * 1e6, () => this.#finish(id, request));
  }

  raise(): void {}
  submit(): void {}

  completions(): number {
    drainEvent(this.waitFd);
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

  die(): void {
    if (!this.#isDead) {
      this.#isDead = true;
      closeDescriptor(this.waitFd);
    }
  }

  [Symbol.dispose](): void {
    this.die();
  }

  // --- internal ---

  #finish(id: number, part: StripePart & { readonly address: number }): void {
    if (this.#isDead || this.#underWay.get(id) !== part) {
      return; // with the connection that was lost
    }
    if (this.#isFault() && this.#random.oneIn(3)) {
      for (const other of [...this.#underWay.keys()]) {
        this.#end(other, ECONNRESET);
      }
      return;
    }
    const into = new Uint8Array(viewOf(part.address, part.lengthBytes));
    const result =
      this.#isFault() && this.#random.oneIn(2)
        ? EIO
        : this.#archive.read(part.stripe, into, (object) => this.#rot(object));
    this.#end(id, result);
  }

  #rot(object: Uint8Array): Uint8Array {
    if (!this.#isFault()) {
      return object;
    }
    switch (this.#random.below(3)) {
      case 0:
        return object.subarray(0, this.#random.below(object.length));
      case 1:
        return this.#archive.objectOf(this.#random.below(this.#archive.stripes));
      default: {
        const at = this.#random.below(object.length);
        object[at] = (object[at] ?? 0) ^ (1 << this.#random.below(8));
        return object;
      }
    }
  }

  #end(id: number, result: number): void {
    this.#underWay.delete(id);
    this.#ends.add(id, result);
    signalEvent(this.waitFd);
  }
}
