/** Requests of a connection whose answers are still to come, in the order in which they were sent. */
import { assert } from "../errors.ts";
import { f64, i32 } from "../ffi/view.ts";

export class PendingRequests {
  readonly #capacity: number;
  readonly #opcode: Int32Array;
  readonly #id: Int32Array;
  readonly #stripe: Float64Array;
  readonly #address: Float64Array;
  #first = 0;
  #count = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#opcode = new Int32Array(capacity);
    this.#id = new Int32Array(capacity);
    this.#stripe = new Float64Array(capacity);
    this.#address = new Float64Array(capacity);
  }

  get count(): number {
    return this.#count;
  }

  /** @param id of a read; -1 where the connection itself asks */
  add(opcode: number, id: number, stripe: number, address: number): void {
    assert(this.#count < this.#capacity, "no more is asked than there is room for");
    const place = (this.#first + this.#count) % this.#capacity;
    this.#opcode[place] = opcode;
    this.#id[place] = id;
    this.#stripe[place] = stripe;
    this.#address[place] = address;
    this.#count += 1;
  }

  // The oldest:

  get opcode(): number {
    return i32(this.#opcode, this.#first);
  }

  get id(): number {
    return i32(this.#id, this.#first);
  }

  get stripe(): number {
    return f64(this.#stripe, this.#first);
  }

  get address(): number {
    return f64(this.#address, this.#first);
  }

  drop(): void {
    assert(this.#count > 0, "only what was asked is answered");
    this.#first = (this.#first + 1) % this.#capacity;
    this.#count -= 1;
  }
}
