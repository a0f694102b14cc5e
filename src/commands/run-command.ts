/** Runs one command through citty: reads its arguments, prints its help, calls it. */
import { stripVTControlCharacters } from "node:util";
import { type ArgsDef, type CommandDef, renderUsage, runCommand, type SubCommandsDef } from "citty";
import { UbiError } from "../errors.ts";
import { type ReadArguments, readArguments } from "./arguments.ts";
import { LOG_FLAGS, obeyLogFlags } from "./log-flags.ts";

/** A command whose argument types are no longer of interest. */
export interface RunnableCommand {
  /** What the arguments ask for: text to print, or nothing when the command was run. */
  readonly run: (
    argv: readonly string[],
    surroundings: CommandSurroundings,
  ) => Promise<string | undefined>;
}

/** `parentName` and `versionLine` are what help and `--version` show. */
interface CommandSurroundings {
  readonly parentName: string;
  readonly versionLine: string;
}

/** A command by name; its code is loaded when it is named. */
export interface CommandEntry {
  readonly description: string;
  readonly load: (wrap: typeof runnableCommand) => Promise<RunnableCommand>;
}

/**
 * Wraps a citty command definition, whose `args` are a plain object.
 * @param tools commands that run when their name is the first word after this one's
 */
export function runnableCommand<Args extends ArgsDef>(
  definition: CommandDef<Args>,
  tools: Readonly<Record<string, CommandEntry>> = {},
): RunnableCommand {
  return {
    run: async (argv, surroundings) => {
      const [first = "", ...rest] = argv;
      const tool = Object.hasOwn(tools, first) ? tools[first] : undefined;
      if (tool !== undefined) {
        const { parentName, versionLine } = surroundings;
        const runnable = await tool.load(runnableCommand);
        const path = `${parentName} ${await nameOf(definition)}`;
        return await runnable.run(rest, { parentName: path, versionLine });
      }
      const read = await readFor(definition, argv, surroundings, Object.keys(tools));
      switch (read.kind) {
        case "help":
          return await usageText(
            { ...definition, subCommands: describedTools(tools) },
            surroundings.parentName,
          );
        case "version":
          return surroundings.versionLine;
        case "run":
          await runCommand(definition, { rawArgs: obeyLogFlags(read.argv) });
          return undefined;
      }
    },
  };
}

/** The help text; coloured on a terminal only. */
export async function usageText<Args extends ArgsDef>(
  definition: CommandDef<Args>,
  parentName?: string,
): Promise<string> {
  const parent: CommandDef | undefined =
    parentName === undefined ? undefined : { meta: { name: parentName } };
  const shown = Object.entries(await argsOf(definition)).filter(([name]) => !isHidden(name));
  const { meta, subCommands } = definition;
  const offered: CommandDef = {
    args: Object.fromEntries(shown),
    ...(meta === undefined ? {} : { meta }),
    ...(subCommands === undefined ? {} : { subCommands }),
  };
  const text = await renderUsage(offered, parent);
  return process.stdout.isTTY ? text : stripVTControlCharacters(text);
}

/** Flags for measuring and testing, which are no part of what users are offered. */
const HIDDEN_FLAGS: readonly string[] = ["null-disk"];

// --- internal ---

function isHidden(name: string): boolean {
  return HIDDEN_FLAGS.includes(name);
}

async function readFor<Args extends ArgsDef>(
  definition: CommandDef<Args>,
  argv: readonly string[],
  { parentName }: CommandSurroundings,
  toolNames: readonly string[],
): Promise<ReadArguments> {
  const args = await argsOf(definition);
  try {
    return readArguments(argv, args, toolNames);
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    const help = `see ${parentName} ${await nameOf(definition)} --help`;
    throw new UbiError(error.code, `${error.message}; ${help}`, { cause: error });
  }
}

/** Those of the command, then those that every command has. */
async function argsOf<Args extends ArgsDef>(definition: CommandDef<Args>): Promise<ArgsDef> {
  const args = await definition.args;
  const own = (typeof args === "function" ? await args() : args) ?? {};
  return { ...own, ...LOG_FLAGS };
}

async function nameOf<Args extends ArgsDef>({ meta }: CommandDef<Args>): Promise<string> {
  const known = typeof meta === "function" ? undefined : await meta;
  return known?.name ?? "";
}

function describedTools(tools: Readonly<Record<string, CommandEntry>>): SubCommandsDef {
  return Object.fromEntries(
    Object.entries(tools).map(([name, { description }]) => [name, { meta: { description } }]),
  );
}
