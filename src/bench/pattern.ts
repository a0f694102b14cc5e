/**
 * What verified writes put into each sector: a stamp that tells where and when it was written, then
 * numbers that follow from seed, sector and generation. A sector at the wrong place, of the wrong
 * time, or torn is told from a right one by any of its bytes.
 *
 *     word 0     1            2             3            4 ... 127
 *     "UBIV"  | sector low | sector high | generation | xorshift32 numbers
 */

import { u32 } from "../ffi/view.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { mix } from "./random.ts";

export const SECTOR_WORDS = SECTOR_BYTES / 4;
const MAGIC = 0x56494255;
const STAMP_WORDS = 4;

/** One sector's identity. */
export interface SectorStamp {
  readonly sector: number;
  readonly generation: number;
}

export class Pattern {
  readonly #seed: number;
  readonly #expected = new Uint32Array(SECTOR_WORDS);

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Fills the words of one sector, which begin at `offset`. */
  fill(words: Uint32Array, offset: number, sector: number, generation: number): void {
    words[offset] = MAGIC;
    words[offset + 1] = sector % 2 ** 32;
    words[offset + 2] = Math.floor(sector / 2 ** 32);
    words[offset + 3] = generation;
    let x = mix(mix(mix(this.#seed) ^ (sector >>> 0)) ^ generation) || 1;
    for (let i = STAMP_WORDS; i < SECTOR_WORDS; i++) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      words[offset + i] = x;
    }
  }

  /** The index (0 to 127) of the first word that differs from what `fill` writes, or -1. */
  firstDifference(words: Uint32Array, offset: number, sector: number, generation: number): number {
    this.fill(this.#expected, 0, sector, generation);
    for (let i = 0; i < SECTOR_WORDS; i++) {
      if (u32(words, offset + i) !== u32(this.#expected, i)) {
        return i;
      }
    }
    return -1;
  }

  /** Both values of the word at `index`, as bytes in the order of the disk. */
  differenceText(words: Uint32Array, offset: number, index: number): string {
    const expected = wordText(u32(this.#expected, index));
    return `byte ${index * 4}: expected ${expected}, got ${wordText(u32(words, offset + index))}`;
  }
}

/** What the stamp of a sector claims, or undefined when it has none. */
export function readStamp(words: Uint32Array, offset: number): SectorStamp | undefined {
  if (u32(words, offset) !== MAGIC) {
    return undefined;
  }
  const sector = u32(words, offset + 2) * 2 ** 32 + u32(words, offset + 1);
  return { sector, generation: u32(words, offset + 3) };
}

// --- internal ---

function wordText(word: number): string {
  const bytes = [word & 0xff, (word >>> 8) & 0xff, (word >>> 16) & 0xff, word >>> 24];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
