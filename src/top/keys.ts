/** Keys from the bytes that a terminal sends for them. */

/** The keys in `text`: characters as they are, named ones as `up`, all other sequences as `other`. */
export function keysOf(text: string): readonly string[] {
  return [...text.matchAll(KEY)].map(([key]) => NAMES[key] ?? (key.length > 1 ? "other" : key));
}

// --- internal ---

/** A control sequence (`ESC [ ... letter`), a function key (`ESC O letter`), or one character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what terminals send
const KEY = /\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|[\s\S]/g;

const NAMES: Readonly<Record<string, string>> = {
  "\x03": "ctrl-c",
  "\x04": "ctrl-d",
  "\x1b": "escape",
  "\x1b[A": "up",
  "\x1bOA": "up",
  "\x1b[B": "down",
  "\x1bOB": "down",
  "\x1b[5~": "page up",
  "\x1b[6~": "page down",
};
