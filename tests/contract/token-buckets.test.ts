/** Buckets between real threads: no token is lost, none is given twice. */
import { expect, test } from "bun:test";
import { LIMITS } from "../../src/config/limit-rules.ts";
import { TokenBuckets } from "../../src/device/token-buckets.ts";

const THREADS = 4;
const TAKES = 50_000;
const NOW_NS = 1e9;
/** A token a microsecond: start times are whole numbers. */
const PER_SECOND = 1e6;

test(`${THREADS} threads at once: every token has one taker, at one time`, async () => {
  const shared = TokenBuckets.share(THREADS + 1);
  const control = new TokenBuckets(shared, THREADS);
  const burst = 1000;
  control.set(
    LIMITS.map(({ rate }) => ({
      perSecond: rate === "iops" ? PER_SECOND : undefined,
      burst: rate === "iops" ? burst : undefined,
    })),
    NOW_NS,
  );
  const takers = Array.from({ length: THREADS }, (_, member) => startsOf(shared, member));
  const starts = (await Promise.all(takers)).flatMap((each) => [...each]).toSorted((a, b) => a - b);
  const expected = Array.from({ length: THREADS * TAKES }, (_, i) =>
    i < burst ? 0 : i - burst + 1,
  );
  expect(starts.map((startNs) => Math.round((startNs - NOW_NS) / 1000))).toEqual(expected);
});

// --- internal ---

function startsOf(shared: ReturnType<typeof TokenBuckets.share>, member: number) {
  const worker = new Worker(new URL("../support/limit-taker.ts", import.meta.url));
  return new Promise<Float64Array>((resolve, reject) => {
    worker.addEventListener("message", ({ data }: MessageEvent<Float64Array>) => resolve(data));
    worker.addEventListener("error", (event) => reject(new Error(event.message)));
    worker.postMessage({ shared, member, takes: TAKES, nowNs: NOW_NS });
  });
}
