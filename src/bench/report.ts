/** The result of a run, as a table for people and as JSON for programs. */
import type { Histogram } from "./histogram.ts";
import type { Statistics } from "./statistics.ts";
import type { Measured } from "./window.ts";

/** Latencies in microseconds. */
interface OperationReport {
  readonly count: number;
  readonly meanUs: number;
  readonly p50Us: number;
  readonly p90Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
}

export interface Report {
  readonly workload: string;
  readonly blockBytes: number;
  readonly queueDepth: number;
  readonly queues: number;
  readonly features: string;
  readonly seconds: number;
  readonly operations: number;
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly latency: Readonly<Record<string, OperationReport>>;
  /** Nanoseconds per operation. */
  readonly clientCpuNsPerOperation: number;
  readonly backendCpuNsPerOperation: number | null;
  readonly operationsPerBackendCpuSecond: number | null;
  readonly kicksPerOperation: number;
  readonly callsPerOperation: number;
  /** What a verifying workload found right; absent from others. */
  readonly verified?: string;
  /** How often the backend was lost and found again, where that was allowed. */
  readonly reconnects?: number;
}

export interface ReportSubject {
  readonly workload: string;
  readonly blockBytes: number;
  readonly queueDepth: number;
  readonly queues: number;
  readonly features: bigint;
  /** Over the whole connection, as are calls. */
  readonly kicks: number;
  readonly calls: number;
  readonly totalOperations: number;
  readonly verified: string | undefined;
  readonly reconnects: number | undefined;
}

export function makeReport(
  subject: ReportSubject,
  statistics: Statistics,
  measured: Measured,
): Report {
  const { kicks, calls, totalOperations, features, verified, reconnects, ...shape } = subject;
  const seconds = measured.elapsedNs / 1e9;
  const operations = statistics.operations;
  const backendNs = measured.backendCpuNs;
  return {
    ...shape,
    features: `0x${features.toString(16)}`,
    seconds: rounded(seconds, 3),
    operations,
    iops: rounded(ratio(operations, seconds), 1),
    bytesPerSecond: Math.round(ratio(statistics.bytes, seconds)),
    latency: {
      ...operationReport("read", statistics.read),
      ...operationReport("write", statistics.write),
      ...operationReport("flush", statistics.flush),
    },
    clientCpuNsPerOperation: Math.round(ratio(measured.clientCpuNs, operations)),
    backendCpuNsPerOperation:
      backendNs === undefined ? null : Math.round(ratio(backendNs, operations)),
    operationsPerBackendCpuSecond:
      backendNs === undefined ? null : Math.round(ratio(operations * 1e9, backendNs)),
    kicksPerOperation: rounded(ratio(kicks, totalOperations), 4),
    callsPerOperation: rounded(ratio(calls, totalOperations), 4),
    ...(verified === undefined ? {} : { verified }),
    ...(reconnects === undefined ? {} : { reconnects }),
  };
}

/** Some lines for a person. */
export function reportText(report: Report): string {
  const { workload, blockBytes, queueDepth, queues, seconds } = report;
  const lines = [
    `${workload}: ${blockBytes} bytes, depth ${queueDepth}, ${queues} queues, ${seconds} s`,
    `  ${Math.round(report.iops)} operations/s, ${mebibytes(report.bytesPerSecond)} MiB/s`,
    `  ${"latency us".padEnd(12)}${HEADINGS.map((text) => text.padStart(10)).join("")}`,
  ];
  for (const [name, operation] of Object.entries(report.latency)) {
    const { meanUs, p50Us, p90Us, p99Us, p999Us, maxUs } = operation;
    const values = [meanUs, p50Us, p90Us, p99Us, p999Us, maxUs];
    const cells = values.map((value) => value.toFixed(1).padStart(10));
    lines.push(`  ${name.padEnd(12)}${cells.join("")}${`${operation.count}`.padStart(12)}`);
  }
  if (report.backendCpuNsPerOperation !== null) {
    const perOperation = (report.backendCpuNsPerOperation / 1000).toFixed(2);
    const perSecond = report.operationsPerBackendCpuSecond;
    lines.push(`  backend CPU: ${perOperation} us/operation, ${perSecond} operations/CPU-second`);
  }
  lines.push(`  client CPU: ${(report.clientCpuNsPerOperation / 1000).toFixed(2)} us/operation`);
  if (report.verified !== undefined) {
    lines.push(`  ${report.verified}`);
  }
  if (report.reconnects !== undefined) {
    lines.push(`  the backend was lost and found again ${report.reconnects} times`);
  }
  return lines.join("\n");
}

// --- internal ---

const HEADINGS = ["mean", "p50", "p90", "p99", "p99.9", "max"];

function operationReport(name: string, histogram: Histogram): Record<string, OperationReport> {
  if (histogram.count === 0) {
    return {};
  }
  const us = (ns: number) => rounded(ns / 1000, 2);
  return {
    [name]: {
      count: histogram.count,
      meanUs: us(histogram.meanNs),
      p50Us: us(histogram.percentileNs(0.5)),
      p90Us: us(histogram.percentileNs(0.9)),
      p99Us: us(histogram.percentileNs(0.99)),
      p999Us: us(histogram.percentileNs(0.999)),
      maxUs: us(histogram.maxNs),
    },
  };
}

function ratio(value: number, by: number): number {
  return by === 0 ? 0 : value / by;
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
