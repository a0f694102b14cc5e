/**
 * Bytes in shared memory that one thread publishes, again and again, and all others read whole. Nobody waits for
 * anybody: there are two slots, and the version says which one counts.
 *
 *   word 0     version; 0: nothing was published yet
 *   word 1, 2  length of slot 0, of slot 1
 *   then       slot 0, slot 1
 *
 * What is replaced is overwritten with zeros.
 */
import { assert } from "../../errors.ts";

export interface Publication {
  readonly version: number;
  /** A copy, which belongs to the caller. */
  readonly bytes: Uint8Array;
}

const VERSION = 0;
const LENGTHS = 1;
const SLOTS = 3;
/** A writer that publishes while a reader copies makes it begin anew; so often it cannot happen. */
const READS_MAX = 1000;

export class PublishedBytes {
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #slotWords: number;

  private constructor(shared: SharedArrayBuffer) {
    this.shared = shared;
    this.#words = new Int32Array(shared);
    this.#slotWords = (this.#words.length - SLOTS) / 2;
    assert(Number.isInteger(this.#slotWords), "the buffer was made for two slots");
  }

  static create(bytesMax: number): PublishedBytes {
    const words = SLOTS + 2 * Math.ceil(bytesMax / 4);
    return new PublishedBytes(new SharedArrayBuffer(words * 4));
  }

  static attach(shared: SharedArrayBuffer): PublishedBytes {
    return new PublishedBytes(shared);
  }

  get bytesMax(): number {
    return this.#slotWords * 4;
  }

  get version(): number {
    return Atomics.load(this.#words, VERSION);
  }

  /** Only ever called by one thread. */
  publish(bytes: Uint8Array): void {
    assert(bytes.length <= this.bytesMax, "what is published fits its slot");
    const version = this.version + 1;
    const padded = new Int32Array(Math.ceil(bytes.length / 4));
    new Uint8Array(padded.buffer).set(bytes);
    const first = this.#firstWord(version);
    for (let i = 0; i < padded.length; i += 1) {
      Atomics.store(this.#words, first + i, padded[i] ?? 0);
    }
    padded.fill(0);
    Atomics.store(this.#words, LENGTHS + (version & 1), bytes.length);
    Atomics.store(this.#words, VERSION, version);
    this.#wipe(version - 1);
  }

  /** What was published last; undefined before that, and once it was wiped. */
  read(): Publication | undefined {
    for (let i = 0; i < READS_MAX; i += 1) {
      const version = this.version;
      const length = this.#lengthOf(version);
      const copy = new Int32Array(Math.ceil(length / 4));
      const first = this.#firstWord(version);
      for (let word = 0; word < copy.length; word += 1) {
        copy[word] = Atomics.load(this.#words, first + word);
      }
      // A wipe leaves the version, and takes the length first.
      if (this.version === version && this.#lengthOf(version) === length) {
        const bytes = new Uint8Array(copy.buffer, 0, length);
        return length === 0 ? undefined : { version, bytes };
      }
      copy.fill(0);
    }
    assert(false, "a publication can be read");
  }

  /** Nothing is left to be read. */
  wipe(): void {
    this.#wipe(0);
    this.#wipe(1);
  }

  // --- internal ---

  #lengthOf(version: number): number {
    return Atomics.load(this.#words, LENGTHS + (version & 1));
  }

  #firstWord(version: number): number {
    return SLOTS + (version & 1) * this.#slotWords;
  }

  #wipe(version: number): void {
    Atomics.store(this.#words, LENGTHS + (version & 1), 0);
    const first = this.#firstWord(version);
    for (let i = 0; i < this.#slotWords; i += 1) {
      Atomics.store(this.#words, first + i, 0);
    }
  }
}
