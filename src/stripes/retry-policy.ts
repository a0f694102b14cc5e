/** How often, and after which pause, work that failed is done again. */

export interface RetryPolicy {
  /** After the first failure; one more is the last. */
  readonly retriesMax: number;
  /** Before the first retry; doubled for each further one. */
  readonly pauseMs: number;
}

export const RETRY_DEFAULT: RetryPolicy = { retriesMax: 3, pauseMs: 100 };

/** The pause after failure number `failures`, which counts from 1; undefined when it was the last. */
export function pauseAfter(policy: RetryPolicy, failures: number): number | undefined {
  return failures > policy.retriesMax ? undefined : policy.pauseMs * 2 ** (failures - 1);
}
