/**
 * The addresses behind a host name, for a thread that cannot ask: the main thread writes them, whoever dials
 * reads them. A reader that meets a change in the middle of it reads again.
 */
import { assert } from "../errors.ts";
import { i32 } from "../ffi/view.ts";

/** Cloneable. */
export type SharedAddressBook = SharedArrayBuffer;

const VERSION = 0;
const LENGTH = 1;
const TEXT_OFFSET = 8;
const TEXT_BYTES_MAX = 4096;
const READS_MAX = 1000;

export class AddressBook {
  readonly shared: SharedAddressBook;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;

  /** @param shared of another thread's book; a new one without it */
  constructor(shared: SharedAddressBook = new SharedArrayBuffer(TEXT_OFFSET + TEXT_BYTES_MAX)) {
    this.shared = shared;
    this.#words = new Int32Array(shared, 0, 2);
    this.#bytes = new Uint8Array(shared, TEXT_OFFSET);
  }

  /** By one thread only. */
  write(addresses: readonly string[]): void {
    const text = new TextEncoder().encode(addresses.join("\n"));
    assert(text.length <= TEXT_BYTES_MAX, "a book has room for its addresses");
    Atomics.add(this.#words, VERSION, 1); // odd: in the middle of a change
    this.#bytes.set(text);
    Atomics.store(this.#words, LENGTH, text.length);
    Atomics.add(this.#words, VERSION, 1);
  }

  read(): readonly string[] {
    for (let i = 0; i < READS_MAX; i++) {
      const version = Atomics.load(this.#words, VERSION);
      const text = this.#bytes.slice(0, i32(this.#words, LENGTH));
      if (version % 2 === 0 && Atomics.load(this.#words, VERSION) === version) {
        return text.length === 0 ? [] : new TextDecoder().decode(text).split("\n");
      }
    }
    return []; // its writer stands still in the middle: the next dial reads again
  }
}
