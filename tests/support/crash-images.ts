/**
 * What two disks may hold after a crash: of the writes that are not certain every subset, or a choice of them when
 * there are many, each also with a write torn between two of its sectors. The disks lose writes independently.
 */
import type { SeededRandom } from "./random.ts";
import type { OpenWrite, RecordingDisk } from "./recording-disk.ts";

const ALL_SUBSETS_MAX = 8;
const CHOSEN_SUBSETS = 256;

export class CrashImages {
  readonly base: Int32Array;
  readonly metadata: Int32Array;
  readonly #disks: readonly [RecordingDisk, RecordingDisk];
  readonly #random: SeededRandom;

  constructor(base: RecordingDisk, metadata: RecordingDisk, random: SeededRandom) {
    this.#disks = [base, metadata];
    this.#random = random;
    this.base = new Int32Array(base.certain.length);
    this.metadata = new Int32Array(metadata.certain.length);
  }

  /** Calls `check` with each image in `base` and `metadata`. Returns how many there were. */
  each(check: () => void): number {
    const [base, metadata] = this.#disks;
    const count = base.open.length + metadata.open.length;
    const subsets = count <= ALL_SUBSETS_MAX ? 2 ** count : CHOSEN_SUBSETS;
    let images = 0;
    for (let i = 0; i < subsets; i++) {
      const subset = count <= ALL_SUBSETS_MAX ? i : this.#random.below(2 ** Math.min(count, 30));
      this.#build(subset, false);
      check();
      images += 1;
      if (this.#build(subset, true)) {
        check();
        images += 1;
      }
    }
    return images;
  }

  /** One image, as if the power failed now. */
  choose(): void {
    this.#build(this.#random.below(2 ** 30), this.#random.oneIn(2));
  }

  // --- internal ---

  /** Returns whether a write was torn. */
  #build(subset: number, mayTear: boolean): boolean {
    const [base, metadata] = this.#disks;
    this.base.set(base.certain);
    this.metadata.set(metadata.certain);
    let isTorn = false;
    let bit = 0;
    for (const write of base.open) {
      if (isIn(subset, bit)) {
        isTorn = this.#apply(write, mayTear) || isTorn;
      }
      bit += 1;
    }
    for (const write of metadata.open) {
      if (isIn(subset, bit)) {
        this.metadata.set(write.words, write.sector * metadata.wordsPerSector); // one sector
      }
      bit += 1;
    }
    return isTorn;
  }

  #apply(write: OpenWrite, mayTear: boolean): boolean {
    const { words, sector } = write; // of the base: one word a sector
    if (!mayTear || words.length === 1) {
      this.base.set(words, sector);
      return false;
    }
    const kept = this.#random.between(1, 2 ** words.length - 2);
    for (let i = 0; i < words.length; i++) {
      if (isIn(kept, i)) {
        this.base[sector + i] = words[i] ?? 0;
      }
    }
    return true;
  }
}

// --- internal ---

function isIn(subset: number, index: number): boolean {
  return ((subset >>> (index % 30)) & 1) === 1;
}
