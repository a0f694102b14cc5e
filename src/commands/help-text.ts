/** The text of `--help`: examples first, then flags, then the exit codes. Coloured on a terminal only. */
import type { CommandEntry } from "./command-entry.ts";
import {
  COMMON_FLAGS,
  type CommandOutline,
  type FlagOutline,
  type WordOutline,
} from "./command-outline.ts";

/** @param isWhole with all flags, also of a command that has more than a screen takes */
export function helpText(outline: CommandOutline, isWhole: boolean): string {
  const { description, examples, words, tools } = outline;
  const flags = isWhole ? outline.flags : mainFlagsOf(outline);
  const parts = [
    filled(`${description}.`, 0),
    section("Examples", exampleLines(examples)),
    `${heading("Usage")} ${usageLine(outline)}`,
    section("Arguments", columns(words.map((word) => [word.name, wordText(word)]))),
    section("Tools", columns(tools.map(({ name, description: does }) => [name, does]))),
    section("Flags", columns(flags.map((flag) => [flagLabel(flag, flags), flagText(flag)]))),
    moreFlagsText(outline, outline.flags.length - flags.length),
    exitCodeText(outline),
    filled(`${heading("Every command")} ${COMMON_FLAGS.map(flagUse).join(", ")}`, INDENT),
  ];
  return parts.filter((part) => part !== "").join("\n\n");
}

/** Of the program as a whole. */
export function overviewText(commands: Readonly<Record<string, CommandEntry>>): string {
  const rows = Object.entries(commands).map(([name, { description }]) => [name, description]);
  return [
    `Serves a virtual machine its disk. ${heading("Usage")} ubiblk COMMAND [flags]`,
    section("Commands", columns(rows)),
    "`ubiblk COMMAND --help` tells more, `ubiblk --version` the version.",
  ].join("\n\n");
}

/** What stands behind the name in a list of flags: description, whether it must be given, or its default. */
export function flagText({ description, isRequired, defaultText }: FlagOutline): string {
  if (isRequired) {
    return `${description} (required)`;
  }
  return defaultText === undefined ? description : `${description} (default: ${defaultText})`;
}

// --- internal ---

const WIDTH_MAX = 100;
const WIDTH_MIN = 60;
const WIDTH_DEFAULT = 80;
const LABEL_MAX = 30;
const INDENT = 2;
const GAP = 2;

function mainFlagsOf({ flags, mainFlags }: CommandOutline): readonly FlagOutline[] {
  return mainFlags === undefined
    ? flags
    : flags.filter(({ names }) => mainFlags.some((name) => names.includes(`--${name}`)));
}

function moreFlagsText({ path }: CommandOutline, count: number): string {
  return count === 0 ? "" : `${count} more flags: ${path.join(" ")} --help-all`;
}

/** `ubiblk xts --config FILE [flags] INPUT OUTPUT` */
function usageLine({ path, flags, words, tools, isGroup }: CommandOutline): string {
  const required = flags.filter(({ isRequired }) => isRequired).map(flagUse);
  const hasOthers = flags.length > required.length;
  const pieces = [
    ...path,
    ...(isGroup ? [tools.map(({ name }) => name).join("|")] : []),
    ...required,
    ...(hasOthers ? ["[flags]"] : []),
    ...words.map(({ name, isRequired, isRepeated }) => {
      const shown = isRepeated ? `${name}...` : name;
      return isRequired ? shown : `[${shown}]`;
    }),
  ];
  return pieces.join(" ");
}

/** `--config FILE`, with the longest of its names. */
function flagUse({ names, value }: FlagOutline): string {
  const name = names.at(-1) ?? "";
  return value === undefined ? name : `${name} ${value.hint}`;
}

function width(): number {
  const { isTTY, columns: terminal } = process.stdout;
  const wanted = isTTY === true && terminal > 0 ? terminal : WIDTH_DEFAULT;
  return Math.min(Math.max(wanted, WIDTH_MIN), WIDTH_MAX);
}

function heading(text: string): string {
  const isColoured = process.stdout.isTTY === true && !process.env.NO_COLOR;
  return isColoured ? `\u001b[1m${text}:\u001b[0m` : `${text}:`;
}

function section(title: string, body: string): string {
  return body === "" ? "" : `${heading(title)}\n${body}`;
}

/** Explanations stand behind the lines, or above them where there is no room. */
function exampleLines(examples: CommandOutline["examples"]): string {
  const indent = " ".repeat(INDENT);
  const left = Math.max(...examples.map(([line]) => line.length));
  const beside = examples.map(([line, does]) => `${indent}${line.padEnd(left)}  # ${does}`);
  return beside.every((line) => line.length <= width())
    ? beside.join("\n")
    : examples.map(([line, does]) => `${indent}# ${does}\n${indent}${line}`).join("\n");
}

function flagLabel(flag: FlagOutline, all: readonly FlagOutline[]): string {
  const { names, value } = flag;
  const hasShort = all.some((each) => each.names.length > 1);
  const pad = hasShort && names.length === 1 ? "    " : "";
  return `${pad}${names.join(", ")}${value === undefined ? "" : ` ${value.hint}`}`;
}

function wordText({ description, isRequired }: WordOutline): string {
  return isRequired ? `${description} (required)` : description;
}

function exitCodeText({ exitCodes }: CommandOutline): string {
  const texts = Object.entries(exitCodes).map(([code, meaning]) => `${code} ${meaning}`);
  return filled(`${heading("Exit codes")} ${texts.join("; ")}`, INDENT);
}

/** Two columns; a label that is too long has a line of its own. */
function columns(rows: readonly (readonly string[])[]): string {
  const labels = rows.map(([label = ""]) => label.length).filter((length) => length <= LABEL_MAX);
  const left = INDENT + Math.max(0, ...labels) + GAP;
  return rows
    .map(([label = "", text = ""]) => {
      const body = filled(text, left, width() - left);
      const start = `${" ".repeat(INDENT)}${label}`;
      return start.length + GAP > left
        ? `${start}\n${" ".repeat(left)}${body}`
        : `${start.padEnd(left)}${body}`;
    })
    .join("\n");
}

/** Breaks at blanks; lines after the first are indented. */
function filled(text: string, indent: number, columnsMax = width()): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const room = lines.length === 0 ? columnsMax : Math.min(columnsMax, width() - indent);
    if (line !== "" && line.length + 1 + word.length > room) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join(`\n${" ".repeat(indent)}`);
}
