/** Families of metrics: what each is called, what it means, and how it is read from what a backend answers. */
import type { Answers } from "../top/reading.ts";

export type { Answers } from "../top/reading.ts";

/** By name; values are escaped where they are written. */
export type Labels = Readonly<Record<string, string>>;

export interface MetricSample {
  /** Behind the name, where one family has several: `_bucket`, `_sum`, `_count`. */
  readonly suffix?: string;
  readonly labels: Labels;
  readonly value: number;
}

export interface MetricFamily {
  /** Without the `_total` of a counter and the `_info` of an info. */
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram" | "info";
  /** The name ends with it. */
  readonly unit?: "seconds" | "bytes";
  readonly help: string;
  /** None where the backend does not tell it. */
  readonly samples: (answers: Answers) => readonly MetricSample[];
}

/** One sample without labels; none for what is not known. */
export function sampleOf(value: number | undefined): readonly MetricSample[] {
  return value === undefined ? [] : [{ labels: {}, value }];
}

/** A sample for each name, which is the value of `label`; those without a number are left out. */
export function samplesBy(
  label: string,
  values: Readonly<Record<string, number | undefined>>,
): readonly MetricSample[] {
  return Object.entries(values).flatMap(([name, value]) =>
    value === undefined ? [] : [{ labels: { [label]: name }, value }],
  );
}

/** A sample for each of the names that may be: 1 for the one that is, 0 for the others. */
export function statesOf(
  label: string,
  names: readonly string[],
  current: unknown,
): readonly MetricSample[] {
  return names.some((name) => name === current)
    ? names.map((name) => ({ labels: { [label]: name }, value: name === current ? 1 : 0 }))
    : [];
}
