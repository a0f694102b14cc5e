/**
 * A full-screen terminal: alternate screen, hidden cursor, single keys. What was there before comes back
 * however the process ends, but for SIGKILL.
 */
import { UbiError } from "../errors.ts";
import { keysOf } from "./keys.ts";
import type { ScreenSize } from "./picture.ts";

interface TerminalOptions {
  /** Writes to standard output; false when nobody reads it any more. */
  readonly write: (text: string) => boolean;
  readonly onKey: (key: string) => void;
  readonly onResize: () => void;
  /** The terminal is gone. */
  readonly onEnd: () => void;
}

/** A terminal that tells no size, or nonsense, counts as this large. */
const SIZE_UNKNOWN: ScreenSize = { columns: 80, rows: 24 };
const SIZE_MAX = 1_000;

export class Terminal implements Disposable {
  readonly #options: TerminalOptions;
  #isOpen = true;
  readonly #restoreAtEnd = () => this[Symbol.dispose]();
  readonly #takeKeys = (bytes: Uint8Array) => this.#keys(bytes);

  constructor(options: TerminalOptions) {
    this.#options = options;
    for (const event of END_EVENTS) {
      process.on(event, this.#restoreAtEnd);
    }
    process.stdout.on("resize", options.onResize);
    if (process.stdin.isTTY) {
      process.stdin.setRawMode(true);
      process.stdin.on("data", this.#takeKeys);
      process.stdin.once("end", options.onEnd);
      process.stdin.resume();
    }
    this.#write(ENTER);
  }

  get size(): ScreenSize {
    const { columns, rows } = process.stdout;
    return { columns: sane(columns, SIZE_UNKNOWN.columns), rows: sane(rows, SIZE_UNKNOWN.rows) };
  }

  /**
   * Shows `lines` in place of what was there. Each line is erased before it is written: behind a line as
   * wide as the screen, the cursor stands on its last character.
   */
  draw(lines: readonly string[]): void {
    const blank = Array.from({ length: Math.max(0, this.size.rows - lines.length) }, () => "");
    const text = [...lines, ...blank].map((line) => `${ERASE_LINE}${line}`).join("\r\n");
    this.#write(`${HOME}${text}`);
  }

  /** Gives the terminal back; for the second time does nothing. */
  [Symbol.dispose](): void {
    if (!this.#isOpen) {
      return;
    }
    this.#isOpen = false;
    for (const event of END_EVENTS) {
      process.off(event, this.#restoreAtEnd);
    }
    process.stdout.off("resize", this.#options.onResize);
    this.#write(LEAVE);
    if (process.stdin.isTTY) {
      process.stdin.setRawMode(false);
      process.stdin.off("data", this.#takeKeys);
      process.stdin.off("end", this.#options.onEnd);
      process.stdin.pause();
    }
  }

  // --- internal ---

  #keys(bytes: Uint8Array): void {
    for (const key of keysOf(new TextDecoder().decode(bytes))) {
      this.#options.onKey(key);
    }
  }

  /** A terminal that hung up cannot be written to any more, which is an end and no failure. */
  #write(text: string): void {
    try {
      if (this.#options.write(text)) {
        return;
      }
    } catch (error) {
      if (!(error instanceof UbiError)) {
        throw error;
      }
    }
    this.#options.onEnd();
  }
}

// --- internal ---

/** The second comes before the text of the error is printed, which shall not go with the screen. */
const END_EVENTS = ["exit", "uncaughtExceptionMonitor"];
const CSI = "\x1b[";
/** Alternate screen, no cursor, no wrapping of long lines. */
const ENTER = `${CSI}?1049h${CSI}?25l${CSI}?7l${CSI}2J`;
const LEAVE = `${CSI}0m${CSI}?7h${CSI}?25h${CSI}?1049l`;
const HOME = `${CSI}H`;
const ERASE_LINE = `${CSI}K`;

function sane(value: number | undefined, fallback: number): number {
  return value !== undefined && value >= 1 && value <= SIZE_MAX ? value : fallback;
}
