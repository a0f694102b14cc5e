/**
 * Memory that the kernel or C keeps an address of. The storage of JavaScript's own typed arrays may move
 * (below 1 KiB it does when `.buffer` is touched), so everything of that kind is carved from a mapping.
 */
import { assert } from "../errors.ts";
import { mapAnonymous, PAGE_SIZE, unmap, viewOf } from "./memory.ts";

export class Arena implements Disposable {
  readonly address: number;
  readonly lengthBytes: number;
  readonly #buffer: ArrayBuffer;
  #usedBytes = 0;
  #isDisposed = false;

  /** @throws UbiError E_MEMORY */
  constructor(lengthBytes: number) {
    this.lengthBytes = Math.ceil(lengthBytes / PAGE_SIZE) * PAGE_SIZE;
    this.address = mapAnonymous(this.lengthBytes);
    this.#buffer = viewOf(this.address, this.lengthBytes);
  }

  /** The next `lengthBytes`, aligned to 64. Returns the offset in the arena. */
  allocate(lengthBytes: number): number {
    const offset = this.#usedBytes;
    this.#usedBytes += Math.ceil(lengthBytes / 64) * 64;
    assert(this.#usedBytes <= this.lengthBytes, "the arena is sized for what it holds");
    return offset;
  }

  bytes(lengthBytes: number): ArenaView<Uint8Array> {
    const offset = this.allocate(lengthBytes);
    return {
      address: this.address + offset,
      view: new Uint8Array(this.#buffer, offset, lengthBytes),
    };
  }

  words(count: number): ArenaView<Uint32Array> {
    const offset = this.allocate(count * 4);
    return { address: this.address + offset, view: new Uint32Array(this.#buffer, offset, count) };
  }

  signedWords(count: number): ArenaView<Int32Array> {
    const offset = this.allocate(count * 4);
    return { address: this.address + offset, view: new Int32Array(this.#buffer, offset, count) };
  }

  doubles(count: number): ArenaView<Float64Array> {
    const offset = this.allocate(count * 8);
    return { address: this.address + offset, view: new Float64Array(this.#buffer, offset, count) };
  }

  [Symbol.dispose](): void {
    if (!this.#isDisposed) {
      this.#isDisposed = true;
      unmap(this.address, this.lengthBytes);
    }
  }
}

/** A typed array and the address of its first byte. */
export interface ArenaView<T> {
  readonly address: number;
  readonly view: T;
}
