/** Tags in the order in which they came: a circle with room for all tags of a queue. */
import { assert } from "../errors.ts";
import { u16 } from "../ffi/view.ts";

export class TagQueue {
  readonly #tags: Uint16Array;
  #head = 0;
  #count = 0;

  constructor(depth: number) {
    this.#tags = new Uint16Array(depth);
  }

  get count(): number {
    return this.#count;
  }

  /** The oldest one. */
  get first(): number {
    return u16(this.#tags, this.#head);
  }

  push(tag: number): void {
    assert(this.#count < this.#tags.length, "a queue holds each of its tags once");
    this.#tags[(this.#head + this.#count) % this.#tags.length] = tag;
    this.#count += 1;
  }

  /** Takes the oldest one out. */
  shift(): number {
    const tag = this.first;
    this.#head = (this.#head + 1) % this.#tags.length;
    this.#count -= 1;
    return tag;
  }
}
