/**
 * Chapters of the documents as parts of manual pages. Knows the Markdown that the documents are written in: headings,
 * paragraphs, lists, tables, fenced blocks, and in a line code, emphasis and links.
 */
import {
  bold,
  bullet,
  chapter,
  entry,
  escaped,
  filled,
  italic,
  paragraph,
  subchapter,
  verbatim,
} from "./roff.ts";

/** The body of the chapter with this heading (`## Layout`), up to the next one of its level or above. */
export function chapterOf(markdown: string, heading: string): string {
  const lines = markdown.split("\n");
  const start = lines.indexOf(heading);
  if (start < 0) {
    throw new Error(`no chapter ${JSON.stringify(heading)}`);
  }
  const level = heading.indexOf(" ");
  const isEnd = new RegExp(`^#{1,${level}} `);
  let isCode = false;
  const length = lines.slice(start + 1).findIndex((line) => {
    isCode = isCode !== line.startsWith("```");
    return !isCode && isEnd.test(line);
  });
  return lines.slice(start + 1, length < 0 ? undefined : start + 1 + length).join("\n");
}

/** One chapter of a page; the headings in it become its parts. */
export function chapterFromMarkdown(title: string, markdown: string): string {
  return chapter(title, blocksOf(markdown).map(roffOf));
}

/** What stands in one line. */
export function inline(text: string): string {
  return text
    .split(/(`[^`]+`|\*\*.+?\*\*|(?<![\w*])\*[^*\s][^*]*\*|\[[^\]]*\]\([^)]*\))/)
    .map((piece) => {
      const link = /^\[([^\]]*)\]\(([^)]*)\)$/.exec(piece);
      if (link !== null) {
        return inline(link[1] ?? "");
      }
      if (/^`[^`]+`$/.test(piece)) {
        return bold(piece.slice(1, -1));
      }
      if (/^\*\*.+\*\*$/.test(piece)) {
        return bold(piece.slice(2, -2));
      }
      return /^\*[^*]+\*$/.test(piece) ? italic(piece.slice(1, -1)) : escaped(piece);
    })
    .join("");
}

// --- internal ---

type Block =
  | { readonly kind: "heading"; readonly text: string }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "item"; readonly mark: string; readonly text: string }
  | { readonly kind: "code"; readonly lines: readonly string[] }
  | { readonly kind: "table"; readonly rows: readonly (readonly string[])[] };

function blocksOf(markdown: string): readonly Block[] {
  const blocks: Block[] = [];
  const lines = markdown.split("\n");
  for (let at = 0; at < lines.length; ) {
    const line = lines[at] ?? "";
    const taken = takeBlock(lines.slice(at), line);
    if (taken.block !== undefined) {
      blocks.push(taken.block);
    }
    at += taken.lines;
  }
  return blocks;
}

function takeBlock(
  lines: readonly string[],
  first: string,
): { readonly block?: Block; readonly lines: number } {
  if (first.trim() === "") {
    return { lines: 1 };
  }
  if (first.startsWith("```")) {
    const end = lines.indexOf("```", 1);
    return { block: { kind: "code", lines: lines.slice(1, end) }, lines: end + 1 };
  }
  const heading = /^#+ (.*)$/.exec(first);
  if (heading !== null) {
    return { block: { kind: "heading", text: heading[1] ?? "" }, lines: 1 };
  }
  if (first.startsWith("|")) {
    const end = lines.findIndex((line) => !line.startsWith("|"));
    const rows = lines.slice(0, end < 0 ? undefined : end);
    return { block: { kind: "table", rows: rows.map(cellsOf) }, lines: rows.length };
  }
  const item = /^(-|\d+\.) (.*)$/.exec(first);
  const end = lines.findIndex((line, index) => index > 0 && endsText(line));
  const text = lines.slice(0, end < 0 ? undefined : end);
  if (item !== null) {
    const mark = item[1] === "-" ? "\\(bu" : (item[1] ?? "");
    const whole = [item[2] ?? "", ...text.slice(1)].map((line) => line.trim()).join("\n");
    return { block: { kind: "item", mark, text: whole }, lines: text.length };
  }
  return { block: { kind: "text", text: text.join("\n") }, lines: text.length };
}

function endsText(line: string): boolean {
  return line.trim() === "" || /^(#+ |```|\||- |\d+\. )/.test(line);
}

function cellsOf(row: string): readonly string[] {
  return row
    .replace(/^\||\|\s*$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function roffOf(block: Block): string {
  switch (block.kind) {
    case "heading":
      return subchapter(block.text.replaceAll("`", ""));
    case "text":
      return paragraph(filled(inline(block.text)));
    case "item":
      return bullet(block.mark, filled(inline(block.text)));
    case "code":
      return verbatim(block.lines);
    case "table":
      return tableOf(block.rows);
  }
}

/** The first column names the entry; of several others each has its heading. */
function tableOf([headings = [], , ...rows]: readonly (readonly string[])[]): string {
  return rows
    .map(([name = "", ...cells]) => {
      const texts = cells.map((cell, index) => {
        const heading = headings[index + 1] ?? "";
        return cells.length > 1 && heading !== "" ? `${heading}: ${cell || "none"}` : cell;
      });
      const body = texts.map((text) => filled(inline(text)) || "\\&").join("\n.br\n");
      return entry(inline(name) || "\\&", body);
    })
    .join("\n");
}
