/**
 * What the scripts of all shells are made of. A *place* is the program and the words that led to a command:
 * `ubiblk archive verify`. Each script first finds its place, and then offers what is of use there.
 */
import type { CommandOutline } from "./command-outline.ts";

export interface CompletionFacts {
  readonly program: string;
  /** That of the program first; flags that every command has are among those of each. */
  readonly outlines: readonly CommandOutline[];
  /** Other names of the program, and the place where they start. */
  readonly links: readonly { readonly name: string; readonly place: string }[];
}

export function placeOf({ path }: CommandOutline): string {
  return path.join(" ");
}

/** Places that a word leads to. */
export function innerPlaces({ outlines }: CompletionFacts): readonly string[] {
  return outlines.filter(({ path }) => path.length > 1).map(placeOf);
}

/** In single quotes as bash and zsh read them. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
