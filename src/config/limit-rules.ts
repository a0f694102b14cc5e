/** The limits that a disk can have, by their names in documents and in the RPC, and what is asked of their values. */

/** Each of what they count has a limit for all requests, one for reads and one for writes, in this order. */
export const LIMITS = [
  { rate: "iops", burst: "iops_burst" },
  { rate: "read_iops", burst: "read_iops_burst" },
  { rate: "write_iops", burst: "write_iops_burst" },
  { rate: "bytes_per_second", burst: "bytes_burst" },
  { rate: "read_bytes_per_second", burst: "read_bytes_burst" },
  { rate: "write_bytes_per_second", burst: "write_bytes_burst" },
] as const;

/** The least that limits of bytes accept: with less a request would wait longer than guests do. */
export const LIMIT_BYTES_MIN = 4096;

/** One limit as it is set. */
export interface Limit {
  /** Operations or bytes; undefined for no limit. */
  readonly perSecond: number | undefined;
  /** What may go at once after a rest; undefined for a tenth of a second's. */
  readonly burst: number | undefined;
}

/** What is wrong with the burst of a limit; undefined for nothing. @param rate its other key */
export function burstMistake({ perSecond, burst }: Limit, rate: string): string | undefined {
  if (burst === undefined) {
    return undefined;
  }
  if (perSecond === undefined) {
    return `has no effect without ${rate}`;
  }
  const least = Math.ceil(perSecond / MILLISECONDS);
  return burst < least
    ? `${burst} is less than ${rate} gives in a millisecond; at least ${least} is accepted`
    : undefined;
}

// --- internal ---

/** With a smaller bucket what a queue sleeps through would be lost, and the limit never reached. */
const MILLISECONDS = 1000;
