/**
 * Collects everything that is wrong with a document, so that a user sees all of it at once, in file
 * order, each with file, line and key. Callers never put a value of `[secrets]` into a message.
 */
import { type ErrorCode, UbiError, UbiErrors } from "../errors.ts";
import { log } from "../log.ts";
import { dottedKey, type KeyPath } from "./key-positions.ts";

/** Where a key stands. `fileIndex` 0 is the root file, then its includes in their order. */
export interface KeyOrigin {
  readonly file: string;
  readonly fileIndex: number;
  readonly line?: number | undefined;
}

/** More errors than this in one document are counted, not listed. */
const ERRORS_MAX = 100;

export class Findings {
  readonly #originOf: (path: KeyPath) => KeyOrigin;
  readonly #errors: { readonly origin: KeyOrigin; readonly error: UbiError }[] = [];
  readonly #warnings: string[] = [];

  constructor(originOf: (path: KeyPath) => KeyOrigin) {
    this.#originOf = originOf;
  }

  get warnings(): readonly string[] {
    return this.#warnings;
  }

  get hasErrors(): boolean {
    return this.#errors.length > 0;
  }

  /** `path` is the key at fault (an absent one is placed at its nearest table that exists). */
  error(code: ErrorCode, path: KeyPath, message: string): void {
    const origin = this.#originOf(path);
    const error = new UbiError(code, `${place(origin)}: ${dottedKey(path)}: ${message}`);
    this.#errors.push({ origin, error });
  }

  /** A warning about a key. */
  warn(path: KeyPath, message: string): void {
    this.note(`${place(this.#originOf(path))}: ${dottedKey(path)}: ${message}`);
  }

  /** A warning that no single key causes. */
  note(message: string): void {
    this.#warnings.push(message);
  }

  /** Logs the warnings; then, when there are errors, throws all of them. */
  finish(): void {
    for (const warning of this.#warnings) {
      log.warn(warning);
    }
    const sorted = this.#errors.toSorted(
      (a, b) =>
        a.origin.fileIndex - b.origin.fileIndex || (a.origin.line ?? 0) - (b.origin.line ?? 0),
    );
    const listed = sorted.slice(0, ERRORS_MAX).map((entry) => entry.error);
    if (sorted.length > ERRORS_MAX) {
      const count = sorted.length - ERRORS_MAX;
      listed.push(new UbiError("E_CONFIG", `${count} more errors; mend the first ones`));
    }
    if (listed.length > 0) {
      throw new UbiErrors(listed);
    }
  }
}

// --- internal ---

function place(origin: KeyOrigin): string {
  return origin.line === undefined ? origin.file : `${origin.file}:${origin.line}`;
}
