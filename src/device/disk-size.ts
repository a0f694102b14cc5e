/**
 * The size of a disk that is being served, which may grow. Shared memory: the main thread writes, others look.
 *
 *   words    | growths |
 *   doubles  | sectors |
 *
 * The number is written first and read last: who sees a growth sees its sectors, or those of a later one. A guest hears
 * of a growth after it was written here, so whoever looks behind the guest's index knows of the sectors it may ask for.
 */
import { f64 } from "../ffi/view.ts";

export interface SharedDiskSize {
  readonly words: SharedArrayBuffer;
  readonly doubles: SharedArrayBuffer;
}

export class DiskSize {
  readonly shared: SharedDiskSize;
  readonly #words: Int32Array;
  readonly #sectors: Float64Array;
  #growthsSeen = 0;

  constructor(shared: SharedDiskSize) {
    this.shared = shared;
    this.#words = new Int32Array(shared.words);
    this.#sectors = new Float64Array(shared.doubles);
  }

  static create(sectors: number): DiskSize {
    const size = new DiskSize({
      words: new SharedArrayBuffer(4),
      doubles: new SharedArrayBuffer(8),
    });
    size.#sectors[0] = sectors;
    return size;
  }

  get sectors(): number {
    return f64(this.#sectors, 0); // eight aligned bytes: never half of a number
  }

  /** Whether it has grown since this object was asked last. One atomic load. */
  hasGrown(): boolean {
    const growths = Atomics.load(this.#words, 0);
    if (growths === this.#growthsSeen) {
      return false;
    }
    this.#growthsSeen = growths;
    return true;
  }

  /** Of the main thread: everything that the new sectors need is in place. */
  grow(sectors: number): void {
    this.#sectors[0] = sectors;
    Atomics.add(this.#words, 0, 1);
  }
}
