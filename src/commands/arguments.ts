/**
 * Reads the arguments of one command strictly, by the same definitions that citty parses and prints.
 * citty alone reads `-f=X` as `=X` and takes unknown, repeated and shortened flags. What comes out
 * here has one form only, which it cannot misread: `--name=value ... -- positional ...`.
 */
import type { ArgDef } from "citty";
import { nearestName } from "../config/nearest-name.ts";
import { assert, UbiError } from "../errors.ts";

/** The accepted values of a flag or positional that is a whole number; both ends are included. */
interface IntegerRange {
  readonly minimum: number;
  readonly maximum: number;
}

/**
 * A citty definition; a switch that is on by default has a `--no-NAME`; one of type `string` with `integer` takes a decimal number in that range. The last
 * positional may be repeated: citty gives all positionals as `_`. A positional with `choices` is one of them; `suggested` are
 * those that shells offer where others are taken as well.
 */
export type ArgumentDefinition = ArgDef & {
  readonly integer?: IntegerRange;
  readonly choices?: readonly string[];
  readonly suggested?: readonly string[];
  readonly isRepeated?: boolean;
};

/** Keys are the names as typed (`target-config`); `alias` is one letter. */
export type ArgumentDefinitions = Readonly<Record<string, ArgumentDefinition>>;

/** What the arguments ask for; `argv` is in the one form that citty reads right. */
export type ReadArguments =
  | { readonly kind: "run"; readonly argv: string[] }
  /** `isWhole`: with the flags that are seldom needed. */
  | { readonly kind: "help"; readonly isWhole: boolean }
  | { readonly kind: "version" };

/**
 * Checks and normalises `argv`. Flags may be written `-f X`, `-fX`, `-f=X`, `--config X` and
 * `--config=X`; switches may be joined (`-ab`); `--` ends the flags.
 *
 * @param toolNames words that would have chosen another command in the first place
 * @throws UbiError E_USAGE that names the flag: unknown, repeated or missing ones, bad values,
 * positionals too many or too few.
 */
export function readArguments(
  argv: readonly string[],
  definitions: ArgumentDefinitions,
  toolNames: readonly string[] = [],
): ReadArguments {
  const reader = new ArgumentReader(argv, definitions, toolNames);
  return reader.read();
}

/** The number of a flag that was defined with `integer`; undefined stays undefined. */
export function integerArgument(text: string): number;
export function integerArgument(text: string | undefined): number | undefined;
export function integerArgument(text: string | undefined): number | undefined {
  if (text === undefined) {
    return undefined;
  }
  const value = parseInteger(text);
  assert(value !== undefined, "the argument was checked when it was read");
  return value;
}

/** The one-letter forms of a flag. */
export function aliasesOf(definition: ArgumentDefinition): readonly string[] {
  if (!("alias" in definition) || definition.alias === undefined) {
    return [];
  }
  return typeof definition.alias === "string" ? [definition.alias] : definition.alias;
}

// --- internal ---

const HELP_FLAGS: readonly string[] = ["--help", "-h", "--help-all"];
const VERSION_FLAGS: readonly string[] = ["--version", "-V"];

interface Definition {
  readonly name: string;
  readonly definition: ArgumentDefinition;
}

class ArgumentReader {
  readonly #rest: string[];
  readonly #flags = new Map<string, Definition>();
  readonly #positionals: Definition[] = [];
  readonly #required: Definition[] = [];
  readonly #values = new Map<string, string>();
  readonly #words: string[] = [];
  readonly #toolNames: readonly string[];

  constructor(
    argv: readonly string[],
    definitions: ArgumentDefinitions,
    toolNames: readonly string[],
  ) {
    this.#rest = [...argv];
    this.#toolNames = toolNames;
    for (const [name, definition] of Object.entries(definitions)) {
      this.#define({ name, definition });
    }
  }

  read(): ReadArguments {
    let areFlagsOver = false;
    for (let token = this.#rest.shift(); token !== undefined; token = this.#rest.shift()) {
      if (areFlagsOver || token === "-" || !token.startsWith("-")) {
        this.#takeWord(token);
      } else if (token === "--") {
        areFlagsOver = true;
      } else if (this.#isBuiltIn(token, HELP_FLAGS)) {
        return { kind: "help", isWhole: token === "--help-all" };
      } else if (this.#isBuiltIn(token, VERSION_FLAGS)) {
        return { kind: "version" };
      } else if (token.startsWith("--")) {
        this.#takeLong(token);
      } else {
        this.#takeShort(token);
      }
    }
    this.#checkPresence();
    const flags = [...this.#values].map(([name, value]) => `--${name}=${value}`);
    return { kind: "run", argv: [...flags, "--", ...this.#words] };
  }

  #define(entry: Definition): void {
    const { name, definition } = entry;
    assert(!name.startsWith("no-"), `citty would read --${name} as a negation`);
    if (definition.type === "positional") {
      this.#positionals.push(entry);
      return;
    }
    this.#flags.set(`--${name}`, entry);
    if (definition.type === "boolean" && definition.default === true) {
      this.#flags.set(`--no-${name}`, entry);
    }
    if (definition.required === true && definition.default === undefined) {
      this.#required.push(entry);
    }
    for (const letter of aliasesOf(definition)) {
      assert(letter.length === 1, `the short form of --${name} is one letter`);
      this.#flags.set(`-${letter}`, entry);
    }
  }

  #isBuiltIn(token: string, flags: readonly string[]): boolean {
    return flags.includes(token) && !this.#flags.has(token);
  }

  #takeLong(token: string): void {
    const equals = token.indexOf("=");
    const flag = equals < 0 ? token : token.slice(0, equals);
    this.#takeFlag(flag, equals < 0 ? undefined : token.slice(equals + 1));
  }

