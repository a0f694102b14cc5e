/**
 * Reads the XML that S3 services answer: elements and text, nothing else. Attributes are skipped, a document type
 * (and with it every entity of its own) is refused, and depth and number of elements have limits.
 */

export interface XmlElement {
  /** Without a namespace prefix. */
  readonly name: string;
  /** All text directly in it, entities decoded. */
  readonly text: string;
  readonly children: readonly XmlElement[];
}

/** The root element, or undefined for what is not such a document. */
export function parseXml(source: string): XmlElement | undefined {
  const reader = new XmlReader(source);
  try {
    return reader.root();
  } catch (error) {
    if (error instanceof XmlError) {
      return undefined;
    }
    throw error;
  }
}

/** The text of the first child of that name. */
export function childText(element: XmlElement | undefined, name: string): string | undefined {
  return element?.children.find((child) => child.name === name)?.text;
}

// --- internal ---

const DEPTH_MAX = 16;
const ELEMENTS_MAX = 50_000;

class XmlError extends Error {}

interface OpenElement {
  readonly name: string;
  text: string;
  readonly children: XmlElement[];
}

class XmlReader {
  readonly #source: string;
  #position = 0;
  #elementCount = 0;

  constructor(source: string) {
    this.#source = source;
  }

  root(): XmlElement {
    const open: OpenElement[] = [{ name: "", text: "", children: [] }];
    while (this.#position < this.#source.length) {
      this.#next(open);
    }
    const [document] = open;
    const root = document?.children[0];
    if (open.length !== 1 || document?.children.length !== 1 || root === undefined) {
      throw new XmlError();
    }
    return root;
  }

  /** Takes text up to the next tag, or one tag. */
  #next(open: OpenElement[]): void {
    const inner = open.at(-1);
    if (inner === undefined) {
      throw new XmlError();
    }
    if (this.#source[this.#position] !== "<") {
      const end = this.#source.indexOf("<", this.#position);
      const text = this.#take(end < 0 ? this.#source.length : end);
      inner.text += decodeEntities(text);
    } else if (this.#isAt("<!--")) {
      this.#takeThrough("-->");
    } else if (this.#isAt("<![CDATA[")) {
      inner.text += this.#takeThrough("]]>").slice("<![CDATA[".length, -"]]>".length);
    } else if (this.#isAt("<?")) {
      this.#takeThrough("?>");
    } else if (this.#isAt("</")) {
      const name = localName(this.#takeThrough(">").slice(2, -1).trimEnd());
      open.pop();
      this.#close(inner, name, open.at(-1));
    } else {
      this.#begin(open);
    }
  }

  #begin(open: OpenElement[]): void {
    const tag = this.#takeThrough(">").slice(1, -1);
    const isEmpty = tag.endsWith("/");
    const end = tag.search(/[\s/]/);
    const name = localName(end < 0 ? tag : tag.slice(0, end));
    this.#elementCount += 1;
    if (name === "" || open.length > DEPTH_MAX || this.#elementCount > ELEMENTS_MAX) {
      throw new XmlError();
    }
    const element = { name, text: "", children: [] };
    if (isEmpty) {
      open.at(-1)?.children.push(element);
    } else {
      open.push(element);
    }
  }

  #close(element: OpenElement, name: string, outer: OpenElement | undefined): void {
    if (outer === undefined || element.name !== name) {
      throw new XmlError();
    }
    outer.children.push(element);
  }

  #isAt(text: string): boolean {
    return this.#source.startsWith(text, this.#position);
  }

  #take(end: number): string {
    const text = this.#source.slice(this.#position, end);
    this.#position = end;
    return text;
  }

  #takeThrough(end: string): string {
    const found = this.#source.indexOf(end, this.#position);
    if (found < 0) {
      throw new XmlError();
    }
    return this.#take(found + end.length);
  }
}

/** Declarations (`<!DOCTYPE`) are no names, so they end here. */
function localName(name: string): string {
  if (!/^[A-Za-z_][\w.:-]*$/.test(name)) {
    throw new XmlError();
  }
  return name.slice(name.indexOf(":") + 1);
}

const ENTITIES: Readonly<Record<string, string>> = {
  lt: "<",
  gt: ">",
  amp: "&",
  quot: '"',
  apos: "'",
};

/** What XML cannot say, such as a control character in a stranger's key, makes no key of ours, and hides none. */
const UNKNOWN = "\uFFFD";

function decodeEntities(text: string): string {
  return text.replace(/&([^;&]{0,12});?/g, (_, entity: string) => {
    const number = /^#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}))$/.exec(entity);
    const code =
      number === null
        ? undefined
        : Number.parseInt(number[1] ?? number[2] ?? "", number[1] === undefined ? 10 : 16);
    const decoded =
      code === undefined
        ? ENTITIES[entity]
        : code <= 0x10ffff
          ? String.fromCodePoint(code)
          : undefined;
    return decoded ?? UNKNOWN;
  });
}
