/** What the queues of a disk do: counters of each, and what is in flight. */
import { amountOf, listOf, recordOf } from "../top/json-reader.ts";
import type { Answers, MetricFamily, MetricSample } from "./family.ts";

/** More than any backend has. */
const QUEUES_MAX = 1024;

type QueueAnswer = Readonly<Record<string, unknown>>;

/** The queues of a disk; backends without `statistics` tell the first of these facts in `stats`. */
export function queuesOf(answers: Answers): readonly QueueAnswer[] {
  const statistics = recordOf(answers.get("statistics")?.statistics).queues;
  const stats = recordOf(answers.get("stats")?.stats).queues;
  return listOf(statistics ?? stats, QUEUES_MAX).map(recordOf);
}

export const QUEUE_FAMILIES: readonly MetricFamily[] = [
  {
    name: "ubiblk_operations",
    type: "counter",
    help: "Requests that were handed to the disk, failed ones included.",
    samples: (answers) =>
      eachQueue(answers, "operation", {
        read: "read_ops",
        write: "write_ops",
        flush: "flush_ops",
        discard: "discard_ops",
        write_zeroes: "write_zeroes_ops",
      }),
  },
  {
    name: "ubiblk_transferred_bytes",
    type: "counter",
    unit: "bytes",
    help: "Bytes that the guest asked to read or write, those of failed requests included.",
    samples: (answers) =>
      eachQueue(answers, "operation", { read: "bytes_read", write: "bytes_written" }),
  },
  {
    name: "ubiblk_completed_operations",
    type: "counter",
    help: "Requests that the disk ended well.",
    samples: (answers) => counts(answers, "completed"),
  },
  {
    name: "ubiblk_failed_operations",
    type: "counter",
    help: "Requests that the disk ended with an error, which the guest sees.",
    samples: (answers) => counts(answers, "failed"),
  },
  {
    name: "ubiblk_bad_chains",
    type: "counter",
    help: "Requests refused because they were malformed or beyond the end of the disk.",
    samples: (answers) => counts(answers, "bad_chains"),
  },
  {
    name: "ubiblk_stopped_queue",
    type: "gauge",
    help: "1 while the queue is left alone, until the guest resets the disk.",
    samples: (answers) => counts(answers, "stopped"),
  },
  {
    name: "ubiblk_kicks",
    type: "counter",
    help: "Wake-ups from the guest.",
    samples: (answers) => counts(answers, "kicks"),
  },
  {
    name: "ubiblk_calls",
    type: "counter",
    help: "Interrupts to the guest.",
    samples: (answers) => counts(answers, "calls"),
  },
  {
    name: "ubiblk_in_flight_operations",
    type: "gauge",
    help: "Requests that the disk works on now.",
    samples: (answers) => counts(answers, "in_flight"),
  },
  {
    name: "ubiblk_oldest_operation_age_seconds",
    type: "gauge",
    unit: "seconds",
    help: "Age of the oldest request in flight, 0 when there is none.",
    samples: (answers) =>
      perQueue(answers, (queue) =>
        queue.oldest_in_flight_ns === null ? 0 : secondsOf(queue.oldest_in_flight_ns),
      ),
  },
  {
    name: "ubiblk_overdue_operations",
    type: "gauge",
    help: "Requests in flight that take longer than tuning.overdue_request_ms.",
    samples: (answers) => counts(answers, "overdue"),
  },
];

// --- internal ---

function perQueue(
  answers: Answers,
  value: (queue: QueueAnswer) => number | undefined,
): readonly MetricSample[] {
  return queuesOf(answers).flatMap((queue, index) => {
    const known = value(queue);
    return known === undefined ? [] : [{ labels: { queue: String(index) }, value: known }];
  });
}

function counts(answers: Answers, key: string): readonly MetricSample[] {
  return perQueue(answers, (queue) => amountOf(queue[key]));
}

/** @param keys of the answer, by the value that `label` then has */
function eachQueue(
  answers: Answers,
  label: string,
  keys: Readonly<Record<string, string>>,
): readonly MetricSample[] {
  return Object.entries(keys).flatMap(([name, key]) =>
    counts(answers, key).map(({ labels, value }) => ({
      labels: { ...labels, [label]: name },
      value,
    })),
  );
}

function secondsOf(nanoseconds: unknown): number | undefined {
  const amount = amountOf(nanoseconds);
  return amount === undefined ? undefined : amount / 1e9;
}
