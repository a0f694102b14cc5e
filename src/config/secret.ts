/** Holds the bytes of one secret: they are shown nowhere by accident and can be wiped. */
import { inspect } from "node:util";
import { assert } from "../errors.ts";

export class Secret {
  readonly name: string;
  readonly #bytes: Uint8Array;
  #isWiped = false;

  /** Takes over `bytes`: the caller keeps no other use of them. */
  constructor(name: string, bytes: Uint8Array) {
    this.name = name;
    this.#bytes = bytes;
  }

  /** The live bytes, not a copy: do not keep them longer than this object. */
  get bytes(): Uint8Array {
    assert(!this.#isWiped, `secret ${this.name} is not used after it was wiped`);
    return this.#bytes;
  }

  get length(): number {
    return this.#bytes.length;
  }

  /** Overwrites the bytes with zeros. May be called again. */
  wipe(): void {
    this.#bytes.fill(0);
    this.#isWiped = true;
  }

  [Symbol.dispose](): void {
    this.wipe();
  }

  toString(): string {
    return `[secret ${JSON.stringify(this.name)}, redacted]`;
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }
}
