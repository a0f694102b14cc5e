/**
 * The log: one line an event on standard error, written synchronously from whatever thread, so that
 * the last line before an end is there. Levels: error = a person must act, warn = may have to,
 * info = life cycle, debug = all else. `UBIBLK_LOG` = error | warn | info | debug sets the level.
 *
 * A reader that stands still must not hold the disk up: into a full pipe or a stopped terminal nothing is
 * written, and the next line that finds room says how many were lost.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { type ConsolaInstance, createConsola, type LogObject } from "consola/core";

type LogLevel = "error" | "warn" | "info" | "debug";
export type LogFields = Readonly<Record<string, string | number | boolean>>;

const CONSOLA_LEVELS: Readonly<Record<LogLevel, number>> = { error: 0, warn: 1, info: 3, debug: 4 };

/** Writes one event. `fields` become ` key=value` behind the message. Never pass a secret. */
export const log = {
  error: (message: string, fields?: LogFields) => sink().error(line(message, fields)),
  warn: (message: string, fields?: LogFields) => sink().warn(line(message, fields)),
  info: (message: string, fields?: LogFields) => sink().info(line(message, fields)),
  debug: (message: string, fields?: LogFields) => sink().debug(line(message, fields)),
} as const;

/** For programs that were asked to be quiet: life cycle is not told then, unless the environment sets a level. */
export function quietLog(): void {
  if (process.env.UBIBLK_LOG === undefined) {
    process.env.UBIBLK_LOG = "warn"; // threads that are started later inherit it
    instance = undefined;
  }
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

/**
 * Standard error as a descriptor that does not wait for its reader, where the system has one: writing fails
 * with EAGAIN instead. It is opened anew, because O_NONBLOCK on descriptor 2 itself would change it for all
 * programs that share it. Files never wait; a socket cannot be opened anew, and stays as it is.
 */
export const standardErrorFd = openStandardError();

// --- internal ---

/** Lines that found no room since the last one that did. */
let lostLines = 0;

function openStandardError(): number {
  try {
    const stats = fstatSync(2);
    if (!stats.isFIFO() && !stats.isCharacterDevice()) {
      return 2;
    }
    const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
    return openSync("/proc/self/fd/2", flags);
  } catch {
    return 2; // closed, nobody reads it, no /proc, or another user's
  }
}

let instance: ConsolaInstance | undefined;

function sink(): ConsolaInstance {
  instance ??= newSink(process.env.UBIBLK_LOG);
  return instance;
}

/** A level that is none is told once, not by each thread. */
function newSink(wanted: string | undefined): ConsolaInstance {
  const level = levelFrom(wanted);
  const made = createConsola({
    level: CONSOLA_LEVELS[level],
    throttle: 0,
    reporters: [
      { log: (entry) => writeLine(`[${entry.type.toUpperCase().padEnd(5)}] ${text(entry)}\n`) },
    ],
  });
  if (Bun.isMainThread && wanted !== undefined && wanted !== "" && wanted !== level) {
    const levels = Object.keys(CONSOLA_LEVELS).join(", ");
    made.warn(line("UBIBLK_LOG is none of its levels; info counts", { value: wanted, levels }));
  }
  return made;
}

function levelFrom(value: string | undefined): LogLevel {
  return value === "error" || value === "warn" || value === "debug" ? value : "info";
}

function text(entry: LogObject): string {
  return entry.args.map(String).join(" ");
}

function line(message: string, fields: LogFields | undefined): string {
  const parts = [message];
  for (const [key, value] of Object.entries(fields ?? {})) {
    const shown = String(value);
    parts.push(`${key}=${/^[^\s"=]+$/.test(shown) ? shown : JSON.stringify(shown)}`);
  }
  return parts.join(" ");
}

function writeLine(line: string): void {
  const lost = lostLines === 0 ? "" : `[WARN ] ${lostLines} lines were lost: nobody read the log\n`;
  try {
    writeSync(standardErrorFd, lost + line);
    lostLines = 0;
  } catch (error) {
    // A closed or full standard error must not take the disk down with it.
    if (!(error instanceof Error && "code" in error)) {
      throw error;
    }
    lostLines += 1;
  }
}
