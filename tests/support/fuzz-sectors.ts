/** What the checked sectors of a fuzzed disk hold: each write leaves a pattern of its own. */
import { CHECKED_SECTOR, CHECKED_SECTORS } from "./fuzz-layout.ts";

const SECTOR_BYTES = 512;
const SECTOR_WORDS = SECTOR_BYTES / 4;
const ZEROS = 0;
const UNKNOWN = 0xffffffff;
/** What a source of stripes holds before the first write. */
const SOURCE = 1;

export class FuzzSectors {
  readonly #generations = new Uint32Array(CHECKED_SECTORS);
  #lastGeneration = SOURCE;

  /** The disk begins as its source, not as zeros. */
  beginWithSource(): void {
    this.#generations.fill(SOURCE);
  }

  /** Zeros of an encrypted disk decipher to anything. */
  beginUnknown(): void {
    this.#generations.fill(UNKNOWN);
  }

  /** A new content for a range; what was there before is over when `target` has been written. */
  write(sector: number, count: number, target: Uint8Array): void {
    this.#lastGeneration += 1;
    this.#set(sector, count, this.#lastGeneration);
    this.expected(sector, count, target);
  }

  zero(sector: number, count: number): void {
    this.#set(sector, count, ZEROS);
  }

  /** Freed: anything may be read from it. */
  forget(sector: number, count: number): void {
    this.#set(sector, count, UNKNOWN);
  }

  isKnown(sector: number, count: number): boolean {
    const first = sector - CHECKED_SECTOR;
    return !this.#generations.subarray(first, first + count).includes(UNKNOWN);
  }

  /** Fills the beginning of `target` with what the range must hold. Unknown sectors are zeros in it. */
  expected(sector: number, count: number, target: Uint8Array): void {
    const words = new Uint32Array(target.buffer, target.byteOffset, count * SECTOR_WORDS);
    for (let i = 0; i < count; i++) {
      fillSector(
        words,
        i * SECTOR_WORDS,
        sector + i,
        this.#generations[sector + i - CHECKED_SECTOR] ?? 0,
      );
    }
  }

  #set(sector: number, count: number, generation: number): void {
    const first = sector - CHECKED_SECTOR;
    this.#generations.fill(generation, first, first + count);
  }
}

function fillSector(words: Uint32Array, first: number, sector: number, generation: number): void {
  if (generation === ZEROS || generation === UNKNOWN) {
    words.fill(0, first, first + SECTOR_WORDS);
    return;
  }
  let word = Math.imul(sector ^ Math.imul(generation, 0x9e3779b1), 0x85ebca6b);
  for (let i = first; i < first + SECTOR_WORDS; i++) {
    words[i] = word;
    word = (word + 0x01000193) | 0;
  }
}
