/**
 * Which stripes an archive holds, and the hashes that name their objects: packed memory for millions of
 * stripes, which threads share.
 *
 *   words    | slots used | slots | word of stripe 0 | word of stripe 1 | ...     0 absent, 1 zero, 2 + slot stored
 *   hashes   | 32 bytes of slot 0 | 32 bytes of slot 1 | ...
 *
 * Threads may change different stripes at the same time, and read what they know of by other means to be there (a claim,
 * the start of a thread). Memory is had when it is first written, 4 bytes a stripe and 32 more for one that is stored: a
 * file of a few bytes that maps the last stripe of all takes no memory for those before it. So words are not read by
 * `Atomics.load`, which the engine may do as a write of the same value.
 */
import { assert, errorText, UbiError } from "../errors.ts";
import { i32 } from "../ffi/view.ts";
import { HASH_BYTES, type StripeKind } from "../formats/stripe-mapping.ts";

/** What another thread needs to use the same map. */
export interface SharedStripeMap {
  readonly words: SharedArrayBuffer;
  readonly hashes: SharedArrayBuffer;
}

export class StripeMap {
  readonly shared: SharedStripeMap;
  /** Stripes are 0 to `stripeEnd` - 1. Of an archive that was read, the last one is mapped. */
  readonly stripeEnd: number;
  readonly #words: Int32Array;
  readonly #hashes: Uint8Array;

  private constructor(shared: SharedStripeMap) {
    this.shared = shared;
    this.#words = new Int32Array(shared.words);
    this.#hashes = new Uint8Array(shared.hashes);
    this.stripeEnd = this.#words.length - HEADER_WORDS;
  }

  /**
   * A map without any stripe.
   * @param storedMax how often a stripe without a hash can get one; for all stripes when undefined
   * @throws UbiError E_MEMORY
   */
  static create(stripeEnd: number, storedMax = stripeEnd): StripeMap {
    assert(Number.isSafeInteger(stripeEnd) && stripeEnd >= 0, "stripes are counted");
    assert(storedMax >= 0, "stored stripes are counted");
    const words = allocate((HEADER_WORDS + stripeEnd) * WORD_BYTES);
    new Int32Array(words)[SLOTS] = storedMax;
    return new StripeMap({ words, hashes: allocate(storedMax * HASH_BYTES) });
  }

  /** The map of another thread. */
  static attach(shared: SharedStripeMap): StripeMap {
    return new StripeMap(shared);
  }

  /** Stripes that are or were stored: as many objects at most. */
  get storedMax(): number {
    return Atomics.load(this.#words, SLOTS_USED);
  }

  kind(stripe: number): StripeKind {
    const word = this.#word(stripe);
    return word === ABSENT ? "absent" : word === ZERO ? "zero" : "stored";
  }

  /** 64 lowercase hexadecimal digits, of a stored stripe. */
  hashHex(stripe: number): string {
    return this.hash(stripe).toHex();
  }

  /** A copy of the hash of a stored stripe. */
  hash(stripe: number): Uint8Array {
    const hash = new Uint8Array(HASH_BYTES);
    this.copyHash(stripe, hash, 0);
    return hash;
  }

  /** Writes the hash of a stored stripe to `target` from `at` on. */
  copyHash(stripe: number, target: Uint8Array, at: number): void {
    const word = this.#word(stripe);
    assert(word >= FIRST_SLOT, "only a stored stripe has a hash");
    let from = (word - FIRST_SLOT) * HASH_BYTES;
    for (let i = at; i < at + HASH_BYTES; i += 1, from += 1) {
      target[i] = this.#hashes[from] as number;
    }
  }

  setZero(stripe: number): void {
    this.#word(stripe);
    Atomics.store(this.#words, HEADER_WORDS + stripe, ZERO);
  }

  /** @param hash its 32 bytes lie from `at` on */
  setStored(stripe: number, hash: Uint8Array, at = 0): void {
    assert(hash.length >= at + HASH_BYTES, "a hash has 32 bytes");
    const before = this.#word(stripe);
    const slot = before >= FIRST_SLOT ? before - FIRST_SLOT : this.#takeSlot();
    let target = slot * HASH_BYTES;
    for (let i = at; i < at + HASH_BYTES; i += 1, target += 1) {
      this.#hashes[target] = hash[i] as number;
    }
    Atomics.store(this.#words, HEADER_WORDS + stripe, FIRST_SLOT + slot);
  }

  // --- internal ---

  #word(stripe: number): number {
    assert(stripe >= 0, "a stripe is not negative");
    assert(stripe < this.stripeEnd, "a stripe lies in its map");
    return i32(this.#words, HEADER_WORDS + stripe);
  }

  #takeSlot(): number {
    const slot = Atomics.add(this.#words, SLOTS_USED, 1);
    assert(slot < (this.#words[SLOTS] as number), "a map has room for its hashes");
    return slot;
  }
}

// --- internal ---

const WORD_BYTES = 4;
const SLOTS_USED = 0;
const SLOTS = 1;
const HEADER_WORDS = 2;
const ABSENT = 0;
const ZERO = 1;
const FIRST_SLOT = 2;

function allocate(lengthBytes: number): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(lengthBytes);
  } catch (cause) {
    const message = `no ${lengthBytes} bytes for a map of stripes: ${errorText(cause)}`;
    throw new UbiError("E_MEMORY", message, { cause });
  }
}
