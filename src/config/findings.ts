/**
 * Collects everything that is wrong with a document, so that a user sees all of it at once, in file
 * order, each with file, line and key. Callers never put a value of `[secrets]` into a message.
 */
import { type ErrorCode, UbiError, UbiErrors } from "../errors.ts";
import { log } from "../log.ts";
import { ConfigError, placeText } from "./config-error.ts";
import { dottedKey, type KeyPath } from "./key-positions.ts";

/** Where a key stands. `fileIndex` 0 is the root file, then its includes in their order. */
export interface KeyOrigin {
  readonly file: string;
  readonly fileIndex: number;
  readonly line?: number | undefined;
}

/** Gets each warning once. */
export type TellWarning = (warning: string) => void;

/** More errors than this in one document are counted, not listed. */
const ERRORS_MAX = 100;

export class Findings {
  readonly #originOf: (path: KeyPath) => KeyOrigin;
  readonly #tell: TellWarning;
  readonly #errors: { readonly origin: KeyOrigin; readonly error: UbiError }[] = [];
  readonly #warnings: string[] = [];

  /** @param tell gets the warnings at the end; the log, if nobody else */
  constructor(originOf: (path: KeyPath) => KeyOrigin, tell: TellWarning = log.warn) {
    this.#originOf = originOf;
    this.#tell = tell;
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
    const place = { file: origin.file, line: origin.line, key: dottedKey(path) };
    this.#errors.push({ origin, error: new ConfigError(code, place, message) });
  }

  /** A warning about a key. */
  warn(path: KeyPath, message: string): void {
    const { file, line } = this.#originOf(path);
    this.note(`${placeText({ file, line, key: dottedKey(path) })}: ${message}`);
  }

  /** A warning that no single key causes. */
  note(message: string): void {
    this.#warnings.push(message);
  }

  /** Tells the warnings; then, when there are errors, throws all of them. */
  finish(): void {
    for (const warning of this.#warnings) {
      this.#tell(warning);
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
