/** All that help, completions and manual pages say of a command, in one form: what its entry and its flags tell. */
import { type ArgumentDefinition, aliasesOf } from "./arguments.ts";
import type { CommandEntry, Example, ExitCodes } from "./command-entry.ts";
import { LOG_FLAGS } from "./log-flags.ts";
import { type RunnableCommand, runnableCommand } from "./runnable-command.ts";

/** Flags for measuring and testing, which are no part of what users are offered. */
const HIDDEN_FLAGS: readonly string[] = ["null-disk", "probe-from"];
const PATH_HINTS: readonly string[] = ["FILE", "PATH", "IMAGE", "SOCKET", "FOLDER", "DIR"];

/** What a flag or a word takes. */
export interface ValueOutline {
  /** In capitals, or the choices. */
  readonly hint: string;
  /** What it can be, or most likely is. */
  readonly choices: readonly string[];
  /** The name of a file, a folder or a socket. */
  readonly isPath: boolean;
}

export interface FlagOutline {
  /** With dashes: `--config`, and `-f` before it when there is one. */
  readonly names: readonly string[];
  /** A switch has none. */
  readonly value: ValueOutline | undefined;
  readonly isRequired: boolean;
  readonly defaultText: string | undefined;
  readonly description: string;
}

export interface WordOutline {
  readonly name: string;
  readonly value: ValueOutline;
  readonly isRequired: boolean;
  readonly isRepeated: boolean;
  readonly description: string;
}

export interface CommandOutline {
  /** The program and the words that lead to the command. */
  readonly path: readonly string[];
  readonly summary: string;
  readonly description: string;
  readonly examples: readonly Example[];
  readonly exitCodes: ExitCodes;
  readonly flags: readonly FlagOutline[];
  /** Names of those that the short help shows; undefined for all. */
  readonly mainFlags: readonly string[] | undefined;
  readonly words: readonly WordOutline[];
  /** One of them has to be named when the command does nothing by itself. */
  readonly tools: readonly { readonly name: string; readonly description: string }[];
  readonly isGroup: boolean;
}

/** What every command has. */
export const COMMON_FLAGS: readonly FlagOutline[] = [
  ...Object.entries<ArgumentDefinition>(LOG_FLAGS).map(([name, flag]) => flagOf(name, flag)),
  commonSwitch("help", "tells about the command"),
  commonSwitch("version", "tells the version"),
];

/** Of one command; `command` is what its entry loads. */
export function outlineOf(
  path: readonly string[],
  entry: CommandEntry,
  command: RunnableCommand | undefined,
): CommandOutline {
  const definitions = Object.entries(command?.definitions ?? {}).filter(
    ([name]) => !HIDDEN_FLAGS.includes(name) && !Object.hasOwn(LOG_FLAGS, name),
  );
  return {
    path,
    summary: entry.description,
    description: command?.description ?? entry.description,
    examples: entry.examples,
    exitCodes: entry.exitCodes,
    flags: definitions
      .filter(([, { type }]) => type !== "positional")
      .map(([name, definition]) => flagOf(name, definition)),
    mainFlags: entry.mainFlags,
    words: definitions
      .filter(([, { type }]) => type === "positional")
      .map(([name, definition]) => wordOf(name, definition)),
    tools: Object.entries(entry.tools ?? {}).map(([name, tool]) => ({
      name,
      description: tool.description,
    })),
    isGroup: entry.load === undefined,
  };
}

/** Of the program itself: its commands are its tools. */
export function rootOutline(
  program: string,
  description: string,
  commands: Readonly<Record<string, CommandEntry>>,
): CommandOutline {
  const root = { description, examples: [], exitCodes: {}, tools: commands };
  return outlineOf([program], root, undefined);
}

/** Of every command and tool, each before its tools; loads the code of all. */
export async function wholeOutline(
  entries: Readonly<Record<string, CommandEntry>>,
  path: readonly string[],
): Promise<readonly CommandOutline[]> {
  const outlines: CommandOutline[] = [];
  for (const [name, entry] of Object.entries(entries)) {
    const own = [...path, name];
    outlines.push(outlineOf(own, entry, await entry.load?.(runnableCommand)));
    outlines.push(...(await wholeOutline(entry.tools ?? {}, own)));
  }
  return outlines;
}

// --- internal ---

function flagOf(name: string, definition: ArgumentDefinition): FlagOutline {
  const { type, description = "" } = definition;
  const isNegated = type === "boolean" && definition.default === true;
  const negated = "negativeDescription" in definition ? definition.negativeDescription : undefined;
  const letters = aliasesOf(definition).map((letter) => `-${letter}`);
  const fallback = definition.default;
  return {
    names: isNegated ? [`--no-${name}`] : [...letters, `--${name}`],
    value: type === "boolean" ? undefined : valueFor(definition, "VALUE"),
    isRequired: definition.required === true && fallback === undefined,
    defaultText: typeof fallback === "string" ? fallback : undefined,
    description: isNegated ? (negated ?? `not: ${description}`) : description,
  };
}

function commonSwitch(name: string, description: string): FlagOutline {
  const names = [`--${name}`];
  return { names, value: undefined, isRequired: false, defaultText: undefined, description };
}

function wordOf(name: string, definition: ArgumentDefinition): WordOutline {
  return {
    name: name.toUpperCase(),
    value: valueFor(definition, name.toUpperCase()),
    isRequired: definition.required !== false && definition.default === undefined,
    isRepeated: definition.isRepeated === true,
    description: definition.description ?? "",
  };
}

function valueFor(definition: ArgumentDefinition, fallback: string): ValueOutline {
  const options = definition.type === "enum" ? definition.options : definition.choices;
  const choices = options ?? definition.suggested ?? [];
  const named = "valueHint" in definition ? definition.valueHint : undefined;
  const hint = named ?? (choices.length > 0 ? choices.join("|") : fallback);
  return { hint, choices, isPath: PATH_HINTS.includes(hint) };
}
