/** What a process holds: memory of its own, descriptors, mappings. */
import { readdirSync, readFileSync } from "node:fs";

export interface ProcessSample {
  readonly anonymousMiB: number;
  readonly descriptors: number;
  readonly mappings: number;
}

export function sampleOf(pid: number): ProcessSample {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const anonymousKib = Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1]);
  return {
    anonymousMiB: anonymousKib / 1024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    mappings: readFileSync(`/proc/${pid}/maps`, "utf8").split("\n").length - 1,
  };
}

export function medianOf(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

/** The largest of the lowest quarter: what other programs on the machine add does not count. */
export function lowestQuarterOf(numbers: readonly number[]): number {
  const count = Math.max(1, Math.floor(numbers.length / 4));
  return numbers.toSorted((a, b) => a - b)[count - 1] ?? Number.NaN;
}

/** The first and the last third, behind a quarter that is for getting warm. */
export function firstAndLastThird<T>(samples: readonly T[]): readonly [readonly T[], readonly T[]] {
  const warm = samples.slice(Math.floor(samples.length / 4));
  const third = Math.max(1, Math.floor(warm.length / 3));
  return [warm.slice(0, third), warm.slice(-third)];
}
