/**
 * TOML text to a plain tree, and back. The only file that knows smol-toml. Its error messages quote the line
 * at fault, which may hold a secret, so of an error only the position and a known reason pass.
 */
import { parse, stringify, TomlDate, TomlError } from "smol-toml";
import { ConfigError } from "./config-error.ts";

/** No config value is a float or a date: one that stands in a file is kept as a mark of its type. */
export const FLOAT = Symbol("a float");
export const DATE = Symbol("a date");

/** An integer is a `number` when exact, a `bigint` (out of every key's range) otherwise. */
export type TomlValue =
  | string
  | number
  | bigint
  | boolean
  | typeof FLOAT
  | typeof DATE
  | readonly TomlValue[]
  | TomlTable;

/** Has no prototype: `__proto__` and `constructor` are keys like any other. */
export interface TomlTable {
  [key: string]: TomlValue;
}

/** Deeper nesting of tables, dotted keys and arrays is refused; no document needs more than 4. */
const NESTING_DEPTH_MAX = 32;

/**
 * Parses one TOML 1.1 document.
 *
 * @throws ConfigError E_CONFIG_SYNTAX that names `file` and the line, and never quotes the text.
 */
export function parseToml(text: string, file: string): TomlTable {
  try {
    return plainTable(parse(text, { integersAsBigInt: true, maxDepth: NESTING_DEPTH_MAX }), 0);
  } catch (error) {
    if (error instanceof TomlError) {
      const { line, column } = error;
      const what = `not valid TOML: ${reason(error)}`;
      throw new ConfigError("E_CONFIG_SYNTAX", { file, line, column }, what);
    }
    if (error instanceof NestingError) {
      const what = `nested deeper than ${NESTING_DEPTH_MAX}`;
      throw new ConfigError("E_CONFIG_SYNTAX", { file }, what);
    }
    throw error;
  }
}

/** What a document that is made can hold. */
export type WritableTable = { readonly [key: string]: WritableValue | undefined };
type WritableValue = string | number | boolean | readonly (string | number)[] | WritableTable;

/** The section `[path]` with a line a key; keys of tables in it are dotted, undefined ones are left out. */
export function sectionText(path: readonly string[], section: WritableTable): string {
  const header = path.map(keyText).join(".");
  return `[${header}]\n${keyLines("", section)}`;
}

export function isTable(value: unknown): value is TomlTable {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function emptyTable(): TomlTable {
  return Object.create(null);
}

/** Names the type of a value for a message: `a string`, `an integer`, and so on. */
export function typeName(value: unknown): string {
  switch (typeof value) {
    case "string":
      return "a string";
    case "number":
    case "bigint":
      return "an integer";
    case "boolean":
      return "a boolean";
    case "symbol":
      return value.description ?? "a symbol";
    default:
      return Array.isArray(value) ? "an array" : "a table";
  }
}

// --- internal ---

function keyLines(prefix: string, table: WritableTable): string {
  return Object.entries(table)
    .map(([key, value]) => {
      const dotted = prefix + keyText(key);
      if (value === undefined) {
        return "";
      }
      return isWritableTable(value)
        ? keyLines(`${dotted}.`, value)
        : `${dotted} = ${valueText(value)}\n`;
    })
    .join("");
}

function isWritableTable(value: WritableValue): value is WritableTable {
  return typeof value === "object" && !Array.isArray(value);
}

function keyText(key: string): string {
  return stringify({ [key]: 0 }).slice(0, -" = 0\n".length);
}

function valueText(value: Exclude<WritableValue, WritableTable>): string {
  return stringify({ v: value }).slice("v = ".length, -1);
}

const INTEGER_MAX = 2n ** 63n - 1n;
const INTEGER_MIN = -(2n ** 63n);

/** The reasons of smol-toml that quote nothing of the text. */
const REASONS: ReadonlySet<string> = new Set([
  "control characters are not allowed in comments",
  "control characters are not allowed in strings",
  "document contains excessively nested structures. aborting.",
  "each key-value declaration must be followed by an end-of-line",
  "expected comma or end of structure",
  "expected end of table array declaration",
  "illegal character in key",
  "illegal character in numeric literal",
  "illegal empty bare key",
  "illegal leading zero",
  "illegal quoted key: multiline strings are not allowed",
  "illegal underscore",
  "incomplete key-value: cannot find end of key",
  "invalid date",
  "invalid escape: only line-ending whitespace may be escaped",
  "invalid non-hex character in unicode escape",
  "invalid unicode escape",
  "invalid value",
  "trying to redefine an already defined table or value",
  "trying to redefine an already defined value",
  "unexpected end of key",
  "unfinished array",
  "unfinished numeric value",
  "unfinished string",
  "unfinished table",
  "unrecognised escape sequence",
]);

function reason(error: TomlError): string {
  const [firstLine = ""] = error.message.split("\n");
  const known = firstLine.replace(/^Invalid TOML document: /, "");
  if (known === "invalid value") {
    return `${known}; text stands in quotes`;
  }
  return REASONS.has(known) ? known : "syntax error";
}

class NestingError extends Error {}

function plainTable(source: Readonly<Record<string, unknown>>, depth: number): TomlTable {
  if (depth > NESTING_DEPTH_MAX) {
    throw new NestingError();
  }
  const table = emptyTable();
  for (const key of Object.keys(source)) {
    table[key] = plainValue(source[key], depth + 1);
  }
  return table;
}

function plainValue(value: unknown, depth: number): TomlValue {
  if (typeof value === "string" || typeof value === "boolean") {
    return value;
  }
  if (typeof value === "bigint") {
    return plainInteger(value);
  }
  if (typeof value === "number") {
    return FLOAT;
  }
  if (Array.isArray(value)) {
    return value.map((item) => plainValue(item, depth));
  }
  if (value instanceof TomlDate || !isRecord(value)) {
    return DATE;
  }
  return plainTable(value, depth);
}

function plainInteger(value: bigint): TomlValue {
  const isExact =
    value <= BigInt(Number.MAX_SAFE_INTEGER) && value >= BigInt(Number.MIN_SAFE_INTEGER);
  if (isExact) {
    return Number(value);
  }
  return value > INTEGER_MAX ? INTEGER_MAX : value < INTEGER_MIN ? INTEGER_MIN : value;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
