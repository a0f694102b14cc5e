/**
 * Level and form of the log, shared by all threads: a change counts at once, wherever a thread is. The main thread
 * makes them of flags and environment; every other thread takes over the main thread's.
 *
 *   words   | rank of the level | 1 for JSON | 1 when standard error leads to the journal |
 *
 * A flag counts before `UBIBLK_LOG`, and that before `RUST_LOG`.
 */
import { fstatSync } from "node:fs";
import { isLogLevel, type LogThreshold, rankOf, thresholdOf } from "./log-level.ts";
import type { LineStyle } from "./log-line.ts";
import { thresholdFromRustLog } from "./rust-log.ts";

export const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** What a thread that is started takes over. */
export type SharedLogSettings = SharedArrayBuffer;

/** The rank up to which events are told. */
export function logRank(): number {
  return Atomics.load(words(), LEVEL);
}

export function logLevel(): LogThreshold {
  return thresholdOf(logRank());
}

/** Counts at once, on all threads. */
export function setLogLevel(threshold: LogThreshold): void {
  isChosen = true;
  complaint = undefined;
  Atomics.store(words(), LEVEL, rankOf(threshold));
}

/** For programs that were asked to be quiet: life cycle is not told then, unless somebody chose a level. */
export function quietLog(): void {
  const shared = words();
  if (!isChosen) {
    Atomics.store(shared, LEVEL, rankOf("warn"));
  }
}

export function setLogFormat(format: LogFormat): void {
  Atomics.store(words(), JSON_FORM, format === "json" ? 1 : 0);
}

export function lineStyle(): LineStyle {
  const shared = words();
  return {
    isJson: Atomics.load(shared, JSON_FORM) === 1,
    isJournal: Atomics.load(shared, JOURNAL) === 1,
  };
}

/** For a thread that this one starts. */
export function sharedLogSettings(): SharedLogSettings {
  words();
  return memory;
}

/** In a thread that was started, before it tells anything. */
export function adoptLogSettings(settings: SharedLogSettings): void {
  memory = settings;
  view = new Int32Array(settings);
}

/** A value of `UBIBLK_LOG` that is none, once: whoever tells the first event tells it as well. */
export function takeLevelComplaint(): string | undefined {
  const value = complaint;
  complaint = undefined;
  return value;
}

// --- internal ---

const LEVEL = 0;
const JSON_FORM = 1;
const JOURNAL = 2;
const WORDS = 3;

let memory: SharedLogSettings;
let view: Int32Array | undefined;
let isChosen = false;
let complaint: string | undefined;

function words(): Int32Array {
  view ??= fromEnvironment();
  return view;
}

function fromEnvironment(): Int32Array {
  memory = new SharedArrayBuffer(WORDS * 4);
  const made = new Int32Array(memory);
  made[LEVEL] = rankOf(levelFrom(process.env.UBIBLK_LOG, process.env.RUST_LOG));
  made[JOURNAL] = leadsToJournal(process.env.JOURNAL_STREAM) ? 1 : 0;
  return made;
}

function levelFrom(own: string | undefined, rust: string | undefined): LogThreshold {
  if (isLogLevel(own)) {
    isChosen = true;
    return own;
  }
  if (own !== undefined && own !== "") {
    isChosen = true;
    complaint = own;
    return "info";
  }
  const threshold = thresholdFromRustLog(rust ?? "");
  isChosen = threshold !== undefined;
  return threshold ?? "info";
}

/** The journal says which socket it reads (systemd.exec(5)); standard error may have been led elsewhere since. */
function leadsToJournal(stream: string | undefined): boolean {
  if (stream === undefined) {
    return false;
  }
  try {
    const { dev, ino } = fstatSync(2, { bigint: true });
    return stream === `${dev}:${ino}`;
  } catch {
    return false; // closed
  }
}