  #takeShort(token: string): void {
    for (let at = 1; at < token.length; at += 1) {
      const flag = `-${token.charAt(at)}`;
      const attached = token.slice(at + 1);
      const takesValue = this.#find(flag).definition.type !== "boolean";
      if (takesValue || attached.startsWith("=")) {
        const value = attached.startsWith("=") ? attached.slice(1) : attached;
        this.#takeFlag(flag, attached === "" ? undefined : value);
        return;
      }
      this.#takeFlag(flag, undefined);
    }
  }

  #takeFlag(flag: string, attached: string | undefined): void {
    const { name, definition } = this.#find(flag);
    if (this.#values.has(name)) {
      throw usage(`${flag}: given more than once`);
    }
    if (definition.type === "boolean") {
      if (attached !== undefined) {
        throw usage(`${flag}: takes no value`);
      }
      this.#values.set(name, flag === `--no-${name}` ? "false" : "true");
      return;
    }
    const value = attached ?? this.#nextValue(flag);
    checkValue(flag, value, definition);
    this.#values.set(name, value);
  }

  #nextValue(flag: string): string {
    const next = this.#rest[0];
    if (next === undefined || (next.startsWith("-") && next !== "-")) {
      const hint = next === undefined ? "" : `; one that begins with "-" is written ${flag}=VALUE`;
      throw usage(`${flag}: a value is missing${hint}`);
    }
    this.#rest.shift();
    return next;
  }

  #find(flag: string): Definition {
    const found = this.#flags.get(flag);
    if (found === undefined) {
      const known = [...this.#flags.keys(), ...HELP_FLAGS, ...VERSION_FLAGS];
      const long = known.filter((name) => name.startsWith("--"));
      const nearest = flag === "-v" ? "--version" : nearestName(flag, long);
      throw usage(
        `${flag}: unknown flag${nearest === undefined ? "" : `; did you mean ${nearest}?`}`,
      );
    }
    return found;
  }

  #takeWord(word: string): void {
    const last = this.#positionals.at(-1);
    const repeated = last?.definition.isRepeated === true ? last : undefined;
    const next = this.#positionals[this.#words.length] ?? repeated;
    if (next === undefined) {
      throw usage(`${JSON.stringify(word)}: unexpected argument${this.#wordHint(word)}`);
    }
    checkValue(next.name.toUpperCase(), word, next.definition);
    this.#words.push(word);
  }

  /** Who gives a word where there are none meant the name of a tool, or the flag that most commands have. */
  #wordHint(word: string): string {
    const nearest = nearestName(word, this.#toolNames);
    if (nearest !== undefined) {
      return `; did you mean ${nearest}?`;
    }
    if (this.#toolNames.length > 0 && !/[./]/.test(word)) {
      return `; the tools here are ${this.#toolNames.join(", ")}`;
    }
    const isConfigMissing = this.#flags.has("--config") && !this.#values.has("config");
    return isConfigMissing ? `; did you mean --config ${word}?` : "";
  }

  #checkPresence(): void {
    for (const { name, definition } of this.#required) {
      if (!this.#values.has(name)) {
        throw usage(
          `${[...aliasesOf(definition).map((a) => `-${a}`), `--${name}`].join(", ")}: missing`,
        );
      }
    }
    for (const { name, definition } of this.#positionals.slice(this.#words.length)) {
      if (definition.required !== false && definition.default === undefined) {
        throw usage(`${name.toUpperCase()}: missing`);
      }
    }
  }
}

function checkValue(flag: string, value: string, definition: ArgumentDefinition): void {
  if (value === "" && "valueHint" in definition && definition.valueHint === "FILE") {
    throw usage(`${flag}: empty; the name of a file is expected`);
  }
  const choices = definition.type === "enum" ? definition.options : definition.choices;
  if (choices !== undefined && !choices.includes(value)) {
    const nearest = nearestName(value, choices);
    const hint = nearest === undefined ? "" : `; did you mean ${nearest}?`;
    throw usage(`${flag}: ${JSON.stringify(value)} is not one of ${choices.join(", ")}${hint}`);
  }
  const range = definition.integer;
  if (range !== undefined) {
    const number = parseInteger(value);
    if (number === undefined) {
      throw usage(`${flag}: ${JSON.stringify(value)} is not a whole number`);
    }
    if (number < range.minimum || number > range.maximum) {
      throw usage(`${flag}: ${value} is not in ${range.minimum} to ${range.maximum}`);
    }
  }
}

function parseInteger(text: string): number | undefined {
  return /^\+?[0-9]{1,20}$/.test(text) ? Number(text) : undefined;
}

function usage(message: string): UbiError {
  return new UbiError("E_USAGE", message);
}
