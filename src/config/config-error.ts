/** A mistake in a document: an error that knows its place. */
import { type ErrorCode, UbiError } from "../errors.ts";

/** Where in the files of a document something stands; a line and a column begin at 1. */
export interface DocumentPlace {
  readonly file: string;
  readonly line?: number | undefined;
  readonly column?: number | undefined;
  /** Dotted. */
  readonly key?: string | undefined;
}

export class ConfigError extends UbiError {
  readonly place: DocumentPlace;
  /** The message without the place. */
  readonly reason: string;

  constructor(code: ErrorCode, place: DocumentPlace, reason: string) {
    super(code, `${placeText(place)}: ${reason}`);
    this.place = place;
    this.reason = reason;
  }
}

/** `disk.toml:5: tuning.num_queues`. */
export function placeText({ file, line, column, key }: DocumentPlace): string {
  const position = [file, line, column].filter((part) => part !== undefined).join(":");
  return key === undefined ? position : `${position}: ${key}`;
}
