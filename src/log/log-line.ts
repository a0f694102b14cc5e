/**
 * What an event looks like:
 *
 *   text              [WARN ] message key=value
 *   text, journal     <4>message key=value                 (sd-daemon(3): the journal keeps level and time itself)
 *   JSON              {"time":"...","level":"warn","message":"...","thread":"main","fields":{"key":1}}
 *   JSON, journal     <4>{...}
 */
import type { LogLevel } from "./log-level.ts";

export type LogFields = Readonly<Record<string, string | number | boolean>>;

export interface LogEvent {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields | undefined;
  readonly thread: string;
  readonly timeMs: number;
}

export interface LineStyle {
  readonly isJson: boolean;
  readonly isJournal: boolean;
}

/** One line, with its newline. */
export function logLine(event: LogEvent, style: LineStyle): string {
  const label = style.isJson ? "" : `[${event.level.toUpperCase().padEnd(5)}] `;
  const prefix = style.isJournal ? PRIORITIES[event.level] : label;
  return `${prefix}${oneLine(style.isJson ? jsonOf(event) : textOf(event))}\n`;
}

/**
 * The line of an error that ends the program: `text` for people, where the event's message and fields are for
 * machines. It may have several lines of text.
 */
export function fatalLine(event: LogEvent, text: string, style: LineStyle): string {
  if (style.isJson) {
    return logLine(event, style);
  }
  const priority = style.isJournal ? PRIORITIES.error : "";
  return text
    .split("\n")
    .map((line) => `${priority}${line}\n`)
    .join("");
}

/** Control characters (of a hostile name, say) reach no terminal, and begin no line. */
export function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, escaped);
}

// --- internal ---

/** JSON leaves those from U+007F on as they are; a terminal may take them for commands as well. */
function escaped(character: string): string {
  const code = character.charCodeAt(0);
  return code < 0x20
    ? JSON.stringify(character).slice(1, -1)
    : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** Of syslog: error, warning, informational, debug. */
const PRIORITIES: Readonly<Record<LogLevel, string>> = {
  error: "<3>",
  warn: "<4>",
  info: "<6>",
  debug: "<7>",
};

function textOf({ message, fields }: LogEvent): string {
  const parts = [message];
  for (const [key, value] of Object.entries(fields ?? {})) {
    const shown = String(value);
    parts.push(`${key}=${/^[^\s"=\p{Cc}]+$/u.test(shown) ? shown : JSON.stringify(shown)}`);
  }
  return parts.join(" ");
}

function jsonOf({ level, message, fields, thread, timeMs }: LogEvent): string {
  const time = new Date(timeMs).toISOString();
  return JSON.stringify({ time, level, message, thread, fields });
}
