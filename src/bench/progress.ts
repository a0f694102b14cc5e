/** One line on a terminal's standard error that is written over again; nothing where it is no terminal. */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { isJsonLog } from "../log.ts";

const INTERVAL_NS = 250e6;
const BAR_WIDTH = 30;
const ERASE_LINE = "\r\x1b[K";

export class Progress {
  readonly #isShown: boolean;
  #nextNs = 0;
  #lastNs = 0;
  #lastOperations = 0;

  constructor(isShown = isatty(2) && !isJsonLog()) {
    this.#isShown = isShown;
  }

  /** Shows `fraction` (0 to 1) and the rate since the last line, four times a second. */
  show(label: string, fraction: number, operations: number, nowNs: number): void {
    if (!this.#isShown || nowNs < this.#nextNs) {
      return;
    }
    const seconds = (nowNs - this.#lastNs) / 1e9;
    const rate = this.#lastNs === 0 ? 0 : (operations - this.#lastOperations) / seconds;
    const filled = Math.round(Math.min(1, fraction) * BAR_WIDTH);
    const bar = "#".repeat(filled) + ".".repeat(BAR_WIDTH - filled);
    const percent = `${Math.floor(fraction * 100)}`.padStart(3);
    this.#write(`${ERASE_LINE}${label} [${bar}] ${percent}% ${Math.max(0, Math.round(rate))}/s`);
    this.#nextNs = nowNs + INTERVAL_NS;
    this.#lastNs = nowNs;
    this.#lastOperations = operations;
  }

  /** Removes the line, before anything else is printed. */
  clear(): void {
    if (this.#isShown) {
      this.#write(ERASE_LINE);
    }
  }

  #write(text: string): void {
    writeSync(2, text);
  }
}
