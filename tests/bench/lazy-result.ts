/** Lines of results for the rows of lazy disks, from the samples of both sides. */
import { median, type ResultLine, type RowResult, shortNumber } from "./result.ts";

export interface Comparison {
  readonly what: string;
  readonly ours: readonly number[];
  readonly peer: readonly number[];
  /** Of the medians, ours to the peer's; left out: nothing is asked for. */
  readonly limit?: { readonly atLeast: number } | { readonly atMost: number };
}

export function compareMedians({ what, ours, peer, limit }: Comparison): ResultLine {
  const ratio = median(ours) / median(peer);
  const figures = {
    what,
    ours: shortNumber(median(ours)),
    peer: shortNumber(median(peer)),
    ratio: ratio.toFixed(3),
  };
  if (limit === undefined) {
    return { ...figures, goal: "", isMet: undefined };
  }
  return "atLeast" in limit
    ? { ...figures, goal: `>= ${limit.atLeast.toFixed(3)}`, isMet: ratio >= limit.atLeast }
    : { ...figures, goal: `<= ${limit.atMost.toFixed(3)}`, isMet: ratio <= limit.atMost };
}

/** A row that this machine cannot run. */
export function skipped(row: Pick<RowResult, "id" | "title">, reason: string): RowResult {
  return {
    ...row,
    title: `${row.title}: SKIPPED, ${reason}`,
    lines: [],
    details: { skipped: reason },
  };
}
