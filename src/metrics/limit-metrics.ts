/** Limits of a disk, and what they hold back. */
import { amountOf, listOf, recordOf } from "../top/json-reader.ts";
import { type Answers, type MetricFamily, type MetricSample, samplesBy } from "./family.ts";

/** More than any backend has. */
const QUEUES_MAX = 1024;

export const LIMIT_FAMILIES: readonly MetricFamily[] = [
  {
    name: "ubiblk_limit_operations_per_second",
    type: "gauge",
    help: "Operations that the guest may do in a second; absent for no limit.",
    samples: (answers) => limits(answers, "iops", ""),
  },
  {
    name: "ubiblk_limit_bytes_per_second",
    type: "gauge",
    help: "Bytes that the guest may read and write in a second; absent for no limit.",
    samples: (answers) => limits(answers, "bytes_per_second", ""),
  },
  {
    name: "ubiblk_limit_burst_operations",
    type: "gauge",
    help: "Operations that may go at once after a rest.",
    samples: (answers) => limits(answers, "iops", "_burst"),
  },
  {
    name: "ubiblk_limit_burst_bytes",
    type: "gauge",
    unit: "bytes",
    help: "Bytes that may go at once after a rest.",
    samples: (answers) => limits(answers, "bytes", "_burst"),
  },
  {
    name: "ubiblk_throttled_operations",
    type: "counter",
    help: "Requests that had to wait for a limit before they began.",
    samples: (answers) => waits(answers, { read: "reads_throttled", write: "writes_throttled" }, 1),
  },
  {
    name: "ubiblk_throttled_seconds",
    type: "counter",
    unit: "seconds",
    help: "Time that queues stood still for limits.",
    samples: (answers) =>
      waits(answers, { read: "read_throttled_ns", write: "write_throttled_ns" }, 1e9),
  },
];

// --- internal ---

function limitsOf(answers: Answers): Readonly<Record<string, unknown>> {
  return recordOf(answers.get("limits")?.limits);
}

function limits(answers: Answers, what: string, ending: string): readonly MetricSample[] {
  const known = limitsOf(answers);
  return samplesBy("operation", {
    all: amountOf(known[`${what}${ending}`]),
    read: amountOf(known[`read_${what}${ending}`]),
    write: amountOf(known[`write_${what}${ending}`]),
  });
}

/** Of each queue. @param keys by operation @param unit by which the numbers are divided */
function waits(
  answers: Answers,
  keys: Readonly<Record<string, string>>,
  unit: number,
): readonly MetricSample[] {
  return listOf(limitsOf(answers).queues, QUEUES_MAX).flatMap((queue, index) =>
    Object.entries(keys).flatMap(([operation, key]) => {
      const amount = amountOf(recordOf(queue)[key]);
      const labels = { queue: String(index), operation };
      return amount === undefined ? [] : [{ labels, value: amount / unit }];
    }),
  );
}
