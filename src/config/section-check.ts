/**
 * Checks one section of a document against its schema and turns what is wrong into findings in a
 * user's words. A value is shown only where it cannot be a secret: numbers and choices.
 */
import type { TSchema } from "@sinclair/typebox";
import { Errors, type ValueError, ValueErrorType } from "@sinclair/typebox/errors";
import { Default } from "@sinclair/typebox/value";
import { assert } from "../errors.ts";
import type { Findings } from "./findings.ts";
import type { KeyPath } from "./key-positions.ts";
import { nearestName } from "./nearest-name.ts";
import type { SecretSize } from "./schema.ts";
import { emptyTable, isTable, type TomlTable, typeName } from "./toml.ts";

export interface CheckedSection {
  /** With its defaults; undefined when it does not fit its schema. */
  readonly whole: TomlTable | undefined;
  /** Those of its values, with defaults, that fit by themselves. */
  readonly fitting: TomlTable;
}

/** Fills in defaults and reports every mismatch under `path`. */
export function checkSection(
  schema: TSchema,
  section: unknown,
  path: KeyPath,
  findings: Findings,
): CheckedSection {
  const fitting = emptyTable();
  const chosen = chooseVariant(schema, section, path, findings);
  if (chosen === undefined) {
    return { whole: undefined, fitting };
  }
  if (!isTable(section)) {
    findings.error("E_CONFIG_VALUE", path, `a table is expected, not ${typeName(section)}`);
    return { whole: undefined, fitting };
  }
  const filled = Default(chosen, section);
  const reported = new Set<string>();
  for (const error of Errors(chosen, filled)) {
    // A missing key is also reported as a value of the wrong type: the first is the useful one.
    if (!reported.has(error.path)) {
      reported.add(error.path);
      report(error, chosen, path, findings);
    }
  }
  if (!isTable(filled)) {
    return { whole: undefined, fitting };
  }
  const wrong = new Set([...reported].map((pointer) => pointerParts(pointer)[0]));
  for (const [key, value] of Object.entries(filled)) {
    if (!wrong.has(key)) {
      fitting[key] = value;
    }
  }
  return { whole: reported.size === 0 ? filled : undefined, fitting };
}

/** One value that a schema annotates, and where it stands in its section. */
export interface AnnotatedValue {
  readonly schema: TSchema;
  readonly value: unknown;
  readonly table: TomlTable;
  readonly key: string;
  readonly path: KeyPath;
}

/** Lists the keys of a checked section whose schema has `annotation`. */
export function annotatedValues(
  schema: TSchema,
  section: TomlTable,
  path: KeyPath,
  annotation: "path" | "secret",
): readonly AnnotatedValue[] {
  const found: AnnotatedValue[] = [];
  const properties = propertiesOf(chosenSchema(schema, section));
  for (const [key, property] of Object.entries(properties)) {
    const value = section[key];
    const keyPath = [...path, key];
    if (value !== undefined && property[annotation] !== undefined) {
      found.push({ schema: property, value, table: section, key, path: keyPath });
    } else if (isTable(value)) {
      found.push(...annotatedValues(property, value, keyPath, annotation));
    }
  }
  return found;
}

/** The sizes that a secret reference's schema accepts. */
export function secretSizeOf(schema: TSchema): SecretSize {
  const size: unknown = schema.secret;
  assert(isSecretSize(size), "a schema of a secret reference states its sizes");
  return size;
}

/** The schema that a checked section fits: of a union, the member that its fixed keys choose. */
export function chosenSchema(schema: TSchema, section: TomlTable): TSchema {
  return memberFor(schema, section) ?? schema;
}

// --- internal ---

function isSecretSize(value: unknown): value is SecretSize {
  return typeof value === "object" && value !== null && "bytesMin" in value && "bytesMax" in value;
}

function propertiesOf(schema: TSchema): Readonly<Record<string, TSchema>> {
  return schema.properties ?? {};
}

function variantKeysOf(schema: TSchema): readonly string[] {
  return schema.variants ?? [];
}

/** The member of a union whose fixed keys are those of the section. */
function memberFor(schema: TSchema, section: TomlTable): TSchema | undefined {
  return membersOf(schema).find((member) =>
    variantKeysOf(schema).every((key) => {
      const literal = propertiesOf(member)[key];
      return literal === undefined || literal.const === section[key];
    }),
  );
}

function membersOf(schema: TSchema): readonly TSchema[] {
  return schema.variants === undefined ? [] : schema.anyOf;
}

