/** Lines of text with styles, cut to a width; styles become escape sequences only where colour is wanted. */

export type Style = "plain" | "bold" | "dim" | "good" | "warn" | "bad" | "read" | "write" | "bar";

export interface Span {
  readonly text: string;
  readonly style: Style;
}

export type StyledLine = readonly Span[];

export function span(text: string, style: Style = "plain"): Span {
  return { text, style };
}

/** The line in at most `columns` characters, without blanks at its end. */
export function lineText(
  line: StyledLine,
  columns: number,
  { isColoured }: { readonly isColoured: boolean },
): string {
  let left = columns;
  const shown: Span[] = [];
  for (const { text, style } of line) {
    const characters = [...text];
    const cut = characters.slice(0, left).join("");
    left -= Math.min(left, characters.length);
    shown.push({ text: cut, style });
  }
  if (!isColoured) {
    return shown
      .map(({ text }) => text)
      .join("")
      .trimEnd();
  }
  return shown.map(coloured).join("");
}

/** The number of characters of a line. */
export function lineLength(line: StyledLine): number {
  return line.reduce((sum, { text }) => sum + [...text].length, 0);
}

// --- internal ---

const CODES: Readonly<Record<Style, string>> = {
  plain: "",
  bold: "1",
  dim: "2",
  good: "32",
  warn: "33",
  bad: "1;31",
  read: "36",
  write: "35",
  bar: "7",
};

function coloured({ text, style }: Span): string {
  return CODES[style] === "" || text === "" ? text : `\x1b[${CODES[style]}m${text}\x1b[0m`;
}
