/**
 * Which objects need not be written: those that another stripe of this run has written or is writing, and those
 * that were there before. Tables in shared memory, packed: an archive may have millions of objects.
 *
 *   claimed   hash table of stripes (number + 1, 0 = empty); a stripe's hash is in the stripe map. Who puts its stripe
 *             in by compare-exchange writes the object; who finds an equal hash does not.
 *   existing  hash table of 32-byte hashes, filled before the workers start and never changed again
 *   scatter   a random number for each value of each byte of a hash. Exclusive or of those of its bytes is where it is
 *             looked for first: who may name files in the archive's folder cannot make names that all meet in one place
 */
import { randomBytes } from "node:crypto";
import { assert } from "../errors.ts";

const HASH_BYTES = 32;

/** Hashes as they come; then a table of them. */
export class HashList {
  #bytes = new Uint8Array(HASH_BYTES * 1024);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** @param hex 64 lowercase hexadecimal digits */
  add(hex: string): void {
    const end = (this.#count + 1) * HASH_BYTES;
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(this.#bytes.length * 2);
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes.set(Uint8Array.fromHex(hex), end - HASH_BYTES);
    this.#count += 1;
  }

  /** The hash at `index`; a view. */
  at(index: number): Uint8Array {
    assert(index < this.#count, "the list is as long as it is");
    return this.#bytes.subarray(index * HASH_BYTES, (index + 1) * HASH_BYTES);
  }
}

export interface SharedObjectNames {
  readonly scatter: SharedArrayBuffer;
  readonly claimed: SharedArrayBuffer;
  readonly existing: SharedArrayBuffer;
}

export class ObjectNames {
  readonly shared: SharedObjectNames;
  readonly #claimed: Int32Array<SharedArrayBuffer>;
  readonly #existing: Uint8Array<SharedArrayBuffer>;
  readonly #scatter: Int32Array<SharedArrayBuffer>;

  private constructor(shared: SharedObjectNames) {
    this.shared = shared;
    this.#claimed = new Int32Array(shared.claimed);
    this.#existing = new Uint8Array(shared.existing);
    this.#scatter = new Int32Array(shared.scatter);
  }

  static create(stripeEnd: number, existing: HashList): ObjectNames {
    const claimed = new SharedArrayBuffer(slotsFor(stripeEnd) * 4);
    const rows = existing.count === 0 ? 0 : slotsFor(existing.count);
    const scatter = new SharedArrayBuffer(HASH_BYTES * 256 * 4);
    new Int32Array(scatter).set(randomWords(HASH_BYTES * 256));
    const present = new SharedArrayBuffer(rows * HASH_BYTES);
    const names = new ObjectNames({ scatter, claimed, existing: present });
    for (let i = 0; i < existing.count; i += 1) {
      names.#insert(existing.at(i));
    }
    return names;
  }

  static attach(shared: SharedObjectNames): ObjectNames {
    return new ObjectNames(shared);
  }

  /**
   * Whether the caller is the one to write the object.
   * @param stripe whose hash is in the map already
   * @param hasHash whether another stripe has the hash in the map
   */
  claim(stripe: number, hash: Uint8Array, hasHash: (stripe: number) => boolean): boolean {
    const mask = this.#claimed.length - 1;
    for (let slot = this.#startOf(hash) & mask; ; slot = (slot + 1) & mask) {
      const found = Atomics.compareExchange(this.#claimed, slot, 0, stripe + 1);
      if (found === 0) {
        return true;
      }
      if (hasHash(found - 1)) {
        return false;
      }
    }
  }

  /** Whether the object was there before the run. */
  isExisting(hash: Uint8Array): boolean {
    const rows = this.#existing.length / HASH_BYTES;
    if (rows === 0) {
      return false;
    }
    for (let row = this.#startOf(hash) & (rows - 1); ; row = (row + 1) & (rows - 1)) {
      if (this.#isEmpty(row)) {
        return false;
      }
      if (this.#equals(row, hash)) {
        return true;
      }
    }
  }

  // --- internal ---

  #startOf(hash: Uint8Array): number {
    let start = 0;
    for (let i = 0; i < HASH_BYTES; i += 1) {
      start ^= this.#scatter[256 * i + (hash[i] ?? 0)] ?? 0;
    }
    return start;
  }

  #insert(hash: Uint8Array): void {
    const rows = this.#existing.length / HASH_BYTES;
    let row = this.#startOf(hash) & (rows - 1);
    while (!this.#isEmpty(row)) {
      row = (row + 1) & (rows - 1);
    }
    this.#existing.set(hash, row * HASH_BYTES);
  }

  /** No object has a hash of zeros: nobody can make one. One that lies there is written again. */
  #isEmpty(row: number): boolean {
    return this.#existing.subarray(row * HASH_BYTES, (row + 1) * HASH_BYTES).every((b) => b === 0);
  }

  #equals(row: number, hash: Uint8Array): boolean {
    for (let i = 0; i < HASH_BYTES; i += 1) {
      if (this.#existing[row * HASH_BYTES + i] !== hash[i]) {
        return false;
      }
    }
    return true;
  }
}

// --- internal ---

/** A power of two, at least twice what goes in: an empty slot is always near. */
function slotsFor(count: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(16, count * 2)));
}

function randomWords(count: number): Int32Array {
  const bytes = randomBytes(count * 4);
  return new Int32Array(bytes.buffer, bytes.byteOffset, count);
}
