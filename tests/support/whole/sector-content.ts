/**
 * What a sector holds, as one number: zeros, the source, what the host left there, a write of the guest (from 1 on),
 * or something else. Every word of a sector is made of its number and its place, so that no part of it may come
 * from elsewhere.
 */
import { SECTOR } from "./sim-disk.ts";

export const Content = { zeros: 0, source: -1, stale: -2, other: -3 } as const;

const WORDS = SECTOR / 4;
const SOURCE_MARK = 0x4000_0000;
const STALE_WORD = 0x5a5a_5a5a;

/** Fills sectors that follow each other; `words` begins with the first of them. */
export function fillContent(words: Int32Array, sector: number, count: number, content: number) {
  for (let i = 0; i < count; i++) {
    const at = i * WORDS;
    if (content === Content.zeros) {
      words.fill(0, at, at + WORDS);
    } else if (content === Content.stale) {
      words.fill(STALE_WORD, at, at + WORDS);
    } else {
      fillSector(words, at, content === Content.source ? SOURCE_MARK : content, sector + i);
    }
  }
}

/** What the sector at word `at` holds, as sector number `sector`. */
export function contentAt(words: Int32Array, at: number, sector: number): number {
  const first = words[at] ?? 0;
  if (first === 0 || first === STALE_WORD) {
    for (let i = 1; i < WORDS; i++) {
      if (words[at + i] !== first) {
        return Content.other;
      }
    }
    return first === 0 ? Content.zeros : Content.stale;
  }
  for (let i = 1; i < WORDS; i++) {
    if (words[at + i] !== wordOf(first, sector, i)) {
      return Content.other;
    }
  }
  return first === SOURCE_MARK ? Content.source : first > 0 ? first : Content.other;
}

export function nameOfContent(content: number): string {
  const names: Readonly<Record<number, string>> = {
    0: "zeros",
    [-1]: "the source",
    [-2]: "what the host left",
    [-3]: "something else",
  };
  return names[content] ?? `write ${content}`;
}

// --- internal ---

function fillSector(words: Int32Array, at: number, mark: number, sector: number): void {
  words[at] = mark;
  for (let i = 1; i < WORDS; i++) {
    words[at + i] = wordOf(mark, sector, i);
  }
}

function wordOf(mark: number, sector: number, index: number): number {
  return (Math.imul(mark, 0x9e37_79b1) ^ Math.imul(sector + 1, 0x85eb_ca6b)) + index;
}
