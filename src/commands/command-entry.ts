/** What the tree knows of a command before its code is loaded. */
import type { RunnableCommand, runnableCommand } from "./runnable-command.ts";

/** A command line as one would type it, and what it does. */
export type Example = readonly [line: string, does: string];

/** What each code means that the command can end with. */
export type ExitCodes = Readonly<Record<number, string>>;

export interface CommandEntry {
  /** One line, for lists. */
  readonly description: string;
  readonly examples: readonly Example[];
  readonly exitCodes: ExitCodes;
  /** Where a screen is too small for all flags: those that `--help` shows. The required ones are among them. */
  readonly mainFlags?: readonly string[];
  /** Without it, the name is that of a group of tools. */
  readonly load?: (wrap: typeof runnableCommand) => Promise<RunnableCommand>;
  /** Commands that run when their name is the next word. */
  readonly tools?: Readonly<Record<string, CommandEntry>>;
}

const FAILED = "failed; standard error says why";
const USAGE = "wrong usage";

/** Of a command that ends by itself. */
export const EXIT_OF_WORK: ExitCodes = { 0: "done", 1: FAILED, 2: USAGE, 130: "interrupted" };
/** Of one that serves until it is stopped. */
export const EXIT_OF_SERVICE: ExitCodes = {
  0: "stopped by SIGTERM or SIGINT",
  1: "failed, or ended at once by a second signal",
  2: USAGE,
  130: "SIGINT before it had its disk",
  143: "SIGTERM before it had its disk",
};

/** The entry that is called `name`, and not what every object has. */
export function entryOf<T>(entries: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(entries, name) ? entries[name] : undefined;
}
