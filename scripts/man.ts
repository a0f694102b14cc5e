/**
 * Makes the manual pages in dist/man: those of commands from the tree of commands, ubiblk.toml(5) from the schema, and
 * those of formats, protocol, RPC and errors from chapters of the documents.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import packageJson from "../package.json" with { type: "json" };
import { wholeOutline } from "../src/commands/command-outline.ts";
import { COMMANDS } from "../src/commands/command-tree.ts";
import { commandPage, type Edition, pageName, programPage } from "./man/commands.ts";
import { configPage } from "./man/config.ts";
import { chapterFromMarkdown, chapterOf } from "./man/markdown.ts";
import { page } from "./man/roff.ts";
import { sourceDateSeconds } from "./source-date.ts";

const ROOT = resolve(import.meta.dir, "..");
export const MANUAL_FOLDER = join(ROOT, "dist", "man");

/** Pages by the name of their file, such as `ubiblk-vhost.1`. */
export async function manualPages(): Promise<ReadonlyMap<string, string>> {
  const date = new Date((await sourceDateSeconds()) * 1000).toISOString().slice(0, 10);
  const edition = { date, version: packageJson.version };
  const outlines = await wholeOutline(COMMANDS, ["ubiblk"]);
  const environment = chapterFromMarkdown("The log", chapterOf(document("errors"), "## The log"));
  const others = [{ name: "ubiblk.toml", section: 5 }, ...DOCUMENT_PAGES];
  const pages = [
    ["ubiblk.1", programPage({ outlines, others, environment, edition })],
    ...outlines.map((each) => [`${pageName(each)}.1`, commandPage(each, edition)]),
    ["ubiblk.toml.5", configPage(edition, chaptersOf(CONFIG_CHAPTERS))],
    ...DOCUMENT_PAGES.map((each) => [`${each.name}.${each.section}`, documentPage(each, edition)]),
  ] as const;
  return new Map(pages.map(([file = "", text = ""]) => [file, text]));
}

/** Writes them, each in the folder of its section. Returns the paths below it. */
export async function writeManual(folder: string): Promise<readonly string[]> {
  rmSync(folder, { recursive: true, force: true });
  const paths: string[] = [];
  for (const [file, text] of await manualPages()) {
    const path = join(`man${file.split(".").at(-1)}`, file);
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
    paths.push(path);
  }
  return paths;
}

// --- internal ---

/** A chapter of a document, and its title in a page. */
interface DocumentChapter {
  readonly title: string;
  readonly document: string;
  readonly heading: string;
}

interface DocumentPage {
  readonly name: string;
  readonly section: number;
  readonly summary: string;
  readonly chapters: readonly DocumentChapter[];
}

const CONFIG_CHAPTERS: readonly DocumentChapter[] = [
  { title: "Included files", document: "config", heading: "## `include`" },
  { title: "File modes", document: "config", heading: "## File modes" },
];

const DOCUMENT_PAGES: readonly DocumentPage[] = [
  {
    name: "ubiblk-format",
    section: 5,
    summary: "what ubiblk writes on disks and into archives",
    chapters: [
      { title: "Enciphered disks", document: "encryption", heading: "## Format" },
      { title: "Metadata of a disk", document: "metadata", heading: "## Layout" },
      { title: "Archives", document: "archive", heading: "# The format" },
    ],
  },
  {
    name: "ubiblk-protocol",
    section: 7,
    summary: "how stripes are asked for and sent",
    chapters: [
      { title: "The protocol", document: "remote-stripe", heading: "## The protocol" },
      { title: "TLS", document: "remote-stripe", heading: "## TLS" },
      { title: "Security", document: "remote-stripe", heading: "## Security" },
    ],
  },
  {
    name: "ubiblk-rpc",
    section: 7,
    summary: "asking a running backend",
    chapters: [{ title: "Description", document: "rpc", heading: "# The RPC socket" }],
  },
  {
    name: "ubiblk-errors",
    section: 7,
    summary: "error codes of ubiblk and what to do",
    chapters: [{ title: "Description", document: "errors", heading: "# Error codes" }],
  },
];

function documentPage({ chapters, ...title }: DocumentPage, edition: Edition): string {
  return page({ ...title, ...edition }, chaptersOf(chapters));
}

function chaptersOf(chapters: readonly DocumentChapter[]): readonly string[] {
  return chapters.map((each) =>
    chapterFromMarkdown(each.title, chapterOf(document(each.document), each.heading)),
  );
}

function document(name: string): string {
  return readFileSync(join(ROOT, "docs", `${name}.md`), "utf8");
}

if (import.meta.main) {
  const paths = await writeManual(MANUAL_FOLDER);
  console.log(`man: ${paths.length} pages in dist/man`);
}
