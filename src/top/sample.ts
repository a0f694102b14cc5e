/**
 * Samples: what happened between two readings of one backend, by second. The time between them comes
 * from a monotonic clock. A backend that started anew counts from nothing: such a pair gives no rates.
 */
import {
  type Histograms,
  hasShrunk,
  histogramsBetween,
  mergeHistograms,
  NO_HISTOGRAMS,
} from "./histogram.ts";
import { COUNTER_NAMES, type Counters, type QueueReading, type Reading } from "./reading.ts";

/** What one queue did, or several together. */
export interface LoadSample {
  /** From the start of the process. */
  readonly totals: Counters;
  /** By second; undefined when there is no reading before to compare with. */
  readonly rates: Counters | undefined;
  /** Of the requests that ended between the readings. */
  readonly histograms: Histograms;
  readonly inFlight: number | undefined;
  readonly oldestInFlightNs: number | undefined;
  /** Queues that are left alone until the guest sets them up anew. */
  readonly stopped: number | undefined;
}

/** Whether `after` was counted by another process than `before`. */
export function isCountedAnew(before: Reading, after: Reading): boolean {
  return (
    before.queues.length !== after.queues.length ||
    before.queues.some((queue, index) => {
      const now = after.queues[index];
      return now === undefined || hasGoneBack(queue, now);
    })
  );
}

/** The sample of each queue; `before` undefined for a first reading. */
export function queueSamples(
  before: Reading | undefined,
  after: Reading,
  seconds: number,
): readonly LoadSample[] {
  return after.queues.map((queue, index) => {
    const then = before?.queues[index];
    const isComparable = then !== undefined && seconds > 0;
    return {
      totals: queue.counters,
      rates: isComparable ? ratesBetween(then.counters, queue.counters, seconds) : undefined,
      histograms: isComparable
        ? histogramsBetween(then.histograms, queue.histograms)
        : NO_HISTOGRAMS,
      inFlight: queue.inFlight,
      oldestInFlightNs: queue.oldestInFlightNs,
      stopped: queue.stopped,
    };
  });
}

/** Everything that `samples` did, together. */
export function sumOfSamples(samples: readonly LoadSample[]): LoadSample {
  const rates = samples.flatMap((sample) => sample.rates ?? []);
  const oldest = samples.flatMap((sample) => sample.oldestInFlightNs ?? []);
  return {
    totals: sumOfCounters(samples.map((sample) => sample.totals)),
    rates: rates.length === 0 ? undefined : sumOfCounters(rates),
    histograms: mergeHistograms(samples.map((sample) => sample.histograms)),
    inFlight: sumOf(samples.map(({ inFlight }) => inFlight)),
    oldestInFlightNs: oldest.length === 0 ? undefined : Math.max(...oldest),
    stopped: sumOf(samples.map(({ stopped }) => stopped)),
  };
}

// --- internal ---

function hasGoneBack(before: QueueReading, after: QueueReading): boolean {
  const isLess = COUNTER_NAMES.some(
    (name) => (after.counters[name] ?? Number.POSITIVE_INFINITY) < (before.counters[name] ?? 0),
  );
  return isLess || hasShrunk(before.histograms, after.histograms);
}

function ratesBetween(before: Counters, after: Counters, seconds: number): Counters {
  return collect((name) => {
    const then = before[name];
    const now = after[name];
    return then === undefined || now === undefined ? undefined : Math.max(0, now - then) / seconds;
  });
}

/** Counters that only some of `all` have count as nothing in the others. */
function sumOfCounters(all: readonly Counters[]): Counters {
  return collect((name) => sumOf(all.map((counters) => counters[name])));
}

/** Of those that are known; undefined when none is. */
function sumOf(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0);
}

function collect(value: (name: (typeof COUNTER_NAMES)[number]) => number | undefined): Counters {
  return Object.fromEntries(
    COUNTER_NAMES.flatMap((name) => {
      const each = value(name);
      return each === undefined ? [] : [[name, each]];
    }),
  );
}
