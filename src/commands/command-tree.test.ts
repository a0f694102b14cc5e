/** What every command and tool has to have, whoever adds one. */
import { describe, expect, test } from "bun:test";
import { readArguments } from "./arguments.ts";
import { type CommandEntry, entryOf } from "./command-entry.ts";
import { wholeOutline } from "./command-outline.ts";
import { COMMANDS, LINKS } from "./command-tree.ts";
import { helpText } from "./help-text.ts";
import { runnableCommand } from "./runnable-command.ts";

/** Of a terminal that is opened today. */
const SCREEN_LINES = 42;
const outlines = await wholeOutline(COMMANDS, ["ubiblk"]);

describe.each(outlines.map((outline) => [outline.path.join(" "), outline] as const))(
  "%s",
  (name, outline) => {
    test("has a description of one short line, and examples", () => {
      expect(outline.summary).toMatch(/^[A-Z].{10,58}[^.]$/);
      expect(outline.description).toMatch(/^[A-Z].*[^.]$/);
      expect(outline.examples).not.toEqual([]);
    });

    test("tells its exit codes", () => {
      expect(Object.keys(outline.exitCodes)).toEqual(expect.arrayContaining(["0", "1", "2"]));
    });

    test("says of each flag what it is for", () => {
      const all = [...outline.flags, ...outline.words];
      expect(all.filter(({ description }) => !/^\S.{3}/.test(description))).toEqual([]);
      expect(outline.flags.filter(({ value }) => value?.hint === "VALUE")).toEqual([]);
    });

    test("has examples of its own that can be read", async () => {
      for (const [line] of outline.examples) {
        const words = wordsOf(line);
        expect(words.slice(0, outline.path.length)).toEqual([...outline.path]);
        expect(await readKind(words)).toBe("run");
      }
    });

    test("has a help that fits 80 columns", () => {
      const long = helpText(outline, true)
        .split("\n")
        .filter((line) => line.length > 80 && !line.includes(`${name} `));
      expect(long).toEqual([]);
    });

    test("has a help that fits a screen, with every flag that must be given", () => {
      expect(helpText(outline, false).split("\n").length).toBeLessThanOrEqual(SCREEN_LINES);
      const main = outline.mainFlags?.map((flag) => `--${flag}`);
      const required = outline.flags.filter(({ isRequired }) => isRequired);
      const hidden = required.filter(({ names }) => main?.includes(names.at(-1) ?? "") === false);
      expect(hidden).toEqual([]);
    });

    test("shows flags first that it has", () => {
      const names = outline.flags.flatMap((flag) => flag.names);
      expect(outline.mainFlags?.filter((flag) => !names.includes(`--${flag}`)) ?? []).toEqual([]);
    });
  },
);

test("links lead to commands that are there", () => {
  expect(Object.values(LINKS).filter((name) => !Object.hasOwn(COMMANDS, name))).toEqual([]);
});

// --- internal ---

/** The words of the command line of ubiblk in `line`, without what the shell takes for itself. */
function wordsOf(line: string): readonly string[] {
  const [, own = ""] = /(ubiblk .*)/.exec(line) ?? [];
  const [command = ""] = own.split(/ [<>|&]/);
  return [...command.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    ([, single, double, plain]) => single ?? double ?? plain ?? "",
  );
}

async function readKind([, name = "", ...argv]: readonly string[]): Promise<string> {
  let entry: CommandEntry | undefined = entryOf(COMMANDS, name);
  let rest = argv;
  for (;;) {
    const tool: CommandEntry | undefined = entryOf(entry?.tools ?? {}, rest[0] ?? "");
    if (tool === undefined) {
      break;
    }
    entry = tool;
    rest = rest.slice(1);
  }
  const command = await entry?.load?.(runnableCommand);
  return command === undefined ? "no command" : readArguments(rest, command.definitions).kind;
}
