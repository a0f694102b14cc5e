/** Runs one command: reads its arguments, makes its help, calls it. */
import { nearestName } from "../config/nearest-name.ts";
import { UbiError } from "../errors.ts";
import { type ReadArguments, readArguments } from "./arguments.ts";
import type { CommandEntry } from "./command-entry.ts";
import { runnableCommand } from "./runnable-command.ts";

/** `path` is the program and the words that led to the command; `argv` what follows them. */
export interface CommandCall {
  readonly path: readonly string[];
  readonly argv: readonly string[];
  readonly versionLine: string;
}

/** What the arguments ask for: text to print, or nothing when the command was run. */
export async function runEntry(
  entry: CommandEntry,
  { path, argv, versionLine }: CommandCall,
): Promise<string | undefined> {
  const command = await entry.load?.(runnableCommand);
  const read = readFor(path, () =>
    command === undefined
      ? readGroup(argv, Object.keys(entry.tools ?? {}))
      : readArguments(argv, command.definitions, Object.keys(entry.tools ?? {})),
  );
  switch (read.kind) {
    case "help": {
      const { helpText } = await import("./help-text.ts");
      const { outlineOf } = await import("./command-outline.ts");
      return helpText(outlineOf(path, entry, command), read.isWhole);
    }
    case "version":
      return versionLine;
    case "run":
      await command?.run(read.argv);
      return undefined;
  }
}

// --- internal ---

/** A group by itself has help and a version only: what else comes is no name of its tools. */
function readGroup(argv: readonly string[], toolNames: readonly string[]): ReadArguments {
  const [word] = argv;
  if (word === undefined) {
    throw new UbiError("E_USAGE", `one of ${toolNames.join(", ")} has to follow`);
  }
  if (word.startsWith("-")) {
    return readArguments(argv, {});
  }
  const nearest = nearestName(word, toolNames);
  const hint = nearest === undefined ? "" : `; did you mean ${nearest}?`;
  throw new UbiError("E_USAGE", `${word}: is not one of ${toolNames.join(", ")}${hint}`);
}

function readFor(path: readonly string[], read: () => ReadArguments): ReadArguments {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    const message = `${error.message}; see ${path.join(" ")} --help`;
    throw new UbiError(error.code, message, { cause: error });
  }
}
