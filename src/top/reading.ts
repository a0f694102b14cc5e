/**
 * One reading of a backend: what its RPC commands answered at one moment. `statistics` and `histograms`
 * tell most; a backend without them is read by `stats` and `queues`. Keys that are missing stay
 * undefined, keys that are new are ignored, so that older and newer backends are shown as well.
 */
import type { Histogram, Histograms } from "./histogram.ts";
import { amountOf, listOf, recordOf, textOf } from "./json-reader.ts";

/** Counters of a queue, by their names in the answers; all count from the start of the process. */
export const COUNTER_NAMES = [
  "read_ops",
  "write_ops",
  "flush_ops",
  "bytes_read",
  "bytes_written",
  "discard_ops",
  "write_zeroes_ops",
  "completed",
  "failed",
  "bad_chains",
  "kicks",
  "calls",
  "reads_throttled",
  "writes_throttled",
  "read_throttled_ns",
  "write_throttled_ns",
] as const;

type CounterName = (typeof COUNTER_NAMES)[number];

/** Of each counter that is known, its value or what becomes of it in a second. */
export type Counters = Readonly<Partial<Record<CounterName, number>>>;

export interface QueueReading {
  readonly counters: Counters;
  readonly inFlight: number | undefined;
  readonly oldestInFlightNs: number | undefined;
  /** 1 when the queue is left alone until the guest sets it up anew. */
  readonly stopped: number | undefined;
  /** Latencies from the start of the process. */
  readonly histograms: Histograms;
}

/** Stripes of the disk; what only some backends tell may be undefined. */
export interface StripeReading {
  readonly fetched: number;
  readonly source: number;
  readonly total: number;
  readonly failed: number | undefined;
  /** The first few of them. */
  readonly failedStripes: readonly number[];
  readonly stripeBytes: number | undefined;
  readonly bytesPerSecond: number | undefined;
  readonly etaSeconds: number | undefined;
}

/** Limits of a disk, by their names in the answer. */
const LIMIT_NAMES = [
  "iops",
  "read_iops",
  "write_iops",
  "bytes_per_second",
  "read_bytes_per_second",
  "write_bytes_per_second",
] as const;

/** Those that are set. */
export type LimitReading = Readonly<Partial<Record<(typeof LIMIT_NAMES)[number], number>>>;

export interface Reading {
  readonly queues: readonly QueueReading[];
  /** Undefined for a disk without metadata, and where the backend does not tell. */
  readonly stripes: StripeReading | undefined;
  /** Empty without any, and where the backend does not tell. */
  readonly limits: LimitReading;
}

/** Answers by command; those that failed are left out. */
export type Answers = ReadonlyMap<string, Readonly<Record<string, unknown>>>;

/** What the answers say; undefined when they do not even say what the queues did. */
export function readAnswers(answers: Answers): Reading | undefined {
  const statistics = queuesOf(answers.get("statistics")?.statistics);
  const stats = queuesOf(answers.get("stats")?.stats);
  if (statistics === undefined && stats === undefined) {
    return undefined;
  }
  const histograms = queuesOf(answers.get("histograms")?.histograms) ?? [];
  const inFlight = answers.get("queues")?.queues;
  const limits = answers.get("limits")?.limits;
  const waits = queuesOf(limits) ?? [];
  const queues = (statistics ?? stats ?? []).map((queue, index): QueueReading => {
    const values = recordOf(queue);
    return {
      counters: countersOf({ ...values, ...recordOf(waits[index]) }),
      inFlight: amountOf(values.in_flight) ?? lengthOf(inFlight, index),
      oldestInFlightNs: amountOf(values.oldest_in_flight_ns),
      stopped: amountOf(values.stopped),
      histograms: histogramsOf(histograms[index]),
    };
  });
  const stripes = stripesOf(answers.get("status")?.status);
  return { queues, stripes, limits: limitsOf(limits) };
}

/** Whether a stripe server answered, whose sockets speak the same protocol. */
export function isOfStripeServer(answers: Answers): boolean {
  return Object.hasOwn(recordOf(answers.get("stats")?.stats), "connections");
}

/** The version that an answer to `version` tells. */
export function versionOf(answers: Answers): string | undefined {
  return textOf(answers.get("version")?.version, VERSION_LENGTH_MAX);
}

// --- internal ---

/** More than any backend has; a peer that sends more is cut. */
const QUEUES_MAX = 1024;
const BUCKETS_MAX = 4096;
const FAILED_LISTED_MAX = 32;
const VERSION_LENGTH_MAX = 24;

function queuesOf(value: unknown): readonly unknown[] | undefined {
  const { queues } = recordOf(value);
  return Array.isArray(queues) ? listOf(queues, QUEUES_MAX) : undefined;
}

function lengthOf(queues: unknown, index: number): number | undefined {
  const entries = listOf(queues, QUEUES_MAX)[index];
  return Array.isArray(entries) ? entries.length : undefined;
}

function countersOf(values: Readonly<Record<string, unknown>>): Counters {
  const counters: Partial<Record<CounterName, number>> = {};
  for (const name of COUNTER_NAMES) {
    const value = amountOf(values[name]);
    if (value !== undefined) {
      counters[name] = value;
    }
  }
  return counters;
}

function limitsOf(value: unknown): LimitReading {
  const limits = recordOf(value);
  return Object.fromEntries(
    LIMIT_NAMES.flatMap((name) => {
      const amount = amountOf(limits[name]);
      return amount === undefined ? [] : [[name, amount]];
    }),
  );
}

function histogramsOf(value: unknown): Histograms {
  const { read, write, flush } = recordOf(value);
  return { read: histogramOf(read), write: histogramOf(write), flush: histogramOf(flush) };
}

function histogramOf(value: unknown): Histogram | undefined {
  if (!Array.isArray(value)) {
    return undefined;
  }
  const histogram = new Map<number, number>();
  for (const pair of listOf(value, BUCKETS_MAX)) {
    const [limitNs, count] = listOf(pair, 2).map(amountOf);
    if (limitNs !== undefined && count !== undefined) {
      histogram.set(limitNs, count);
    }
  }
  return histogram;
}

/** Facts beside the three counts are looked for in `status`, its `fetch` and its `stripes`. */
function stripesOf(value: unknown): StripeReading | undefined {
  const status = recordOf(value);
  const stripes = recordOf(status.stripes);
  const all: Readonly<Record<string, unknown>> = {
    ...status,
    ...recordOf(status.fetch),
    ...stripes,
  };
  const fetched = amountOf(stripes.fetched);
  const source = amountOf(stripes.source);
  const total = amountOf(stripes.total);
  if (fetched === undefined || source === undefined || total === undefined) {
    return undefined;
  }
  const list = Array.isArray(all.failed_stripes) ? all.failed_stripes : all.failed;
  const listed = listOf(list, FAILED_LISTED_MAX).flatMap((each) => amountOf(each) ?? []);
  return {
    fetched,
    source,
    total,
    failed: amountOf(all.failed) ?? (Array.isArray(list) ? list.length : undefined),
    failedStripes: listed,
    stripeBytes: amountOf(all.stripe_bytes) ?? amountOf(all.stripe_size_bytes),
    bytesPerSecond: amountOf(all.bytes_per_second),
    etaSeconds: amountOf(all.eta_seconds),
  };
}
