/** `--log-level` and `--log-format`: flags of every command, in front of its name or behind it. */
import type { ArgsDef } from "citty";
import { isLogLevel, LOG_FORMATS, LOG_LEVELS, setLogFormat, setLogLevel } from "../log.ts";
import { readArguments } from "./arguments.ts";

export const LOG_FLAGS = {
  "log-level": {
    type: "enum",
    options: [...LOG_LEVELS],
    description: "how much the log tells (before UBIBLK_LOG and RUST_LOG)",
  },
  "log-format": {
    type: "enum",
    options: [...LOG_FORMATS],
    description: "form of the log: lines for people, or JSON objects",
  },
} as const satisfies ArgsDef;

/** Does what the flags say that stand in front of the command, and returns the rest. @throws UbiError E_USAGE */
export function obeyLeadingLogFlags(argv: readonly string[]): readonly string[] {
  let end = 0;
  while (argv[end]?.startsWith("--log-") === true) {
    end += argv[end]?.includes("=") === true ? 1 : 2;
  }
  const read = readArguments(argv.slice(0, end), LOG_FLAGS);
  if (read.kind === "run") {
    obeyLogFlags(read.argv);
  }
  return argv.slice(end);
}

/** The same for flags among those of a command, as `readArguments` wrote them. Returns the others. */
export function obeyLogFlags(argv: readonly string[]): string[] {
  const others = [...argv];
  for (const [prefix, obey] of OBEY) {
    // Behind the flags come words, which may look like one.
    const at = others.slice(0, others.indexOf("--")).findIndex((word) => word.startsWith(prefix));
    const [flag] = at < 0 ? [] : others.splice(at, 1);
    if (flag !== undefined) {
      obey(flag.slice(prefix.length));
    }
  }
  return others;
}

/**
 * The form of the log that a command line with a mistake asks for, as far as can be seen: what is wrong with it is to be
 * told in that form.
 */
export function obeyFormatOfMistaken(argv: readonly string[]): void {
  const end = argv.indexOf("--");
  const words = end < 0 ? argv : argv.slice(0, end);
  const at = words.lastIndexOf("--log-format");
  if (words.includes("--log-format=json") || (at >= 0 && words[at + 1] === "json")) {
    setLogFormat("json");
  }
}

// --- internal ---

const OBEY: readonly (readonly [string, (value: string) => void])[] = [
  ["--log-format=", (value) => setLogFormat(value === "json" ? "json" : "text")],
  ["--log-level=", (value) => setLogLevel(isLogLevel(value) ? value : "info")],
];
