/**
 * Latencies of a disk by operation, of all its queues together. A queue has 8 buckets to each power of two; here those
 * between two powers of two are one, so that limits stay exact and few. What took as long as a limit, to the
 * nanosecond, counts above it.
 */
import { amountOf, listOf, recordOf } from "../top/json-reader.ts";
import type { Answers, MetricFamily, MetricSample } from "./family.ts";
import { queuesOf } from "./queue-metrics.ts";

/** From 4 µs to 34 s. */
const LIMITS_NS: readonly number[] = Array.from({ length: 24 }, (_, i) => 2 ** (12 + i));
const OPERATIONS = ["read", "write", "flush"] as const;
/** More than a queue has. */
const BUCKETS_MAX = 4096;

export const LATENCY_FAMILIES: readonly MetricFamily[] = [
  {
    name: "ubiblk_operation_duration_seconds",
    type: "histogram",
    unit: "seconds",
    help: "Time from when a request was taken to when it ended, of all queues.",
    samples: (answers) =>
      answers.has("histograms")
        ? OPERATIONS.flatMap((operation) => histogramSamples(answers, operation))
        : [],
  },
];

// --- internal ---

function histogramSamples(answers: Answers, operation: string): readonly MetricSample[] {
  const counts = new Float64Array(LIMITS_NS.length + 1);
  const queues = listOf(recordOf(answers.get("histograms")?.histograms).queues, BUCKETS_MAX);
  for (const queue of queues) {
    for (const pair of listOf(recordOf(queue)[operation], BUCKETS_MAX)) {
      const [limitNs, count] = listOf(pair, 2).map(amountOf);
      if (limitNs !== undefined && count !== undefined) {
        const found = LIMITS_NS.findIndex((limit) => limitNs <= limit);
        const at = found < 0 ? LIMITS_NS.length : found;
        counts[at] = (counts[at] ?? 0) + count;
      }
    }
  }
  let below = 0;
  const buckets = Array.from(counts, (count, index): MetricSample => {
    below += count;
    const limitNs = LIMITS_NS[index];
    const le = limitNs === undefined ? "+Inf" : String(limitNs / 1e9);
    return { suffix: "_bucket", labels: { operation, le }, value: below };
  });
  const labels = { operation };
  return [
    ...buckets,
    { suffix: "_sum", labels, value: sumSeconds(answers, operation) },
    { suffix: "_count", labels, value: below },
  ];
}

function sumSeconds(answers: Answers, operation: string): number {
  const sumsNs = queuesOf(answers).map((queue) => {
    const { sum_ns: sumNs } = recordOf(recordOf(queue.latency)[operation]);
    return amountOf(sumNs) ?? 0;
  });
  return sumsNs.reduce((sum, each) => sum + each, 0) / 1e9;
}
