/**
 * The log: one line an event on standard error, written synchronously from whatever thread, so that the last line
 * before an end is there. How much it tells and in which form: src/log/log-settings.ts.
 */
import { type ConsolaInstance, createConsola, LogLevels } from "consola/core";
import { isLogLevel, LOG_LEVELS, type LogLevel, rankOf } from "./log/log-level.ts";
import { fatalLine, type LogEvent, type LogFields, logLine, oneLine } from "./log/log-line.ts";
import {
  adoptLogSettings,
  LOG_FORMATS,
  lineStyle,
  logLevel,
  logRank,
  quietLog,
  type SharedLogSettings,
  setLogFormat,
  setLogLevel,
  sharedLogSettings,
  takeLevelComplaint,
} from "./log/log-settings.ts";
import {
  isStandardErrorSocket,
  setLineSender,
  standardErrorFd,
  writeLogLine,
} from "./log/standard-error.ts";

export {
  adoptLogSettings,
  isLogLevel,
  isStandardErrorSocket,
  LOG_FORMATS,
  LOG_LEVELS,
  type LogFields,
  type LogLevel,
  logLevel,
  oneLine,
  quietLog,
  type SharedLogSettings,
  setLineSender,
  setLogFormat,
  setLogLevel,
  sharedLogSettings,
  standardErrorFd,
};

/** Writes one event. `fields` become ` key=value` behind the message. Never pass a secret. */
export const log = {
  error: (message: string, fields?: LogFields) => tell("error", message, fields),
  warn: (message: string, fields?: LogFields) => tell("warn", message, fields),
  info: (message: string, fields?: LogFields) => tell("info", message, fields),
  debug: (message: string, fields?: LogFields) => tell("debug", message, fields),
} as const;

/** What this thread is called in the log. */
export function nameLogThread(name: string): void {
  thread = name;
}

/**
 * What is printed of an error that ends the program, with its newline: always, whatever the level is.
 * @param text for people; `message` and `fields` are for machines
 */
export function lastLine(text: string, message: string, fields: LogFields): string {
  return fatalLine(eventOf("error", message, fields), text, lineStyle());
}

/** Whether the log is JSON: then whatever else goes to standard error has to be an object as well. */
export function isJsonLog(): boolean {
  return lineStyle().isJson;
}

/**
 * A line for standard error that is told whatever the level is, such as what came of a command: `text`, or an event
 * where the log is JSON.
 * @param message of the event
 */
export function toldLine(
  level: LogLevel,
  text: string,
  fields?: LogFields,
  message: string = text,
): string {
  const style = lineStyle();
  return style.isJson ? logLine(eventOf(level, message, fields), style) : `${text}\n`;
}

/**
 * Holds back repeated lines that a guest or peer can trigger: at most `linesMax` in `windowMs`,
 * then one line that counts what was held back when the next window opens.
 */
export class LogLimiter {
  readonly #linesMax: number;
  readonly #windowMs: number;
  #windowStartMs = 0;
  #lines = 0;
  #suppressed = 0;

  constructor(linesMax = 10, windowMs = 10_000) {
    this.#linesMax = linesMax;
    this.#windowMs = windowMs;
  }

  error(message: string, fields?: LogFields, nowMs = performance.now()): void {
    if (this.#mayWrite(nowMs)) {
      log.error(message, fields);
    }
  }

  warn(message: string, fields?: LogFields, nowMs = performance.now()): void {
    if (this.#mayWrite(nowMs)) {
      log.warn(message, fields);
    }
  }

  info(message: string, fields?: LogFields, nowMs = performance.now()): void {
    if (this.#mayWrite(nowMs)) {
      log.info(message, fields);
    }
  }

  // --- internal ---

  #mayWrite(nowMs: number): boolean {
    if (this.#lines === 0 || nowMs - this.#windowStartMs >= this.#windowMs) {
      if (this.#suppressed > 0) {
        log.warn("similar lines were held back", { count: this.#suppressed });
      }
      this.#windowStartMs = nowMs;
      this.#lines = 0;
      this.#suppressed = 0;
    }
    this.#lines += 1;
    if (this.#lines <= this.#linesMax) {
      return true;
    }
    this.#suppressed += 1;
    return false;
  }
}

// --- internal ---

let thread = "main";

function tell(level: LogLevel, message: string, fields: LogFields | undefined): void {
  const rank = logRank();
  const complaint = takeLevelComplaint();
  if (complaint !== undefined) {
    const levels = LOG_LEVELS.join(", ");
    tell("warn", "UBIBLK_LOG is none of its levels; info counts", { value: complaint, levels });
  }
  if (rankOf(level) <= rank) {
    sink()[level](logLine(eventOf(level, message, fields), lineStyle()));
  }
}

let instance: ConsolaInstance | undefined;

/** Takes every level: which ones are told may change while it lives, and is decided before. */
function sink(): ConsolaInstance {
  instance ??= createConsola({
    level: LogLevels.verbose,
    throttle: 0,
    reporters: [{ log: ({ args }) => writeLogLine(args.join(" "), lostLine) }],
  });
  return instance;
}

function lostLine(lines: number): string {
  const message = `${lines} lines were lost: nobody read the log`;
  return logLine(eventOf("warn", message, undefined), lineStyle());
}

function eventOf(level: LogLevel, message: string, fields: LogFields | undefined): LogEvent {
  return { level, message, fields, thread, timeMs: Date.now() };
}
