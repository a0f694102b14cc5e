import { expect, test } from "bun:test";
import {
  BROKEN_CONNECTION,
  classify,
  delayBefore,
  RETRY_AFTER_MS_MAX,
  type ResponseFailure,
  type RetryRules,
} from "./s3-retry.ts";

const PLAIN: RetryRules = { rateLimitedRetry: undefined };
const LIMITED: RetryRules = { rateLimitedRetry: { delayMsMin: 500, jitterMs: 300 } };
const NOW = Date.parse("2026-01-01T00:00:00Z");

const failed = (status: number, changes: Partial<ResponseFailure> = {}): ResponseFailure => ({
  status,
  code: undefined,
  amzRetryAfter: null,
  retryAfter: null,
  ...changes,
});
const judged = (failure: ResponseFailure, rules = PLAIN, dice = 0.5) =>
  classify(failure, rules, () => dice, NOW);

test.each([500, 502, 503, 504])("status %d is tried again with the exponential delay", (status) => {
  expect(judged(failed(status))).toEqual({ kind: "transient", delayMs: undefined });
});

test.each([301, 307, 400, 401, 403, 404, 409, 412, 416, 429, 501])(
  "status %d without a code is final",
  (status) => {
    expect(judged(failed(status))).toBeUndefined();
  },
);

test.each(["SlowDown", "Throttling", "RequestLimitExceeded", "BandwidthLimitExceeded"])(
  "the code %s is throttling, whatever the status",
  (code) => {
    expect(judged(failed(400, { code }))).toEqual({ kind: "throttling", delayMs: undefined });
    expect(judged(failed(429, { code }))?.kind).toBe("throttling");
  },
);

test.each(["RequestTimeout", "InternalError"])("the code %s is transient", (code) => {
  expect(judged(failed(400, { code }))?.kind).toBe("transient");
});

test("x-amz-retry-after counts in milliseconds, up to 20 s, and only for a code that is known", () => {
  const after = (amzRetryAfter: string, code?: string) =>
    judged(failed(503, { amzRetryAfter, code }))?.delayMs;
  expect(after("1500", "SlowDown")).toBe(1500);
  expect(after("90000", "SlowDown")).toBe(20_000);
  expect(after("1500")).toBeUndefined();
  expect(after("soon", "SlowDown")).toBeUndefined();
});

test("Retry-After counts in seconds or as a date, up to its limit, and makes a 429 retryable", () => {
  const after = (status: number, retryAfter: string) => judged(failed(status, { retryAfter }));
  expect(after(503, "3")).toEqual({ kind: "transient", delayMs: 3000 });
  expect(after(429, "3")).toEqual({ kind: "throttling", delayMs: 3000 });
  expect(after(503, "Thu, 01 Jan 2026 00:00:07 GMT")?.delayMs).toBe(7000);
  expect(after(503, "Wed, 31 Dec 2025 00:00:00 GMT")?.delayMs).toBe(0);
  expect(after(503, "86400")?.delayMs).toBe(RETRY_AFTER_MS_MAX);
  expect(after(503, "later")?.delayMs).toBeUndefined();
  expect(after(429, "later")).toBeUndefined();
  expect(after(403, "3")).toBeUndefined();
});

test.each([500, 502, 503, 504, 429])(
  "rate_limited_retry: status %d waits the least delay and some of the jitter",
  (status) => {
    expect(judged(failed(status), LIMITED, 0)).toEqual({ kind: "throttling", delayMs: 500 });
    expect(judged(failed(status), LIMITED, 0.5)?.delayMs).toBe(650);
    expect(judged(failed(status), LIMITED, 0.999)?.delayMs).toBeLessThan(800);
  },
);

test("rate_limited_retry leaves other failures alone and never undercuts Retry-After", () => {
  expect(judged(failed(403), LIMITED)).toBeUndefined();
  expect(judged(failed(400, { code: "SlowDown" }), LIMITED)?.delayMs).toBeUndefined();
  expect(judged(failed(429, { retryAfter: "9" }), LIMITED)?.delayMs).toBe(9000);
});

test("the exponential delay doubles from 1 s to 20 s and is spread from zero", () => {
  const delays = (dice: number, rules = PLAIN) =>
    [1, 2, 3, 4, 5, 6, 40].map((count) => delayBefore(BROKEN_CONNECTION, count, rules, () => dice));
  expect(delays(1)).toEqual([1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
  expect(delays(0)).toEqual([0, 0, 0, 0, 0, 0, 0]);
  expect(delays(0.5)[1]).toBe(1000);
});

test("a configured delay above 20 s raises the limit of the exponential delay", () => {
  const rules = { rateLimitedRetry: { delayMsMin: 15_000, jitterMs: 15_000 } };
  expect(delayBefore(BROKEN_CONNECTION, 10, rules, () => 1)).toBe(30_000);
});

test("a delay that was asked for is waited as it is", () => {
  const retry = { kind: "throttling", delayMs: 1234 } as const;
  expect(delayBefore(retry, 5, PLAIN, () => 0)).toBe(1234);
});
