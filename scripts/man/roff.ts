/** Manual pages in the language of man(7): text that says what it says whatever is in it, and the parts of a page. */

export interface PageTitle {
  readonly name: string;
  readonly section: number;
  /** Of the NAME chapter. */
  readonly summary: string;
  readonly date: string;
  readonly version: string;
}

export function page(title: PageTitle, chapters: readonly string[]): string {
  const { name, section, summary, date, version } = title;
  const head = [
    '.\\" Made by scripts/man.ts: changes belong into what it is made of.',
    `.TH ${quoted(name.toUpperCase())} ${section} "${date}" ${quoted(`ubiblk ${version}`)} "ubiblk"`,
    ".ad l",
    ".SH NAME",
    `${escaped(name)} \\- ${escaped(summary)}`,
  ];
  return `${[...head, ...chapters.filter((chapter) => chapter !== "")].join("\n")}\n`;
}

/** Nothing when it has no parts. The first paragraph needs no `.PP`. */
export function chapter(title: string, parts: readonly string[]): string {
  const joined = parts.join("\n");
  const body = joined.replace(/^\.PP\n/, "").replace(/^(\.SS .*\n)\.PP\n/gm, "$1");
  return body === "" ? "" : `.SH ${quoted(title.toUpperCase())}\n${body}`;
}

export function subchapter(title: string): string {
  return `.SS ${quoted(title)}`;
}

/** `content` is roff. */
export function paragraph(content: string): string {
  return `.PP\n${content}`;
}

/** A name and what there is to say of it; both are roff. */
export function entry(tag: string, content: string): string {
  return `.TP\n${tag}\n${content}`;
}

export function bullet(mark: string, content: string): string {
  return `.IP ${mark} 4\n${content}`;
}

/** Lines as they are. */
export function verbatim(lines: readonly string[]): string {
  return [".PP", ".RS 4", ".EX", ...lines.map(escapedLine), ".EE", ".RE"].join("\n");
}

export function bold(text: string): string {
  return `\\fB${escaped(text)}\\fR`;
}

export function italic(text: string): string {
  return `\\fI${escaped(text)}\\fR`;
}

/** Text in the middle of a line. Every hyphen is one that can be searched for and copied. */
export function escaped(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll("'", "\\(aq")
    .replaceAll("`", "\\(ga")
    .replaceAll("^", "\\(ha")
    .replaceAll("~", "\\(ti");
}

/** Filled text: each sentence begins a line, and lines are short, so that editions of a page can be compared. */
export function filled(content: string): string {
  return content
    .split(/\s*\n\s*| (?<=[.] )/)
    .flatMap(shortLines)
    .map((line) => (line.startsWith(".") || line.startsWith("'") ? `\\&${line}` : line))
    .join("\n");
}

// --- internal ---

/** Text that may begin a line, where a dot or a quote would be a request. */
function escapedLine(text: string): string {
  const line = escaped(text);
  return line.startsWith(".") ? `\\&${line}` : line;
}

const LINE_LENGTH = 78;

function shortLines(text: string): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ").filter((each) => each !== "")) {
    if (line !== "" && line.length + 1 + word.length > LINE_LENGTH) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return line === "" ? lines : [...lines, line];
}

function quoted(text: string): string {
  return `"${escaped(text).replaceAll('"', "\\(dq")}"`;
}
