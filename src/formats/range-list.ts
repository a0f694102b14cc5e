/**
 * A list of ranges of a disk, in the order in which they are wanted: what `prefetch` reads and `record` writes.
 *
 *     # ubiblk ranges 1: FIRST COUNT, in sectors of 512 bytes
 *     0 2048
 *     1048576 64      # the rest of a line is a comment
 *
 * One range a line; empty lines are skipped.
 */
import { UbiError } from "../errors.ts";

/** The first line of a list that was written here. */
export const RANGE_LIST_HEAD = "# ubiblk ranges 1: FIRST COUNT, in sectors of 512 bytes\n";
export const RANGE_LIST_BYTES_MAX = 16 * 2 ** 20;

export interface SectorRange {
  readonly first: number;
  readonly count: number;
}

/**
 * @param name the file, for messages
 * @throws UbiError E_PREFETCH with the number of the line
 */
export function parseRangeList(text: string, name: string): readonly SectorRange[] {
  const ranges: SectorRange[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    const content = line.replace(/#.*/, "").trim();
    if (content !== "") {
      const [first, count] = /^(\d+)[ \t]+(\d+)$/.exec(content)?.slice(1).map(Number) ?? [];
      if (first === undefined || count === undefined || !isRange(first, count)) {
        throw new UbiError(
          "E_PREFETCH",
          `${name}:${index + 1}: not a range; FIRST COUNT in sectors of 512 bytes is expected, count 1 or more`,
        );
      }
      ranges.push({ first, count });
    }
  }
  return ranges;
}

export function formatRange({ first, count }: SectorRange): string {
  return `${first} ${count}\n`;
}

// --- internal ---

function isRange(first: number, count: number): boolean {
  return count > 0 && Number.isSafeInteger(first + count);
}
