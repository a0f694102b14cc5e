/**
 * From what backends answer to text: OpenMetrics 1.0, or the text format of Prometheus (0.0.4), which node_exporter
 * and older programs read. The difference is in the names that TYPE lines have, and in what else stands there.
 */
import { DEVICE_FAMILIES } from "./device-metrics.ts";
import type { Answers, Labels, MetricFamily, MetricSample } from "./family.ts";
import { FETCH_FAMILIES } from "./fetch-metrics.ts";
import { LATENCY_FAMILIES } from "./latency-metrics.ts";
import { LIMIT_FAMILIES } from "./limit-metrics.ts";
import { PROCESS_FAMILIES } from "./process-metrics.ts";
import { QUEUE_FAMILIES } from "./queue-metrics.ts";
import { SERVER_FAMILIES } from "./server-metrics.ts";

export type MetricFormat = "openmetrics" | "prometheus";

export const CONTENT_TYPES: Readonly<Record<MetricFormat, string>> = {
  openmetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8",
  prometheus: "text/plain; version=0.0.4; charset=utf-8",
};

/** What a backend or stripe server is asked; those that it does not know are missing in its answers. */
export const METRIC_COMMANDS = [
  "version",
  "device",
  "process",
  "status",
  "stats",
  "statistics",
  "histograms",
  "limits",
] as const;

/** A process whose metrics are told. */
export interface MetricTarget {
  /** By which it is told from others. */
  readonly labels: Labels;
  /** Undefined when it does not answer. */
  readonly answers: Answers | undefined;
}

export interface MetricTextOptions {
  readonly format: MetricFormat;
  /** In front of `process_...`: a text that others merge with their own may not have these names. */
  readonly processPrefix: "" | "ubiblk_";
}

/** Of all targets together: every family stands once. */
export function metricText(targets: readonly MetricTarget[], options: MetricTextOptions): string {
  const { format, processPrefix } = options;
  const processFamilies = PROCESS_FAMILIES.map((family) => ({
    ...family,
    name: processPrefix + family.name,
  }));
  const text = [upText(targets, format)];
  for (const family of [...FAMILIES, ...processFamilies]) {
    text.push(familyText(family, format, samplesOf(family, targets)));
  }
  return `${text.join("")}${format === "openmetrics" ? "# EOF\n" : ""}`;
}

// --- internal ---

const FAMILIES: readonly MetricFamily[] = [
  ...DEVICE_FAMILIES,
  ...QUEUE_FAMILIES,
  ...LATENCY_FAMILIES,
  ...LIMIT_FAMILIES,
  ...FETCH_FAMILIES,
  ...SERVER_FAMILIES,
];

const UP_FAMILY = {
  name: "ubiblk_up",
  type: "gauge",
  help: "Whether the process answered: 1, or 0 when it did not.",
} as const;

function upText(targets: readonly MetricTarget[], format: MetricFormat): string {
  const samples = targets.map(({ labels, answers }) => ({
    labels,
    value: answers === undefined ? 0 : 1,
  }));
  return familyText(UP_FAMILY, format, samples);
}

function samplesOf(family: MetricFamily, targets: readonly MetricTarget[]): MetricSample[] {
  return targets.flatMap(({ labels, answers }) =>
    answers === undefined
      ? []
      : family
          .samples(answers)
          .map((sample) => ({ ...sample, labels: { ...labels, ...sample.labels } })),
  );
}

type FamilyHead = Omit<MetricFamily, "samples">;

/** Nothing for a family without samples. */
function familyText(
  family: FamilyHead,
  format: MetricFormat,
  samples: readonly MetricSample[],
): string {
  if (samples.length === 0) {
    return "";
  }
  const { name } = family;
  const ending = family.type === "counter" ? "_total" : family.type === "info" ? "_info" : "";
  const lines = samples.map(({ suffix = ending, labels, value }) => {
    return `${name}${suffix}${labelText(labels)} ${numberText(value)}\n`;
  });
  return headText(family, ending, format) + lines.join("");
}

function headText(family: FamilyHead, ending: string, format: MetricFormat): string {
  const { name, type, unit, help } = family;
  if (format === "openmetrics") {
    const unitLine = unit === undefined ? "" : `# UNIT ${name} ${unit}\n`;
    return `# TYPE ${name} ${type}\n${unitLine}# HELP ${name} ${escapeText(help, /["\\\n]/g)}\n`;
  }
  const whole = name + ending;
  const known = type === "info" ? "gauge" : type;
  return `# HELP ${whole} ${escapeText(help, /[\\\n]/g)}\n# TYPE ${whole} ${known}\n`;
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${escapeText(value, /["\\\n]/g)}"`,
  );
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escapeText(text: string, special: RegExp): string {
  return text
    .toWellFormed()
    .replace(special, (character) => (character === "\n" ? "\\n" : `\\${character}`));
}

/** Numbers of ours are finite; only the last bucket of a histogram has no limit, and that is a label. */
function numberText(value: number): string {
  return String(value);
}
