/** The line that tells the limits of a disk, and how much they hold it back. */
import { bytesText, countText } from "./quantity.ts";
import type { LimitReading } from "./reading.ts";
import type { LoadSample } from "./sample.ts";
import { type StyledLine, span } from "./styled-line.ts";

/** Nothing for a disk without limits. */
export function limitLines(
  limits: LimitReading,
  queues: readonly LoadSample[],
): readonly StyledLine[] {
  const set = LIMITS.flatMap(({ name, text }) => {
    const limit = limits[name];
    return limit === undefined ? [] : [text(limit)];
  });
  return set.length === 0
    ? []
    : [[span(`limits ${set.join("  ")}`), span(waitsText(queues), "warn")]];
}

// --- internal ---

const LIMITS = [
  { name: "iops", text: (limit: number) => `${countText(limit)} iops` },
  { name: "read_iops", text: (limit: number) => `${countText(limit)} rd iops` },
  { name: "write_iops", text: (limit: number) => `${countText(limit)} wr iops` },
  { name: "bytes_per_second", text: (limit: number) => `${bytesText(limit)}/s` },
  { name: "read_bytes_per_second", text: (limit: number) => `read ${bytesText(limit)}/s` },
  { name: "write_bytes_per_second", text: (limit: number) => `write ${bytesText(limit)}/s` },
] as const;

/** Of the queue that waits most, the part of the time that it does. */
function waitsText(queues: readonly LoadSample[]): string {
  const waits = queues.map(
    ({ rates }) => ((rates?.read_throttled_ns ?? 0) + (rates?.write_throttled_ns ?? 0)) / 1e9,
  );
  const percent = Math.round(Math.min(1, Math.max(0, ...waits)) * 100);
  return percent === 0 ? "" : `  throttled ${percent}% of the time`;
}
