/**
 * Finds keys that stand twice in one object of a JSON text. `JSON.parse` keeps the last one silently, and two
 * readers that disagree about which one counts can be played against each other.
 */

/** @param text valid JSON @returns the first repeated key, or undefined */
export function findRepeatedKey(text: string): string | undefined {
  const open: Set<string>[] = [];
  for (const match of text.matchAll(TOKEN)) {
    const token = match[0];
    if (token === "{" || token === "[") {
      open.push(new Set());
    } else if (token === "}" || token === "]") {
      open.pop();
    } else if (token.endsWith(":")) {
      const key: string = JSON.parse(token.replace(COLON, ""));
      const keys = open.at(-1);
      if (keys?.has(key) === true) {
        return key;
      }
      keys?.add(key);
    }
  }
  return undefined;
}

// --- internal ---

/** A string, with the colon behind it if it is a key; or a bracket. */
const TOKEN = /"(?:[^"\\]|\\.)*"(?:\s*:)?|[{}[\]]/g;
const COLON = /\s*:$/;
