/** Ends of requests, kept until their owner reads them. A request has one end, so the list is bounded. */
import { assert } from "../errors.ts";
import { i32 } from "../ffi/view.ts";

export class CompletionList {
  readonly #ids: Int32Array;
  readonly #results: Int32Array;
  #count = 0;

  constructor(requestsMax: number) {
    this.#ids = new Int32Array(requestsMax);
    this.#results = new Int32Array(requestsMax);
  }

  get count(): number {
    return this.#count;
  }

  add(id: number, result: number): void {
    assert(this.#count < this.#ids.length, "a request ends once");
    this.#ids[this.#count] = id;
    this.#results[this.#count] = result;
    this.#count += 1;
  }

  id(index: number): number {
    return i32(this.#ids, index);
  }

  result(index: number): number {
    return i32(this.#results, index);
  }

  /** Drops the first `count`. */
  release(count: number): void {
    assert(count <= this.#count, "only what is there is dropped");
    this.#ids.copyWithin(0, count, this.#count);
    this.#results.copyWithin(0, count, this.#count);
    this.#count -= count;
  }
}
