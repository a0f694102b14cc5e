/**
 * Which failures of an S3 request are tried again, and when. Pure: the dice are handed in.
 *
 * Statuses and codes are those that AWS's own clients retry in their standard mode. Beyond them: `Retry-After` is
 * honoured (it also makes a 429 retryable), and everything that goes wrong while a body is read counts as a
 * broken connection.
 */
import type { RETRY_COST } from "./s3-limits.ts";

/** What a response says of its failure. */
export interface ResponseFailure {
  readonly status: number;
  /** `<Code>` of the error document. */
  readonly code: string | undefined;
  /** `x-amz-retry-after`: milliseconds. */
  readonly amzRetryAfter: string | null;
  /** `Retry-After`: seconds or a date. */
  readonly retryAfter: string | null;
}

export interface RetryRules {
  readonly rateLimitedRetry: { readonly delayMsMin: number; readonly jitterMs: number } | undefined;
}

export interface Retry {
  readonly kind: keyof typeof RETRY_COST;
  /** At least this long; undefined: the exponential delay. */
  readonly delayMs: number | undefined;
}

/** The longest wait that a service can ask for with `Retry-After`. */
export const RETRY_AFTER_MS_MAX = 60_000;
const BACKOFF_MS_FIRST = 1000;
const BACKOFF_MS_MAX = 20_000;

/** A failure without a (whole) response: always worth another try. */
export const BROKEN_CONNECTION: Retry = { kind: "transient", delayMs: undefined };

/** How a failed response is tried again, or undefined when it is final. */
export function classify(
  failure: ResponseFailure,
  rules: RetryRules,
  random: () => number,
  nowMs: number,
): Retry | undefined {
  const { status, code } = failure;
  const isThrottling = code !== undefined && THROTTLING_CODES.has(code);
  const isTransientCode = code !== undefined && TRANSIENT_CODES.has(code);
  const asked = retryAfterMs(failure.retryAfter, nowMs);
  const limited = rules.rateLimitedRetry;
  if (limited !== undefined && (status === 429 || RETRIED_STATUSES.has(status))) {
    const delayMs = limited.delayMsMin + random() * limited.jitterMs;
    return { kind: "throttling", delayMs: Math.max(delayMs, asked ?? 0) };
  }
  const hintMs =
    isThrottling || isTransientCode ? amzRetryAfterMs(failure.amzRetryAfter, rules) : undefined;
  const delayMs = asked === undefined ? hintMs : Math.max(asked, hintMs ?? 0);
  if (isThrottling || (status === 429 && asked !== undefined)) {
    return { kind: "throttling", delayMs };
  }
  if (isTransientCode || RETRIED_STATUSES.has(status)) {
    return { kind: "transient", delayMs };
  }
  return undefined;
}

/** How long to wait before retry `retryCount` (1, 2, ...). */
export function delayBefore(
  retry: Retry,
  retryCount: number,
  rules: RetryRules,
  random: () => number,
): number {
  const upper = Math.min(BACKOFF_MS_FIRST * 2 ** (retryCount - 1), backoffMsMax(rules));
  return retry.delayMs ?? random() * upper;
}

// --- internal ---

const RETRIED_STATUSES: ReadonlySet<number> = new Set([500, 502, 503, 504]);

const THROTTLING_CODES: ReadonlySet<string> = new Set([
  "Throttling",
  "ThrottlingException",
  "ThrottledException",
  "RequestThrottledException",
  "TooManyRequestsException",
  "ProvisionedThroughputExceededException",
  "TransactionInProgressException",
  "RequestLimitExceeded",
  "BandwidthLimitExceeded",
  "LimitExceededException",
  "RequestThrottled",
  "SlowDown",
  "PriorRequestNotComplete",
  "EC2ThrottledException",
]);

const TRANSIENT_CODES: ReadonlySet<string> = new Set([
  "RequestTimeout",
  "RequestTimeoutException",
  "InternalError",
]);

/** A configured delay that is longer than the usual maximum raises it. */
function backoffMsMax({ rateLimitedRetry }: RetryRules): number {
  const configured =
    rateLimitedRetry === undefined ? 0 : rateLimitedRetry.delayMsMin + rateLimitedRetry.jitterMs;
  return Math.max(BACKOFF_MS_MAX, configured);
}

function amzRetryAfterMs(header: string | null, rules: RetryRules): number | undefined {
  return header !== null && /^\d{1,12}$/.test(header)
    ? Math.min(Number(header), backoffMsMax(rules))
    : undefined;
}

function retryAfterMs(header: string | null, nowMs: number): number | undefined {
  if (header === null) {
    return undefined;
  }
  const delayMs = /^\d{1,12}$/.test(header)
    ? Number(header) * 1000
    : Math.max(Date.parse(header) - nowMs, 0);
  return Number.isNaN(delayMs) ? undefined : Math.min(delayMs, RETRY_AFTER_MS_MAX);
}
