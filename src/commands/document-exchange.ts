/** Exchanges values that stand in the files of a document, and nothing else of them: comments and layout stay. */
import { fchmodSync, fchownSync, readFileSync, statSync } from "node:fs";
import { OutputFile } from "../copy/output-file.ts";
import { errorText, UbiError } from "../errors.ts";

export interface Exchange {
  /** What it is, for messages. */
  readonly what: string;
  /** As they stand between their quotes. */
  readonly oldValue: string;
  readonly newValue: string;
}

/**
 * Writes all files or, as far as anything can be known before, none. Each is replaced whole, with its owner and mode.
 * @throws UbiError E_SECRET_OUTPUT
 */
export function exchangeInFiles(files: readonly string[], exchanges: readonly Exchange[]): void {
  const texts = new Map(files.map((file) => [file, textOf(file)]));
  const changed = new Map<string, string>();
  for (const exchange of exchanges) {
    const { file, text } = exchanged(new Map([...texts, ...changed]), exchange);
    changed.set(file, text);
  }
  for (const [file, text] of changed) {
    replaceFile(file, text);
  }
}

// --- internal ---

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const message = `cannot read ${file} again: ${errorText(error)}`;
    throw new UbiError("E_SECRET_OUTPUT", message, { cause: error });
  }
}

function exchanged(
  texts: ReadonlyMap<string, string>,
  { what, oldValue, newValue }: Exchange,
): { readonly file: string; readonly text: string } {
  const places = [...texts].flatMap(([file, text]) =>
    text
      .split(oldValue)
      .slice(1)
      .map(() => ({ file, text })),
  );
  const [place] = places;
  if (place === undefined || places.length > 1 || oldValue === "") {
    const where = [...texts.keys()].join(", ");
    const count = place === undefined ? "not in one piece" : `${places.length} times`;
    const advice = "exchange it by hand: without --in-place the new tables are printed";
    throw new UbiError("E_SECRET_OUTPUT", `${where}: ${what} stands there ${count}; ${advice}`);
  }
  return { file: place.file, text: place.text.replace(oldValue, () => newValue) };
}

function replaceFile(path: string, text: string): void {
  const { uid, gid, mode } = statSync(path);
  using file = OutputFile.create(path, { inputs: [], mayReplace: true, code: "E_SECRET_OUTPUT" });
  file.write(new TextEncoder().encode(text));
  try {
    fchownSync(file.fd, uid, gid);
    fchmodSync(file.fd, mode & 0o7777);
  } catch (error) {
    const message = `cannot write ${path}: ${errorText(error)}`;
    throw new UbiError("E_SECRET_OUTPUT", message, { cause: error });
  }
  file.commit();
}
