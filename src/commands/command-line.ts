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
import { INTERRUPTED_EXIT_CODE } from "./interruption.ts";
import type { CommandEntry } from "./run-command.ts";
import { writePieces } from "./standard-output.ts";

/**
 * Every command, one entry each:
 *
 *     name: {
 *       description: "what it does",
 *       load: async (wrap) => wrap((await import("./name.ts")).default),
 *     },
 *
 * where `./name.ts` has a citty command definition as its default export.
 */
const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  vhost: {
    description: "Serves a disk to a virtual machine over vhost-user-blk",
    load: async (wrap) => wrap((await import("./vhost.ts")).default),
  },
  ublk: {
    description: "Serves a disk to this machine as a block device, over ublk",
    load: async (wrap) => wrap((await import("./ublk.ts")).default),
  },
  bench: {
    description: "Measures or verifies the disk behind a vhost-user-blk socket",
    load: async (wrap) => wrap((await import("./bench.ts")).default),
  },
  top: {
    description: "Shows what running backends do, live",
    load: async (wrap) => wrap((await import("./top.ts")).default),
  },
  metrics: {
    description: "Writes the metrics of running backends and stripe servers, for Prometheus",
    load: async (wrap) => wrap((await import("./metrics.ts")).default),
  },
  "init-metadata": {
    description: "Makes the metadata file of a disk with lazy stripes",
    load: async (wrap) => wrap((await import("./init-metadata.ts")).default),
  },
  "dump-metadata": {
    description: "Tells which stripes of a disk are fetched, written, or in its source",
    load: async (wrap) => wrap((await import("./dump-metadata.ts")).default),
  },
  archive: {
    description: "Writes a disk to an archive, and looks after archives",
    load: async (wrap) => wrap((await import("./archive.ts")).default, ARCHIVE_TOOLS),
  },
  "export-archive": {
    description: "Writes the disk of an archive as a raw image",
    load: async (wrap) => wrap((await import("./export-archive.ts")).default),
  },
  "stripe-server": {
    description: "Serves the stripes of a disk or an archive to other hosts",
    load: async (wrap) => wrap((await import("./stripe-server.ts")).default),
  },
  "stripe-shell": {
    description: "Looks at the stripes that a stripe server serves",
    load: async (wrap) => wrap((await import("./stripe-shell.ts")).default),
  },
  xts: {
    description: "Enciphers or deciphers an image with the key of a disk",
    load: async (wrap) => wrap((await import("./xts.ts")).default),
  },
  config: {
    description: "Checks configurations, and tells what can stand in one",
    load: async (wrap) => wrap((await import("./config.ts")).default, CONFIG_TOOLS),
  },
  secret: {
    description: "Makes and encrypts the keys that a configuration names",
    load: async (wrap) => wrap((await import("./secret.ts")).default, SECRET_TOOLS),
  },
};

/** What follows the word `archive`; without one of these a disk is archived. */
const ARCHIVE_TOOLS: Readonly<Record<string, CommandEntry>> = {
  verify: {
    description: "Reads all of an archive and names what is not as it should be",
    load: async (wrap) => wrap((await import("./archive-verify.ts")).default),
  },
  inspect: {
    description: "Tells what is in an archive",
    load: async (wrap) => wrap((await import("./archive-inspect.ts")).default),
  },
  prune: {
    description: "Removes objects that an archive does not need",
    load: async (wrap) => wrap((await import("./archive-prune.ts")).default),
  },
  rekey: {
    description: "Gives an archive another key-encryption key",
    load: async (wrap) => wrap((await import("./archive-rekey.ts")).default),
  },
};

/** What follows the word `config`. */
const CONFIG_TOOLS: Readonly<Record<string, CommandEntry>> = {
  check: {
    description: "Tells what is wrong with configurations, and what they say",
    load: async (wrap) => wrap((await import("./config-check.ts")).default),
  },
  schema: {
    description: "Prints the JSON Schema of configurations, for editors",
    load: async (wrap) => wrap((await import("./config-schema.ts")).default),
  },
  example: {
    description: "Prints a sample with all keys, each explained",
    load: async (wrap) => wrap((await import("./config-example.ts")).default),
  },
};

/** What follows the word `secret`. */
const SECRET_TOOLS: Readonly<Record<string, CommandEntry>> = {
  gen: {
    description: "Makes a new secret",
    load: async (wrap) => wrap((await import("./secret-gen.ts")).default),
  },
  wrap: {
    description: "Encrypts a secret with a key-encryption key",
    load: async (wrap) => wrap((await import("./secret-wrap.ts")).default),
  },
  unwrap: {
    description: "Decrypts a secret",
    load: async (wrap) => wrap((await import("./secret-unwrap.ts")).default),
  },
  rewrap: {
    description: "Encrypts secrets with another key-encryption key, or for another name",
    load: async (wrap) => wrap((await import("./secret-rewrap.ts")).default),
  },
};

/** A link to the executable with one of these names is that command. */
const LINKS: Readonly<Record<string, keyof typeof COMMANDS>> = {
  "vhost-backend": "vhost",
  "ublk-backend": "ublk",
  "init-metadata": "init-metadata",
  "dump-metadata": "dump-metadata",
  xts: "xts",
  archive: "archive",
  "export-archive": "export-archive",
  "remote-stripe-server": "stripe-server",
  "remote-stripe-shell": "stripe-shell",
  ubitop: "top",
};

/**
 * Runs the command that `argv` (without the program's own name) or the program's name asks for. Ends the process
 * with code 1, 2 or 130 on failure; on success returns, and the process ends when nothing is left to do.
 */
export async function runCommandLine(argv: readonly string[], programPath: string): Promise<void> {
  try {
    const program = basename(programPath);
    const linked = Object.hasOwn(LINKS, program) ? LINKS[program] : undefined;
    const text = await dispatch(linked === undefined ? argv : [linked, ...argv]);
    if (text !== undefined) {
      writePieces(1, [`${text}\n`]);
    }
  } catch (error) {
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
  const command = COMMANDS[name];
  if (command === undefined || !Object.hasOwn(COMMANDS, name)) {
    const known = [...Object.keys(COMMANDS), ...HELP_FLAGS, ...VERSION_FLAGS];
    const nearest = name === "-v" ? "--version" : nearestName(name, known);
    const hint = nearest === undefined ? `see ${PROGRAM} --help` : `did you mean ${nearest}?`;
    const what = name.startsWith("-") ? "flag" : "command";
    throw new UbiError("E_USAGE", `${name}: unknown ${what}; ${hint}`);
  }
  const { runnableCommand } = await import("./run-command.ts");
  const runnable = await command.load(runnableCommand);
  return await runnable.run(rest, { parentName: PROGRAM, versionLine: VERSION_LINE });
}

async function overview(): Promise<string> {
  const { usageText } = await import("./run-command.ts");
  const subCommands = Object.fromEntries(
    Object.entries(COMMANDS).map(([name, { description }]) => [name, { meta: { description } }]),
  );
  const description = "Serves a virtual machine its disk";
  return await usageText({
    meta: { name: PROGRAM, version: packageJson.version, description },
    subCommands,
  });
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
