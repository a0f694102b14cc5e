/**
 * Tells how far a long transfer is, and what came of it.
 *
 *   terminal       one line of standard error, written over: bar, rate, time left
 *   elsewhere      a line of standard error about every ten seconds; as JSON where the log is
 *   --json         events on standard output, one JSON object a line: {"event":"progress",...}, then {"event":"done",...}
 *   --quiet        nothing but errors
 */
import { isatty } from "node:tty";
import { isJsonLog, type LogFields, type LogLevel, toldLine } from "../log.ts";
import { durationText, quantityText } from "./quantity-text.ts";
import { writePieces } from "./standard-output.ts";

export interface ProgressOptions {
  /** What is going on: "archive", "export". */
  readonly label: string;
  readonly isQuiet: boolean;
  readonly isJson: boolean;
  readonly isTerminal?: boolean;
  readonly write?: (fd: 1 | 2, text: string) => void;
  readonly nowMs?: () => number;
}

export class TransferProgress implements Disposable {
  readonly #label: string;
  readonly #style: "json" | "line" | "lines" | "none";
  readonly #isQuiet: boolean;
  readonly #write: (fd: 1 | 2, text: string) => void;
  readonly #nowMs: () => number;
  readonly #startMs: number;
  #nextMs: number;
  #isLineShown = false;

  constructor(options: ProgressOptions) {
    const isTerminal = (options.isTerminal ?? isatty(2)) && !isJsonLog();
    this.#label = options.label;
    this.#isQuiet = options.isQuiet;
    this.#style = options.isJson
      ? "json"
      : options.isQuiet
        ? "none"
        : isTerminal
          ? "line"
          : "lines";
    this.#write = options.write ?? ((fd, text) => writePieces(fd, [text]));
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#startMs = this.#nowMs();
    this.#nextMs = this.#startMs + INTERVAL_MS[this.#style];
  }

  get elapsedMs(): number {
    return this.#nowMs() - this.#startMs;
  }

  show(progress: { readonly doneBytes: number; readonly totalBytes: number }): void {
    const nowMs = this.#nowMs();
    if (this.#style === "none" || nowMs < this.#nextMs) {
      return;
    }
    this.#nextMs = nowMs + INTERVAL_MS[this.#style];
    const seconds = Math.max(0.001, this.elapsedMs / 1000);
    const rate = progress.doneBytes / seconds;
    const { doneBytes: done_bytes, totalBytes: total_bytes } = progress;
    const facts = { done_bytes, total_bytes, bytes_per_second: Math.round(rate) };
    if (this.#style === "json") {
      this.#event({ event: "progress", ...facts });
    } else if (this.#style === "line") {
      this.#isLineShown = true;
      this.#write(2, `${ERASE_LINE}${this.#label} ${barOf(progress)} ${textOf(progress, rate)}`);
    } else {
      this.#line("info", textOf(progress, rate), { message: "progress", ...facts });
    }
  }

  /** Something that belongs on a line of its own. */
  tell(text: string, event: Readonly<Record<string, unknown>>): void {
    this.#clear();
    if (this.#style === "json") {
      this.#event(event);
    } else {
      const { event: _, message, ...facts } = event;
      this.#write(2, toldLine("error", text, fieldsOf(facts)));
    }
  }

  /** @param facts keys and values of the event; `text` says the same to a person */
  done(text: string, facts: Readonly<Record<string, unknown>>): void {
    this.#clear();
    const seconds = Number((this.elapsedMs / 1000).toFixed(3));
    if (this.#style === "json") {
      this.#event({ event: "done", ...facts, seconds });
    } else if (!this.#isQuiet) {
      const line = `${text}; ${durationText(seconds)}`;
      this.#line("info", line, { message: "done", ...facts, seconds });
    }
  }

  /** Removes the line, before anything else is printed. */
  [Symbol.dispose](): void {
    this.#clear();
  }

  // --- internal ---

  #event(event: Readonly<Record<string, unknown>>): void {
    this.#write(1, `${JSON.stringify(event)}\n`);
  }

  /** `text` for people; as an event the message is short, and the facts say the rest. */
  #line(
    level: LogLevel,
    text: string,
    { message, ...facts }: Readonly<Record<string, unknown>>,
  ): void {
    const event = `${this.#label}: ${message}`;
    this.#write(2, toldLine(level, `${this.#label}: ${text}`, fieldsOf(facts), event));
  }

  #clear(): void {
    if (this.#isLineShown) {
      this.#write(2, ERASE_LINE);
      this.#isLineShown = false;
    }
  }
}

// --- internal ---

const INTERVAL_MS = { json: 1_000, line: 250, lines: 10_000, none: Infinity } as const;
const BAR_WIDTH = 30;
const ERASE_LINE = "\r\x1b[K";

/** Those that the log has a form for. */
function fieldsOf(facts: Readonly<Record<string, unknown>>): LogFields {
  const fields: Record<string, LogFields[string]> = {};
  for (const [key, value] of Object.entries(facts)) {
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
      fields[key] = value;
    }
  }
  return fields;
}

interface Progress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

function barOf({ doneBytes, totalBytes }: Progress): string {
  const fraction = totalBytes === 0 ? 1 : doneBytes / totalBytes;
  const filled = Math.round(Math.min(1, fraction) * BAR_WIDTH);
  return `[${"#".repeat(filled)}${".".repeat(BAR_WIDTH - filled)}]`;
}

function textOf({ doneBytes, totalBytes }: Progress, rate: number): string {
  const percent = totalBytes === 0 ? 100 : Math.floor((100 * doneBytes) / totalBytes);
  const amount = `${quantityText(doneBytes)} of ${quantityText(totalBytes)}`;
  const left = rate === 0 ? "" : `, ${durationText((totalBytes - doneBytes) / rate)} left`;
  return `${percent} %, ${amount}, ${quantityText(rate)}/s${left}`;
}
