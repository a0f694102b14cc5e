/**
 * The command line: finds the command, runs it, and is the one place where errors become text and an
 * exit code (0 success, 1 failure, 2 wrong usage, 130 interrupted). A command's code is loaded only when it is named;
 * `--version` loads nothing else at all.
 */
import { basename } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { nearestName } from "../config/nearest-name.ts";
import { UbiError, UbiErrors } from "../errors.ts";
import { lastLine, oneLine } from "../log.ts";
import { type CommandEntry, entryOf } from "./command-entry.ts";
import { COMMANDS, LINKS } from "./command-tree.ts";
import { INTERRUPTED_EXIT_CODE } from "./interruption.ts";
import { writePieces } from "./standard-output.ts";

/**
 * Runs the command that `argv` (without the program's own name) or the program's name asks for. Ends the process
 * with code 1, 2 or 130 on failure; on success returns, and the process ends when nothing is left to do.
 */
export async function runCommandLine(argv: readonly string[], programPath: string): Promise<void> {
  try {
    const program = basename(programPath);
    const linked = entryOf(LINKS, program);
    const text = await dispatch(linked === undefined ? argv : [linked, ...argv]);
    if (text !== undefined) {
      writePieces(1, [`${text}\n`]);
    }
  } catch (error) {
    if (error instanceof UbiError && error.code === "E_USAGE") {
      const { obeyFormatOfMistaken } = await import("./log-flags.ts");
      obeyFormatOfMistaken(argv);
    }
    writePieces(2, [errorLines(error)]);
    process.exit(exitCodeOf(error));
  }
}

/** The lines that a user gets to see of an error; a stack only of errors that are our own fault. */
export function errorLines(error: unknown): string {
  const errors = error instanceof UbiErrors ? error.errors : [error];
  return errors.map(errorLine).join("");
}

// --- internal ---

const PROGRAM = "ubiblk";
const VERSION_LINE = `${PROGRAM} ${packageJson.version}`;
const HELP_FLAGS: readonly string[] = ["--help", "-h", "help"];
const VERSION_FLAGS: readonly string[] = ["--version", "-V", "version"];

async function dispatch(argv: readonly string[]): Promise<string | undefined> {
  if (argv[0]?.startsWith("--log-") === true) {
    const { obeyLeadingLogFlags } = await import("./log-flags.ts");
    return await dispatch(obeyLeadingLogFlags(argv));
  }
  const [name, ...rest] = argv;
  if (name === undefined) {
    throw new UbiError("E_USAGE", `no command; see ${PROGRAM} --help`);
  }
  if (VERSION_FLAGS.includes(name)) {
    return VERSION_LINE;
  }
  if (HELP_FLAGS.includes(name)) {
    const asked = rest.filter((word) => !HELP_FLAGS.includes(word));
    return asked.length === 0 ? await overview() : await dispatch([...asked, "--help"]);
  }
  const command = entryOf(COMMANDS, name);
  if (command === undefined) {
    const hint = suggestionFor(name);
    const what = name.startsWith("-") ? "flag" : "command";
    throw new UbiError("E_USAGE", `${name}: unknown ${what}; ${hint}`);
  }
  return await runNamed([PROGRAM, name], command, rest);
}

/** Goes down to the tool that the next words name. */
async function runNamed(
  path: readonly string[],
  entry: CommandEntry,
  argv: readonly string[],
): Promise<string | undefined> {
  const [word = "", ...rest] = argv;
  const { tools = {} } = entry;
  const tool = entryOf(tools, word);
  if (tool !== undefined) {
    return await runNamed([...path, word], tool, rest);
  }
  if (word === "help" && entry.tools !== undefined) {
    return await runNamed(path, entry, [...rest, "--help"]);
  }
  const { runEntry } = await import("./run-command.ts");
  return await runEntry(entry, { path, argv, versionLine: VERSION_LINE });
}

/** What somebody may have meant: a name mistyped or begun, a program of the reference, a tool without its command. */
function suggestionFor(name: string): string {
  const known = [...Object.keys(COMMANDS), ...HELP_FLAGS, ...VERSION_FLAGS];
  const group = Object.keys(COMMANDS).find(
    (each) => entryOf(COMMANDS[each]?.tools ?? {}, name) !== undefined,
  );
  const meant =
    (name === "-v" ? "--version" : entryOf(LINKS, name)) ??
    (group === undefined ? nearestName(name, known) : `${group} ${name}`);
  return meant === undefined ? `see ${PROGRAM} --help` : `did you mean ${meant}?`;
}

async function overview(): Promise<string> {
  const { overviewText } = await import("./help-text.ts");
  return overviewText(COMMANDS);
}

function exitCodeOf(error: unknown): number {
  const code = error instanceof UbiError ? error.code : undefined;
  return code === "E_USAGE" ? 2 : code === "E_INTERRUPTED" ? INTERRUPTED_EXIT_CODE : 1;
}

function errorLine(error: unknown): string {
  if (error instanceof UbiError) {
    const { code, message } = error;
    return lastLine(`${PROGRAM}: error ${code}: ${oneLine(message)}`, message, { code });
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return lastLine(`${PROGRAM}: internal error: ${text}`, "internal error", { stack: text });
}
