/**
 * Finds the line of every key of a TOML document, which the parser does not tell. It only walks
 * text that the parser accepted, so it checks nothing; on text that it does not understand it stops
 * early and messages have no line.
 */

/** The path of a key from the top of the document, one element a part. */
export type KeyPath = readonly string[];

/** Line numbers begin at 1. A key that appears several times (a table) has its first line. */
export type KeyLines = ReadonlyMap<string, number>;

/** Makes the line table of `text`; look a path up with `keyId(path)`. */
export function findKeyLines(text: string): KeyLines {
  const scanner = new KeyScanner(text);
  scanner.scanDocument();
  return scanner.lines;
}

/** A text that is different for every path, whatever characters its parts hold. */
export function keyId(path: KeyPath): string {
  return JSON.stringify(path);
}

/** The path as a user writes it, parts that need quotes in quotes: `secrets."a b".source`. */
export function dottedKey(path: KeyPath): string {
  return path
    .map((part) => (/^[A-Za-z0-9_-]+$/.test(part) ? part : JSON.stringify(part)))
    .join(".");
}

// --- internal ---

const SPACE = /[ \t\r\n\uFEFF]/;
const BARE_KEY = /[A-Za-z0-9_-]/;
const BARE_VALUE_END = /[,\]}#\n]/;

class KeyScanner {
  readonly lines = new Map<string, number>();
  readonly #text: string;
  #at = 0;
  #line = 1;

  constructor(text: string) {
    this.#text = text;
  }

  scanDocument(): void {
    let table: KeyPath = [];
    for (this.#skipBlank(); this.#at < this.#text.length; this.#skipBlank()) {
      const start = this.#at;
      if (this.#peek() === "[") {
        this.#skipAll("[");
        table = this.#readKey([]);
        this.#skipBlank();
        this.#skipAll("]");
      } else {
        this.#scanPair(table);
      }
      if (this.#at === start) {
        return;
      }
    }
  }

  #scanPair(table: KeyPath): void {
    const key = this.#readKey(table);
    this.#skipBlank();
    if (this.#peek() === "=") {
      this.#advance(1);
      this.#scanValue(key);
    }
  }

  /** Reads a dotted key and notes the line of each table on its way. */
  #readKey(table: KeyPath): KeyPath {
    let path = table;
    do {
      this.#skipBlank();
      path = [...path, this.#readKeyPart()];
      const id = keyId(path);
      if (!this.lines.has(id)) {
        this.lines.set(id, this.#line);
      }
      this.#skipBlank();
    } while (this.#take("."));
    return path;
  }

  #readKeyPart(): string {
    const start = this.#at;
    const first = this.#peek();
    if (first === '"' || first === "'") {
      this.#skipString();
      const raw = this.#text.slice(start + 1, this.#at - 1);
      return first === '"' ? unescapeKey(raw) : raw;
    }
    while (BARE_KEY.test(this.#peek())) {
      this.#advance(1);
    }
    return this.#text.slice(start, this.#at);
  }

  #scanValue(path: KeyPath): void {
    this.#skipBlank();
    const first = this.#peek();
    if (first === '"' || first === "'") {
      this.#skipString();
    } else if (first === "[") {
      this.#scanList("]", (index) => this.#scanValue([...path, String(index)]));
    } else if (first === "{") {
      this.#scanList("}", () => this.#scanPair(path));
    } else {
      while (this.#at < this.#text.length && !BARE_VALUE_END.test(this.#peek())) {
        this.#advance(1);
      }
    }
  }

  #scanList(end: string, scanItem: (index: number) => void): void {
    this.#advance(1);
    for (let index = 0; this.#at < this.#text.length; index += 1) {
      this.#skipBlank();
      if (this.#take(end)) {
        return;
      }
      const start = this.#at;
      scanItem(index);
      this.#skipBlank();
      this.#take(",");
      if (this.#at === start) {
        return;
      }
    }
  }

  /** Skips a string of any of the four kinds, whose opening quote is next. */
  #skipString(): void {
    const quote = this.#peek();
    const isMultiline = this.#text.startsWith(quote.repeat(3), this.#at);
    const end = isMultiline ? quote.repeat(3) : quote;
    this.#advance(end.length);
    while (this.#at < this.#text.length && !this.#text.startsWith(end, this.#at)) {
      this.#advance(quote === '"' && this.#peek() === "\\" ? 2 : 1);
    }
    this.#advance(end.length);
    // A multi-line string may end in one or two quotes of its own before the closing three.
    while (isMultiline && this.#peek() === quote) {
      this.#advance(1);
    }
  }

  #skipBlank(): void {
    while (this.#at < this.#text.length) {
      if (this.#peek() === "#") {
        const end = this.#text.indexOf("\n", this.#at);
        this.#advance((end < 0 ? this.#text.length : end) - this.#at);
      } else if (SPACE.test(this.#peek())) {
        this.#advance(1);
      } else {
        return;
      }
    }
  }

  #skipAll(character: string): void {
    while (this.#take(character)) {}
  }

  #take(character: string): boolean {
    const isNext = this.#peek() === character;
    if (isNext) {
      this.#advance(1);
    }
    return isNext;
  }

  #peek(): string {
    return this.#text.charAt(this.#at);
  }

  #advance(count: number): void {
    const end = Math.min(this.#at + count, this.#text.length);
    for (; this.#at < end; this.#at += 1) {
      if (this.#text.charCodeAt(this.#at) === 10) {
        this.#line += 1;
      }
    }
  }
}

function unescapeKey(raw: string): string {
  return raw.replace(
    /\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))/g,
    unescapeOne,
  );
}

const ESCAPES: Readonly<Record<string, string>> = {
  b: "\b",
  t: "\t",
  n: "\n",
  f: "\f",
  r: "\r",
  e: "\u001B",
};

function unescapeOne(
  _match: string,
  u4?: string,
  u8?: string,
  x2?: string,
  letter?: string,
): string {
  const hex = u4 ?? u8 ?? x2;
  if (hex !== undefined) {
    const codePoint = Number.parseInt(hex, 16);
    return codePoint <= 0x10ffff ? String.fromCodePoint(codePoint) : "";
  }
  return letter === undefined ? "" : (ESCAPES[letter] ?? letter);
}
