/** Latency histograms: how many requests stayed below each limit, and what two readings have between them. */

/** Counts by the limit of their bucket in nanoseconds; a missing limit counts nothing. */
export type Histogram = ReadonlyMap<number, number>;

const LATENCY_OPERATIONS = ["read", "write", "flush"] as const;

export type LatencyOperation = (typeof LATENCY_OPERATIONS)[number];

/** Undefined where the backend tells no latencies. */
export type Histograms = Readonly<Record<LatencyOperation, Histogram | undefined>>;

export const NO_HISTOGRAMS: Histograms = { read: undefined, write: undefined, flush: undefined };

/** What came between two readings; undefined when one is missing. */
export function histogramsBetween(before: Histograms, after: Histograms): Histograms {
  return eachOperation((operation) => difference(before[operation], after[operation]));
}

/** All requests of several histograms together; undefined when none has any. */
export function mergeHistograms(all: readonly Histograms[]): Histograms {
  return eachOperation((operation) => sum(all.map((each) => each[operation])));
}

/** Whether a bucket counts less than before: the counting process is another one. */
export function hasShrunk(before: Histograms, after: Histograms): boolean {
  return LATENCY_OPERATIONS.some((operation) => {
    const now = after[operation];
    const then = before[operation];
    return (
      now !== undefined &&
      then !== undefined &&
      [...then].some(([limitNs, count]) => (now.get(limitNs) ?? 0) < count)
    );
  });
}

export function countOf(histogram: Histogram): number {
  return [...histogram.values()].reduce((total, count) => total + count, 0);
}

/** The limit that `fraction` (0 to 1) of the requests stayed below; undefined when there are none. */
export function percentileNs(
  histogram: Histogram | undefined,
  fraction: number,
): number | undefined {
  if (histogram === undefined) {
    return undefined;
  }
  const rank = Math.max(1, Math.ceil(countOf(histogram) * fraction));
  let seen = 0;
  for (const [limitNs, count] of [...histogram].sort(([a], [b]) => a - b)) {
    seen += count;
    if (seen >= rank) {
      return limitNs;
    }
  }
  return undefined;
}

// --- internal ---

function eachOperation(value: (operation: LatencyOperation) => Histogram | undefined): Histograms {
  return { read: value("read"), write: value("write"), flush: value("flush") };
}

function difference(
  before: Histogram | undefined,
  after: Histogram | undefined,
): Histogram | undefined {
  if (before === undefined || after === undefined) {
    return undefined;
  }
  const between = new Map<number, number>();
  for (const [limitNs, count] of after) {
    const added = count - (before.get(limitNs) ?? 0);
    if (added > 0) {
      between.set(limitNs, added);
    }
  }
  return between;
}

function sum(histograms: readonly (Histogram | undefined)[]): Histogram | undefined {
  const known = histograms.filter((histogram) => histogram !== undefined);
  if (known.length === 0) {
    return undefined;
  }
  const total = new Map<number, number>();
  for (const [limitNs, count] of known.flatMap((histogram) => [...histogram])) {
    total.set(limitNs, (total.get(limitNs) ?? 0) + count);
  }
  return total;
}
