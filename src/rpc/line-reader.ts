/**
 * Cuts a stream of bytes into lines under a limit of length. What exceeds it is told once and then
 * skipped up to the next newline, so that a client's mistake costs neither memory nor its connection.
 *
 *   buffer | consumed | line under way: scanned, not scanned | free |
 *          0        start            scanned               end
 */

/** The longest line that is read, without its newline. */
export const LINE_BYTES_MAX = 64 * 1024;

/** A line without its newline, or the mark of one that is too long. */
export type Line =
  | { readonly kind: "line"; readonly bytes: Uint8Array }
  | { readonly kind: "too_long" };

const NEWLINE = 10;

export class LineReader {
  #buffer: Uint8Array = new Uint8Array(0);
  #start = 0;
  #scanned = 0;
  #end = 0;
  #isSkipping = false;

  /** Bytes kept until `next` is called; a caller that stops reading lines must stop pushing too. */
  get pendingBytes(): number {
    return this.#end - this.#start;
  }

  /** Takes more of the stream. The reader owns `bytes` from now on: it keeps them where nothing waits. */
  push(bytes: Uint8Array): void {
    if (this.pendingBytes === 0) {
      this.#buffer = bytes;
      this.#start = 0;
      this.#scanned = 0;
      this.#end = bytes.length;
    } else {
      this.#makeRoom(bytes.length);
      this.#buffer.set(bytes, this.#end);
      this.#end += bytes.length;
    }
  }

  /** The next whole line; its bytes are valid until the next call of any method. */
  next(): Line | undefined {
    for (;;) {
      const rest = this.#buffer.subarray(this.#scanned, this.#end);
      const found = rest.indexOf(NEWLINE);
      const lineEnd = found < 0 ? this.#end : this.#scanned + found;
      const lineStart = this.#start;
      const isTooLong = lineEnd - lineStart > LINE_BYTES_MAX;
      const wasSkipping = this.#isSkipping;
      if (found < 0) {
        this.#scanned = this.#end;
        if (wasSkipping || isTooLong) {
          this.#start = this.#end;
          this.#isSkipping = true;
        }
        return isTooLong && !wasSkipping ? { kind: "too_long" } : undefined;
      }
      this.#start = lineEnd + 1;
      this.#scanned = this.#start;
      this.#isSkipping = false;
      if (wasSkipping) {
        continue; // the end of a line that was told already
      }
      return isTooLong
        ? { kind: "too_long" }
        : { kind: "line", bytes: this.#buffer.subarray(lineStart, lineEnd) };
    }
  }

  /** What follows the last newline, once the stream has ended and `next` has no more. */
  last(): Line | undefined {
    const bytes = this.#buffer.subarray(this.#start, this.#end);
    this.#start = this.#end;
    this.#scanned = this.#end;
    return bytes.length === 0 ? undefined : { kind: "line", bytes };
  }

  // --- internal ---

  /** Takes a larger buffer when `lengthBytes` more do not fit; twice as large, so that this is rare. */
  #makeRoom(lengthBytes: number): void {
    if (this.#end + lengthBytes <= this.#buffer.length) {
      return;
    }
    const pending = this.#buffer.subarray(this.#start, this.#end);
    const buffer = new Uint8Array((pending.length + lengthBytes) * 2);
    buffer.set(pending);
    this.#buffer = buffer;
    this.#scanned -= this.#start;
    this.#start = 0;
    this.#end = pending.length;
  }
}
