/** Whole texts, of answers as the RPC gives them, held against files that were checked by promtool. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { identityOf } from "./device-metrics.ts";
import type { Answers } from "./family.ts";
import { METRIC_COMMANDS, type MetricTarget, metricText } from "./text.ts";

const LAZY_DISK = answers({
  version: "1.2.3",
  device: {
    capacity_bytes: 1_073_741_824,
    cipher: "vaes",
    device_id: "disk1",
    front_end: "vhost",
    queue_size: 64,
    queues: 2,
    read_only: false,
  },
  process: {
    cpu_seconds: 1.5,
    open_files: 25,
    open_files_max: null,
    pid: 7,
    resident_bytes: 56_860_672,
    start_time_seconds: 1_772_366_400.113,
  },
  status: {
    fetch: {
      ahead_fetches: 6,
      background_fetches: 238,
      bytes_per_second: 88_080_384,
      demand_fetches: 21,
      eta_seconds: 40,
      failed: 1,
      failed_stripes: [1207],
      failures: 3,
      in_flight: 8,
      limit_bytes_per_second: null,
      paused: false,
      retries: 4,
      source_bytes: 277_872_640,
      source_state: "retrying",
      stripe_bytes: 1_048_576,
      unfetched: 3319,
      written: 12,
      zero_stripes: 5,
    },
    stripes: { fetched: 265, source: 3584, total: 40_960 },
  },
  statistics: {
    queues: [
      {
        bad_chains: 1,
        bytes_read: 8192,
        bytes_written: 512,
        calls: 2,
        completed: 4,
        discard_ops: 0,
        failed: 1,
        flush_ops: 1,
        in_flight: 1,
        kicks: 3,
        latency: { read: { sum_ns: 150_000 }, write: { sum_ns: 40_000_000_000 } },
        oldest_in_flight_ns: 1_500_000_000,
        overdue: 1,
        read_ops: 2,
        stopped: 1,
        write_ops: 1,
        write_zeroes_ops: 1,
      },
      { read_ops: 1, oldest_in_flight_ns: null, latency: { read: { sum_ns: 50_000 } } },
    ],
  },
  limits: {
    bytes_burst: null,
    bytes_per_second: null,
    iops: 1000,
    iops_burst: 100,
    queues: [
      {
        read_throttled_ns: 0,
        reads_throttled: 0,
        write_throttled_ns: 7_500_000_000,
        writes_throttled: 3,
      },
    ],
    write_bytes_burst: 819,
    write_bytes_per_second: 8192,
  },
  histograms: {
    queues: [
      { flush: [], read: [[73_728, 2]], write: [[42_949_672_960, 1]] },
      { flush: [], read: [[53_248, 1]], write: [] },
    ],
  },
});

const SERVER = answers({
  version: "1.2.3",
  status: {
    draining: false,
    listeners: ["192.0.2.1:7777"],
    serves: "/disks/a.raw",
    source_state: "open",
    stripe_bytes: 1_048_576,
    stripes: { from_source: 3319, total: 40_960 },
    tls: true,
    uptime_seconds: 86_400,
  },
  stats: {
    answers: { server_error: 1, stripes: 1207, zero: 310 },
    bytes_sent: 1_266_035_161,
    connections: {
      accepted: 20,
      dropped: 1,
      handshake_failures: 2,
      open: 16,
      refused: 0,
      waiting_for_memory: 0,
    },
    memory: { in_use_bytes: 8_388_608, limit_bytes: 67_108_864 },
    requests: { hello: 17, read_sparse: 1518 },
  },
});

const golden = (name: string) => readFileSync(join(import.meta.dir, "golden", name), "utf8");
const target = (known: Answers): MetricTarget => ({ labels: identityOf(known), answers: known });

test("a disk, as OpenMetrics", () => {
  const text = metricText([target(LAZY_DISK)], { format: "openmetrics", processPrefix: "" });
  expect(text).toBe(golden("disk.openmetrics.txt"));
});

test("a disk, a stripe server and one that is away, in the format of Prometheus: each family once", () => {
  const targets = [
    target(LAZY_DISK),
    target(SERVER),
    { labels: { socket: "/gone" }, answers: undefined },
  ];
  const text = metricText(targets, { format: "prometheus", processPrefix: "ubiblk_" });
  expect(text).toBe(golden("three.prometheus.txt"));
  const types = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
  expect(new Set(types).size).toBe(types.length);
});

test("nobody: the end of the text, or nothing", () => {
  expect(metricText([], { format: "openmetrics", processPrefix: "" })).toBe("# EOF\n");
  expect(metricText([], { format: "prometheus", processPrefix: "" })).toBe("");
});

test("labels: quotes, backslashes and newlines are escaped, half characters replaced", () => {
  const labels = { device: 'a"b\\c\nd\u{d800}é' };
  const text = metricText([{ labels, answers: undefined }], {
    format: "openmetrics",
    processPrefix: "",
  });
  expect(text).toContain('ubiblk_up{device="a\\"b\\\\c\\nd\u{fffd}é"} 0\n');
});

test("an older backend: what its stats and queues tell", () => {
  const queue = { bytes_read: 4096, bytes_written: 0, flush_ops: 0, read_ops: 1, write_ops: 0 };
  const older = answers({ status: null, stats: { queues: [queue] } });
  const text = metricText([target(older)], { format: "prometheus", processPrefix: "" });
  expect(text).toContain('ubiblk_operations_total{queue="0",operation="read"} 1\n');
  expect(text).toContain('ubiblk_transferred_bytes_total{queue="0",operation="read"} 4096\n');
  expect(text).not.toMatch(/_duration|_stripes|_failed|process_/);
});

test("answers of other types than expected: left out, never an error", () => {
  for (const odd of [null, 7, "text", [], [7], { queues: 7 }, { queues: [null, [], "x"] }]) {
    const known = answers(Object.fromEntries(METRIC_COMMANDS.map((command) => [command, odd])));
    const text = metricText([target(known)], { format: "openmetrics", processPrefix: "" });
    expect(text).not.toMatch(/NaN|undefined|null|object/);
  }
});

// --- internal ---

/** Each answer is an object with a member of the command's name. */
function answers(values: Readonly<Record<string, unknown>>): Answers {
  return new Map(Object.entries(values).map(([command, value]) => [command, { [command]: value }]));
}
