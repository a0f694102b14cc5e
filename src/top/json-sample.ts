/** Samples as JSON: keys never change their meaning, and what is not known is `null`. See docs/top.md. */
import type { DiskView } from "./disk-watcher.ts";
import type { FetchSample } from "./fetch-progress.ts";
import { countOf, type Histogram, percentileNs } from "./histogram.ts";
import { type LoadSample, sumOfSamples } from "./sample.ts";

/** One line, with its newline. */
export function jsonSample(disks: readonly DiskView[], time: string): string {
  const total = load(sumOfSamples(disks.flatMap((disk) => disk.queues)));
  return `${JSON.stringify({ time, disks: disks.map(diskValue), total })}\n`;
}

// --- internal ---

function diskValue(disk: DiskView): unknown {
  return {
    socket: disk.socket,
    state: disk.state,
    reason: disk.reason ?? null,
    silent_seconds: disk.silentSeconds ?? null,
    version: disk.version ?? null,
    restarts: disk.restarts,
    age_seconds: disk.ageSeconds ?? null,
    interval_seconds: disk.intervalSeconds ?? null,
    queues: disk.queues.map(load),
    total: load(sumOfSamples(disk.queues)),
    fetch: disk.fetch === undefined ? null : fetchValue(disk.fetch),
    limits: disk.limits,
  };
}

function load(sample: LoadSample): unknown {
  const { totals, rates, histograms, inFlight, oldestInFlightNs, stopped } = sample;
  return {
    read_ops: totals.read_ops ?? null,
    write_ops: totals.write_ops ?? null,
    flush_ops: totals.flush_ops ?? null,
    bytes_read: totals.bytes_read ?? null,
    bytes_written: totals.bytes_written ?? null,
    failed: totals.failed ?? null,
    read_ops_per_second: rates?.read_ops ?? null,
    write_ops_per_second: rates?.write_ops ?? null,
    flush_ops_per_second: rates?.flush_ops ?? null,
    discard_ops_per_second: rates?.discard_ops ?? null,
    write_zeroes_ops_per_second: rates?.write_zeroes_ops ?? null,
    bytes_read_per_second: rates?.bytes_read ?? null,
    bytes_written_per_second: rates?.bytes_written ?? null,
    failed_per_second: rates?.failed ?? null,
    kicks_per_second: rates?.kicks ?? null,
    calls_per_second: rates?.calls ?? null,
    throttled_per_second: sumOf(rates?.reads_throttled, rates?.writes_throttled),
    throttled_ns_per_second: sumOf(rates?.read_throttled_ns, rates?.write_throttled_ns),
    in_flight: inFlight ?? null,
    oldest_in_flight_ns: oldestInFlightNs ?? null,
    stopped: stopped ?? null,
    latency: {
      read: latency(histograms.read),
      write: latency(histograms.write),
      flush: latency(histograms.flush),
    },
  };
}

function sumOf(reads: number | undefined, writes: number | undefined): number | null {
  return reads === undefined || writes === undefined ? null : reads + writes;
}

function latency(histogram: Histogram | undefined): unknown {
  return {
    count: histogram === undefined ? null : countOf(histogram),
    p50_ns: percentileNs(histogram, 0.5) ?? null,
    p99_ns: percentileNs(histogram, 0.99) ?? null,
  };
}

function fetchValue(fetch: FetchSample): unknown {
  return {
    fetched: fetch.fetched,
    source: fetch.source,
    total: fetch.total,
    stripes_per_second: fetch.stripesPerSecond ?? null,
    bytes_per_second: fetch.bytesPerSecond ?? null,
    eta_seconds: fetch.etaSeconds ?? null,
    failed: fetch.failed ?? null,
    failed_stripes: fetch.failedStripes,
  };
}
