/** Bytes that a client has sent, up to what makes whole requests. The memory is the caller's. */
import { assert } from "../errors.ts";
import { requestBytes, requestedStripe } from "../formats/stripe-protocol.ts";

/** A request; its stripe only where it is a read. */
export interface Request {
  readonly opcode: number;
  readonly stripe: number;
}

export class RequestInput {
  readonly #bytes: Uint8Array;
  readonly #address: number;
  #start = 0;
  #end = 0;

  constructor(memory: { readonly view: Uint8Array; readonly address: number }) {
    this.#bytes = memory.view;
    this.#address = memory.address;
  }

  /** Where the next bytes go, and how many of them have room. */
  get room(): { readonly address: number; readonly lengthBytes: number } {
    if (this.#start > 0) {
      this.#bytes.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    return { address: this.#address + this.#end, lengthBytes: this.#bytes.length - this.#end };
  }

  /** So many bytes were put there. */
  add(count: number): void {
    this.#end += count;
    assert(this.#end <= this.#bytes.length, "what was read had room");
  }

  /** Bytes that make no whole request yet, or that nobody has taken. */
  get isEmpty(): boolean {
    return this.#start === this.#end;
  }

  /** The next whole request, or nothing. */
  take(): Request | undefined {
    const opcode = this.#bytes[this.#start];
    if (this.isEmpty || opcode === undefined) {
      return undefined;
    }
    const length = requestBytes(opcode);
    if (this.#end - this.#start < length) {
      return undefined;
    }
    const stripe = length === 1 ? -1 : requestedStripe(this.#bytes, this.#start);
    this.#start += length;
    return { opcode, stripe };
  }

  /** Forgets everything. */
  clear(): void {
    this.#start = 0;
    this.#end = 0;
  }
}