/** Follows `type` and `storage` to the one schema that a section has to fit. */
function chooseVariant(
  schema: TSchema,
  section: unknown,
  path: KeyPath,
  findings: Findings,
): TSchema | undefined {
  let members = membersOf(schema);
  if (members.length === 0 || !isTable(section)) {
    return schema;
  }
  for (const key of variantKeysOf(schema)) {
    const choices = new Set(members.map((member) => propertiesOf(member)[key]?.const));
    if (choices.has(undefined) && choices.size === 1) {
      continue;
    }
    const fitting = members.filter((member) => propertiesOf(member)[key]?.const === section[key]);
    if (fitting.length === 0) {
      const expected = oneOf([...choices].filter((choice) => choice !== undefined));
      const given = section[key] === undefined ? "missing" : shown(section[key]);
      findings.error("E_CONFIG_VALUE", [...path, key], `${given}: ${expected} is expected`);
      return undefined;
    }
    members = fitting;
  }
  return members[0];
}

function report(error: ValueError, schema: TSchema, section: KeyPath, findings: Findings): void {
  const parts = pointerParts(error.path);
  const path = [...section, ...parts];
  switch (error.type) {
    case ValueErrorType.ObjectAdditionalProperties:
      findings.error("E_CONFIG_KEY", path, unknownKey(error, parts, schema));
      break;
    case ValueErrorType.ObjectRequiredProperty:
      findings.error("E_CONFIG", path, "missing: this key is required");
      break;
    case ValueErrorType.ObjectMinProperties:
    case ValueErrorType.ObjectMaxProperties:
      findings.error("E_CONFIG_VALUE", path, `exactly one of ${keysOf(error.schema)} is expected`);
      break;
    default:
      findings.error("E_CONFIG_VALUE", path, mismatch(error, section[0] === "secrets"));
  }
}

function unknownKey(error: ValueError, parts: KeyPath, schema: TSchema): string {
  const known = Object.keys(propertiesOf(error.schema));
  const nearest = nearestName(parts.at(-1) ?? "", known);
  const isReference = error.schema.secret !== undefined || schema.secret !== undefined;
  if (isReference) {
    return 'unknown key: a reference to a secret has only the key "ref"';
  }
  return nearest === undefined
    ? `unknown key; known here: ${known.join(", ")}`
    : `unknown key; did you mean ${nearest}?`;
}

function mismatch(error: ValueError, isHidden: boolean): string {
  const { schema, value, type } = error;
  switch (type) {
    case ValueErrorType.Integer:
      return typeof value === "bigint" ? range(schema, value) : wrongType("an integer", value);
    case ValueErrorType.IntegerMinimum:
    case ValueErrorType.IntegerMaximum:
      return range(schema, value);
    case ValueErrorType.StringMinLength:
      return "must not be empty";
    case ValueErrorType.StringPattern:
      return `${isHidden ? "not accepted" : shown(value)}: ${schema.why ?? "not accepted here"}`;
    case ValueErrorType.String:
      return wrongType("a string", value);
    case ValueErrorType.Boolean:
      return wrongType("true or false", value);
    case ValueErrorType.Array:
      return wrongType("an array", value);
    case ValueErrorType.ArrayMinItems:
      return "must not be empty";
    case ValueErrorType.ArrayUniqueItems:
      return "names something twice";
    case ValueErrorType.Object:
      return schema.secret === undefined
        ? wrongType("a table", value)
        : `${wrongType("a reference to a secret", value)}; write { ref = "NAME" }`;
    case ValueErrorType.Union:
    case ValueErrorType.Literal:
      return choice(schema, value, isHidden);
    default:
      return "not accepted here";
  }
}

function wrongType(expected: string, value: unknown): string {
  return `${expected} is expected, not ${typeName(value)}`;
}

function range(schema: TSchema, value: unknown): string {
  const why = schema.why === undefined ? "" : ` (${schema.why})`;
  return `${value} is out of range; ${schema.minimum} to ${schema.maximum} is accepted${why}`;
}

function choice(schema: TSchema, value: unknown, isHidden: boolean): string {
  const members: readonly TSchema[] = schema.anyOf ?? [schema];
  const expected = oneOf(members.map((member) => member.const));
  if (typeof value !== "string") {
    return wrongType(expected, value);
  }
  return `${isHidden ? "not accepted" : shown(value)}: ${expected} is expected`;
}

const SHOWN_LENGTH_MAX = 40;

/** A value of a choice or number. Long texts are no choice that was mistyped: they stay hidden. */
function shown(value: unknown): string {
  if (typeof value === "string" && value.length <= SHOWN_LENGTH_MAX) {
    return JSON.stringify(value);
  }
  return typeName(value);
}

function oneOf(choices: readonly unknown[]): string {
  const texts = choices.map((text) => JSON.stringify(text));
  return texts.length === 1 ? `${texts[0]}` : `one of ${texts.join(", ")}`;
}

function keysOf(schema: TSchema): string {
  return Object.keys(propertiesOf(schema)).join(", ");
}

/** `/a/b~1c` to `a`, `b/c` (RFC 6901). */
function pointerParts(pointer: string): KeyPath {
  return pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}
