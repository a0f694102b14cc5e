/**
 * A part of a file that a front end passed, mapped here. Pages that the front end cuts off later are covered by zeros
 * (the guard of ffi/memory.ts) instead of ending this process with a signal.
 */
import { guardMemory, mapFile, pageSizeOf, unguardMemory, unmap } from "../ffi/memory.ts";

export class GuardedMapping implements Disposable {
  /** Of the first byte that was asked for; the mapping begins with its page. */
  readonly address: number;
  readonly #mapAddress: number;
  readonly #mapBytes: number;

  /**
   * @param fd stays the caller's
   * @throws UbiError E_MEMORY
   */
  constructor(fd: number, offsetBytes: number, lengthBytes: number) {
    const pageBytes = pageSizeOf(fd);
    const start = Math.floor(offsetBytes / pageBytes) * pageBytes;
    const skip = offsetBytes - start;
    this.#mapBytes = Math.ceil((skip + lengthBytes) / pageBytes) * pageBytes;
    const part = { fd, offsetBytes: start, lengthBytes: this.#mapBytes, writable: true };
    this.#mapAddress = mapFile(part);
    try {
      guardMemory(this.#mapAddress, this.#mapBytes, pageBytes);
    } catch (error) {
      unmap(this.#mapAddress, this.#mapBytes);
      throw error;
    }
    this.address = this.#mapAddress + skip;
  }

  /** Once, when nobody uses it any more. */
  [Symbol.dispose](): void {
    unguardMemory(this.#mapAddress);
    unmap(this.#mapAddress, this.#mapBytes);
  }
}
