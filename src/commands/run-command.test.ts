import { expect, test } from "bun:test";
import { defineCommand } from "citty";
import { errorsOf } from "../../tests/support/config-folder.ts";
import { type CommandEntry, EXIT_OF_WORK } from "./command-entry.ts";
import { runEntry } from "./run-command.ts";

const call = (argv: readonly string[]) => ({
  path: ["ubiblk", "demo"],
  argv,
  versionLine: "ubiblk 1.2.3",
});

const recording = (calls: unknown[]): CommandEntry => ({
  description: "Shows how",
  examples: [["ubiblk demo -f c.toml", "as it is"]],
  exitCodes: EXIT_OF_WORK,
  load: (wrap) =>
    wrap(
      defineCommand({
        args: {
          config: {
            type: "string",
            alias: "f",
            required: true,
            valueHint: "FILE",
            description: "the document",
          },
          count: { type: "string", integer: { minimum: 1, maximum: 9 } },
        },
        run: ({ args }) => {
          calls.push([args.config, args.count]);
        },
      }),
    ),
});

const group: CommandEntry = {
  description: "Has tools",
  examples: [],
  exitCodes: EXIT_OF_WORK,
  tools: { one: recording([]), two: recording([]) },
};

test("a command runs with the values of its flags", async () => {
  const calls: unknown[] = [];
  const text = await runEntry(recording(calls), call(["-f=c.toml", "--count", "3"]));
  expect(text).toBeUndefined();
  expect(calls).toEqual([["c.toml", "3"]]);
});

test("a command with wrong flags does not run", async () => {
  const calls: unknown[] = [];
  const running = runEntry(recording(calls), call(["-fc", "--count=10"]));
  expect(await errorsOf(running)).toBe(
    "E_USAGE --count: 10 is not in 1 to 9; see ubiblk demo --help",
  );
  expect(calls).toEqual([]);
});

test("help of a command: examples, usage, flags, exit codes, in that order", async () => {
  expect(await runEntry(recording([]), call(["--help"]))).toBe(
    [
      "Shows how.",
      "",
      "Examples:",
      "  ubiblk demo -f c.toml  # as it is",
      "",
      "Usage: ubiblk demo --config FILE [flags]",
      "",
      "Flags:",
      "  -f, --config FILE  the document (required)",
      "      --count VALUE  ",
      "",
      "Exit codes: 0 done; 1 failed; standard error says why; 2 wrong usage; 130",
      "  interrupted",
      "",
      "Every command: --log-level error|warn|info|debug, --log-format text|json,",
      "  --help, --version",
    ].join("\n"),
  );
});

test("a command tells the version of the whole", async () => {
  expect(await runEntry(recording([]), call(["--version"]))).toBe("ubiblk 1.2.3");
});

test("an error of a command passes through", async () => {
  const failing: CommandEntry = {
    ...group,
    load: (wrap) =>
      wrap(
        defineCommand({
          run: () => {
            throw new RangeError("from inside");
          },
        }),
      ),
  };
  await expect(runEntry(failing, call([]))).rejects.toThrow("from inside");
});

test.each([
  [[], "E_USAGE one of one, two has to follow; see ubiblk demo --help"],
  [["tow"], "E_USAGE tow: is not one of one, two; did you mean two?; see ubiblk demo --help"],
  [["--flag"], "E_USAGE --flag: unknown flag; see ubiblk demo --help"],
])("a group with %j is wrong usage", async (argv, message) => {
  expect(await errorsOf(runEntry(group, call(argv)))).toBe(message);
});

test("help of a group names its tools", async () => {
  const text = await runEntry(group, call(["--help"]));
  expect(text).toContain("Usage: ubiblk demo one|two");
  expect(text).toContain("  two  Shows how");
});
