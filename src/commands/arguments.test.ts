import { expect, test } from "bun:test";
import { parseArgs } from "citty";
import fc from "fast-check";
import { UbiError } from "../errors.ts";
import { type ArgumentDefinitions, integerArgument, readArguments } from "./arguments.ts";

const DEFINITIONS = {
  config: { type: "string", alias: "f", required: true },
  start: { type: "string", integer: { minimum: 0, maximum: 100 } },
  action: { type: "enum", options: ["encode", "decode"], default: "decode" },
  encrypt: { type: "boolean", alias: "e" },
  verbose: { type: "boolean", alias: "q" },
  input: { type: "positional", required: false },
  output: { type: "positional", required: false },
} satisfies ArgumentDefinitions;

const read = (...argv: readonly string[]) => readArguments(argv, DEFINITIONS);

/** What citty makes of arguments after they were read. */
const parsed = (...argv: readonly string[]): Readonly<Record<string, unknown>> => {
  const result = read(...argv);
  return result.kind === "run" ? parseArgs(result.argv, DEFINITIONS) : { ...result };
};

test.each([[["-f", "X"]], [["-fX"]], [["-f=X"]], [["--config", "X"]], [["--config=X"]]])(
  "%j gives the value X",
  (argv) => {
    expect(parsed(...argv).config).toBe("X");
  },
);

test.each([
  [["-f==X"], "=X"],
  [["--config==X"], "=X"],
  [["--config=-x"], "-x"],
  [["-f-x"], "-x"],
  [["-f", "-"], "-"],
  [["-f", "a b"], "a b"],
  [["--config="], ""],
])("%j keeps the value %j", (argv, value) => {
  expect(parsed(...argv).config).toBe(value);
});

test("defaults, switches and positionals reach citty", () => {
  const args = parsed("in", "-ef", "c", "--start=7", "--", "-out");
  expect(args).toMatchObject({
    config: "c",
    encrypt: true,
    start: "7",
    action: "decode",
    input: "in",
    output: "-out",
  });
});

test("a repeated positional takes any number of words, none as well", () => {
  const definitions = { files: { type: "positional", required: false, isRepeated: true } } as const;
  const words = (...argv: readonly string[]) => {
    const result = readArguments(argv, definitions);
    return result.kind === "run" ? parseArgs(result.argv, definitions)._ : [];
  };
  expect(words("a", "b", "--", "-c")).toEqual(["a", "b", "-c"]);
  expect(words()).toEqual([]);
});

test("a lone dash is a positional", () => {
  expect(parsed("-fc", "-").input).toBe("-");
});

test.each([
  [["--conf", "x"], "--conf: unknown flag; did you mean --config?"],
  [["--confg=x"], "--confg: unknown flag; did you mean --config?"],
  [["--no-encrypt"], "--no-encrypt: unknown flag"],
  [["-x"], "-x: unknown flag"],
  [["-ex"], "-x: unknown flag"],
  [["--Config=x"], "--Config: unknown flag; did you mean --config?"],
  [["-f", "x", "--config", "y"], "--config: given more than once"],
  [["-e", "-e"], "-e: given more than once"],
  [["-ee"], "-e: given more than once"],
  [["--encrypt=true"], "--encrypt: takes no value"],
  [["-e=1"], "-e: takes no value"],
  [["-f"], "-f: a value is missing"],
  [["-f", "--start"], "-f: a value is missing"],
  [["--config", "-e"], "--config: a value is missing"],
  [[], "-f, --config: missing"],
  [["-fx", "a", "b", "c"], '"c": unexpected argument'],
  [["-fx", "--action", "crypt"], '--action: "crypt" is not one of encode, decode'],
  [["-fx", "--start", "x"], '--start: "x" is not a whole number'],
  [["-fx", "--start=-1"], '--start: "-1" is not a whole number'],
  [["-fx", "--start=0x10"], '--start: "0x10" is not a whole number'],
  [["-fx", "--start=1.0"], '--start: "1.0" is not a whole number'],
  [["-fx", "--start="], '--start: "" is not a whole number'],
  [["-fx", "--start=101"], "--start: 101 is not in 0 to 100"],
])("%j is refused with the reason", (argv, reason) => {
  expect(() => read(...argv)).toThrow(reason);
});

