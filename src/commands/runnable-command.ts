/** A command that citty defines, as the command line and the tree of commands use it. */
import { type ArgsDef, type CommandDef, runCommand } from "citty";
import type { ArgumentDefinitions } from "./arguments.ts";
import { LOG_FLAGS, obeyLogFlags } from "./log-flags.ts";

/** A command whose argument types are no longer of interest. */
export interface RunnableCommand {
  /** Longer than that of its entry, when there is more to say. */
  readonly description: string | undefined;
  /** Its own, then those that every command has. */
  readonly definitions: ArgumentDefinitions;
  /** @param argv as `readArguments` gives it */
  readonly run: (argv: string[]) => Promise<void>;
}

/** Wraps a citty command definition, whose `args` and `meta` are plain objects. */
export async function runnableCommand<Args extends ArgsDef>(
  definition: CommandDef<Args>,
): Promise<RunnableCommand> {
  const { args, meta } = definition;
  const description = typeof meta === "function" ? undefined : (await meta)?.description;
  return {
    description,
    definitions: { ...(typeof args === "function" ? await args() : await args), ...LOG_FLAGS },
    run: async (argv) => {
      await runCommand(definition, { rawArgs: obeyLogFlags(argv) });
    },
  };
}
