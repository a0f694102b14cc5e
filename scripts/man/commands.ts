/** The manual pages of the commands, from the tree that help and completions come from. */
import {
  COMMON_FLAGS,
  type CommandOutline,
  type FlagOutline,
  type WordOutline,
} from "../../src/commands/command-outline.ts";
import { flagText } from "../../src/commands/help-text.ts";
import { inline } from "./markdown.ts";
import {
  bold,
  chapter,
  entry,
  escaped,
  filled,
  italic,
  page,
  paragraph,
  verbatim,
} from "./roff.ts";

export interface Edition {
  readonly date: string;
  readonly version: string;
}

/** `ubiblk-archive-verify` */
export function pageName({ path }: CommandOutline): string {
  return path.join("-");
}

export function commandPage(outline: CommandOutline, edition: Edition): string {
  const { summary, description, flags, words, tools, examples } = outline;
  const name = pageName(outline);
  const title = { ...edition, name, section: 1, summary: inSentence(summary) };
  return page(title, [
    chapter("Synopsis", synopsisOf(outline)),
    chapter("Description", [paragraph(filled(inline(`${description}.`)))]),
    chapter("Arguments", words.map(wordEntry)),
    chapter(
      "Commands",
      tools.map(({ name: tool, description: does }) =>
        entry(reference(`${name}-${tool}`, 1), filled(inline(does))),
      ),
    ),
    chapter("Options", [...flags, ...COMMON_FLAGS].map(flagEntry)),
    chapter("Exit status", exitEntries(outline)),
    chapter(
      "Examples",
      examples.flatMap(([line, does]) => [
        paragraph(filled(inline(`${does[0]?.toUpperCase()}${does.slice(1)}:`))),
        verbatim([line]),
      ]),
    ),
    chapter("See also", [paragraph(seeAlso(outline))]),
  ]);
}

/** The page of the program: its commands, and where everything else is. */
export function programPage(options: {
  readonly outlines: readonly CommandOutline[];
  readonly others: readonly { readonly name: string; readonly section: number }[];
  readonly environment: string;
  readonly edition: Edition;
}): string {
  const { outlines, others, environment, edition } = options;
  const summary = "serves a virtual machine its disk";
  return page({ ...edition, name: "ubiblk", section: 1, summary }, [
    chapter("Synopsis", [
      `${bold("ubiblk")} ${italic("COMMAND")} [${italic("flags")}]`,
      ".br",
      `${bold("ubiblk help")} ${italic("COMMAND")}`,
    ]),
    chapter("Description", [
      paragraph(
        filled(
          "A block\\-device backend: opens a file or block device, enciphers it with AES\\-256\\-XTS, and hands it to a " +
            "virtual machine over vhost\\-user\\-blk, or to this machine as a block device over ublk.",
        ),
      ),
    ]),
    chapter(
      "Commands",
      outlines.map((outline) =>
        entry(reference(pageName(outline), 1), filled(inline(outline.summary))),
      ),
    ),
    chapter("Options", COMMON_FLAGS.map(flagEntry)),
    environment,
    chapter("See also", [
      paragraph(others.map(({ name, section }) => reference(name, section)).join(",\n")),
    ]),
  ]);
}

// --- internal ---

/** `ubiblk.toml(5)` */
function reference(name: string, section: number): string {
  return `${bold(name)}(${section})`;
}

/** What follows a dash does not begin with a capital, unless it is an abbreviation. */
function inSentence(text: string): string {
  return /^[A-Z][a-z]/.test(text) ? `${text[0]?.toLowerCase()}${text.slice(1)}` : text;
}

function synopsisOf(outline: CommandOutline): readonly string[] {
  const { path, flags, words, tools, isGroup } = outline;
  const required = flags.filter(({ isRequired }) => isRequired).map(flagUse);
  const hasOthers = flags.length > required.length;
  const own = [
    bold(path.join(" ")),
    ...required,
    ...(hasOthers ? [`[${italic("flags")}]`] : []),
    ...words.map(wordUse),
  ].join(" ");
  const further = tools.map(
    ({ name }) => `${bold([...path, name].join(" "))} [${italic("flags")}]`,
  );
  return (isGroup ? further : [own, ...further]).flatMap((line, index) =>
    index === 0 ? [line] : [".br", line],
  );
}

function flagUse({ names, value }: FlagOutline): string {
  const name = bold(names.at(-1) ?? "");
  return value === undefined ? name : `${name} ${italic(value.hint)}`;
}

function wordUse({ name, isRequired, isRepeated }: WordOutline): string {
  const shown = `${italic(name)}${isRepeated ? "..." : ""}`;
  return isRequired ? shown : `[${shown}]`;
}

function flagEntry(flag: FlagOutline): string {
  const { names, value } = flag;
  const tag = names.map(bold).join(", ") + (value === undefined ? "" : ` ${italic(value.hint)}`);
  return entry(tag, filled(inline(flagText(flag))));
}

function wordEntry({ name, description, value }: WordOutline): string {
  const choices =
    value.choices.length === 0 ? "" : `\nOne of ${value.choices.map(bold).join(", ")}.`;
  return entry(italic(name), filled(inline(description)) + choices);
}

function exitEntries({ exitCodes }: CommandOutline): readonly string[] {
  return Object.entries(exitCodes).map(([code, meaning]) =>
    entry(bold(code), filled(escaped(meaning))),
  );
}

function seeAlso(outline: CommandOutline): string {
  const parent = outline.path.slice(0, -1).join("-");
  const commands = outline.path.at(-1) === "rpc" ? ([["ubiblk-rpc", 7]] as const) : [];
  const names = [[parent, 1], ["ubiblk.toml", 5], ["ubiblk-errors", 7], ...commands] as const;
  return names.map(([name, section]) => reference(name, section)).join(",\n");
}
