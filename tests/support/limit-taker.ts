/** A thread that takes tokens as fast as it can. */
import { type SharedLimits, TokenBuckets } from "../../src/device/token-buckets.ts";

interface Work {
  readonly shared: SharedLimits;
  readonly member: number;
  readonly takes: number;
  readonly nowNs: number;
}

addEventListener(
  "message",
  ({ data: { shared, member, takes, nowNs } }: MessageEvent<Work>) => {
    const buckets = new TokenBuckets(shared, member);
    const starts = new Float64Array(takes);
    for (let i = 0; i < takes; i++) {
      starts[i] = buckets.take(i % 2 === 0, 1, 512, nowNs);
    }
    postMessage(starts);
  },
  { once: true },
);
