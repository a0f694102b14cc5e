/** The lines that tell how far the fetch of a disk is, and which stripes failed. */
import type { FetchSample } from "./fetch-progress.ts";
import { bytesText, countText, durationText } from "./quantity.ts";
import { type StyledLine, span } from "./styled-line.ts";

/** A line of progress, and one of failed stripes where there are any. */
export function fetchLines(fetch: FetchSample, columns: number): readonly StyledLine[] {
  return [...progressLine(fetch, columns), ...failedLine(fetch)];
}

// --- internal ---

const BAR_MIN = 8;
const BAR_MAX = 40;

/** Nothing for a disk without a source. */
function progressLine(fetch: FetchSample, columns: number): readonly StyledLine[] {
  const { fetched, source } = fetch;
  if (source === 0) {
    return [];
  }
  const fraction = Math.min(1, fetched / source);
  const percent = `${(Math.floor(fraction * 1000) / 10).toFixed(1)}%`.padStart(6);
  const behind = `${percent}  ${fetched}/${source} stripes${speedText(fetch)}`;
  const label = "fetch";
  const room = columns - label.length - behind.length - 4;
  if (room < BAR_MIN) {
    return [[span(`${label} ${behind}`)]];
  }
  const width = Math.min(room, BAR_MAX);
  const filled = Math.floor(fraction * width);
  const bar = `[${"#".repeat(filled)}${".".repeat(width - filled)}]`;
  return [[span(`${label} `), span(bar, "good"), span(` ${behind}`)]];
}

function speedText(fetch: FetchSample): string {
  const { fetched, source, stripesPerSecond, bytesPerSecond, etaSeconds } = fetch;
  if (fetched >= source) {
    return "  done";
  }
  const parts = [
    ...(stripesPerSecond === undefined ? [] : [`${countText(stripesPerSecond)}/s`]),
    ...(bytesPerSecond === undefined ? [] : [`${bytesText(bytesPerSecond)}/s`]),
    ...(etaSeconds === undefined ? [] : [`ETA ${durationText(etaSeconds)}`]),
  ];
  return parts.map((part) => `  ${part}`).join("");
}

function failedLine({ failed, failedStripes }: FetchSample): readonly StyledLine[] {
  if (failed === undefined || failed === 0) {
    return [];
  }
  const more = failed > failedStripes.length ? ", ..." : "";
  const list = failedStripes.length === 0 ? "" : `: ${failedStripes.join(", ")}${more}`;
  const noun = failed === 1 ? "stripe" : "stripes";
  return [[span(`fetch failed for ${failed} ${noun}${list}`, "bad")]];
}