test("an empty name of a file is refused, whichever way it is written", () => {
  const definitions = { source: { type: "string", valueHint: "FILE" } } as const;
  expect(() => readArguments(["--source="], definitions)).toThrow("--source: empty; the name");
  expect(() => readArguments(["--source", ""], definitions)).toThrow("--source: empty; the name");
});

test("a word too many is held against the names of tools, then against --config", () => {
  const definitions = { config: { type: "string", alias: "f" } } as const;
  const tools = ["verify", "inspect"];
  expect(() => readArguments(["varify"], definitions, tools)).toThrow("did you mean verify?");
  expect(() => readArguments(["a.toml"], definitions, tools)).toThrow(
    "did you mean --config a.toml?",
  );
  expect(() => readArguments(["-fx", "a.toml"], definitions, tools)).toThrow(/argument$/);
});

test("-v is taken for the version, which is -V", () => {
  expect(() => readArguments(["-v"], {})).toThrow("-v: unknown flag; did you mean --version?");
});

test("a required positional that is absent is named", () => {
  expect(() => readArguments([], { input: { type: "positional" } })).toThrow("INPUT: missing");
});

test.each([
  ["--help", false],
  ["-h", false],
  ["--help-all", true],
])("%s asks for help whatever else is missing", (flag, isWhole) => {
  expect(read(flag)).toEqual({ kind: "help", isWhole });
});

test.each([["--version"], ["-V"]])("%s asks for the version", (flag) => {
  expect(read("-e", flag)).toEqual({ kind: "version" });
});

test("after two dashes nothing is a flag", () => {
  expect(parsed("-fx", "--", "--help", "-e")).toMatchObject({ input: "--help", output: "-e" });
});

test("a number may have a plus sign and leading zeros", () => {
  expect(integerArgument(String(parsed("-fx", "--start", "+007").start))).toBe(7);
});

test("an absent number stays absent", () => {
  expect(integerArgument(undefined)).toBeUndefined();
});

test("a definition that citty would misread is a programmer's error", () => {
  expect(() => readArguments([], { "no-secrets": { type: "boolean" } })).toThrow("negation");
});

test("whatever is typed is read or refused as wrong usage, and a value is never changed", () => {
  const word = fc.oneof(
    fc.constantFrom("-f", "-f=", "--config", "--config=", "-e", "--", "-", "--start", "1", "="),
    fc.string({ maxLength: 6 }),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), (argv) => {
      expect(outcomeOf(argv)).toBe("as expected");
    }),
    { numRuns: 3000 },
  );
});

/** Every positional and value that citty reports has to be a part of what was typed. */
const outcomeOf = (argv: readonly string[]): string => {
  try {
    const args = parsed(...argv);
    const isTyped = !("config" in args) || argv.some((word) => word.endsWith(`${args.config}`));
    return isTyped ? "as expected" : `changed to ${args.config}`;
  } catch (error) {
    return error instanceof UbiError && error.code === "E_USAGE" ? "as expected" : String(error);
  }
};

test("a switch that is on by default can be negated", () => {
  const definitions = { clobber: { type: "boolean", default: true } } as const;
  expect(readArguments(["--no-clobber"], definitions)).toEqual({
    kind: "run",
    argv: ["--clobber=false", "--"],
  });
  expect(readArguments(["--clobber"], definitions)).toMatchObject({
    argv: ["--clobber=true", "--"],
  });
  expect(() => readArguments(["--clobber", "--no-clobber"], definitions)).toThrow("more than once");
});
