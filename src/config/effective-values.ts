/** What a document says when its defaults are filled in, key by key, each with its origin. Never a secret. */
import type { TObject, TSchema } from "@sinclair/typebox";
import { dottedKey, type KeyPath } from "./key-positions.ts";
import { chosenSchema } from "./section-check.ts";
import type { SourceDocument } from "./source-files.ts";
import { isTable, type TomlTable } from "./toml.ts";

export interface EffectiveValue {
  /** Dotted. */
  readonly key: string;
  readonly value: unknown;
  /** Where it stands; undefined for a default. */
  readonly origin: { readonly file: string; readonly line?: number | undefined } | undefined;
}

/** Lists the values of all sections but `[secrets]`; `values` are those of a checked document. */
export function effectiveValues(
  document: TObject,
  values: Readonly<Record<string, unknown>>,
  source: SourceDocument,
): readonly EffectiveValue[] {
  return Object.entries<TSchema>(document.properties)
    .filter(([name]) => name !== "secrets")
    .flatMap(([name, schema]) => {
      const section = values[name];
      return isTable(section) ? valuesOf(schema, section, [name], source) : [];
    });
}

/** The keys that stand in a document and that the reference implementation rejects. */
export function keysUnknownToReference(
  document: TObject,
  values: Readonly<Record<string, unknown>>,
  source: SourceDocument,
): readonly KeyPath[] {
  const properties: Readonly<Record<string, TSchema>> = document.properties;
  const { secrets, ...sections } = properties;
  const [secret] = Object.values<TSchema>(secrets?.patternProperties ?? {});
  const declared = isTable(values.secrets) ? Object.entries(values.secrets) : [];
  return [
    ...Object.entries(sections).flatMap(([name, schema]) =>
      unknownKeys(schema, values[name], [name], source),
    ),
    ...declared.flatMap(([name, table]) =>
      secret === undefined ? [] : unknownKeys(secret, table, ["secrets", name], source),
    ),
  ];
}

// --- internal ---

function valuesOf(
  schema: TSchema,
  table: TomlTable,
  path: KeyPath,
  source: SourceDocument,
): readonly EffectiveValue[] {
  const properties: Readonly<Record<string, TSchema>> = chosenSchema(schema, table).properties;
  return Object.entries(properties).flatMap(([name, inner]) => {
    const value = table[name];
    const keyPath = [...path, name];
    if (value === undefined) {
      return [];
    }
    if (isTable(value)) {
      return valuesOf(inner, value, keyPath, source);
    }
    return [{ key: dottedKey(keyPath), value, origin: originOf(keyPath, source) }];
  });
}

function originOf(path: KeyPath, source: SourceDocument): EffectiveValue["origin"] {
  if (!source.isWritten(path)) {
    return undefined;
  }
  const { file, line } = source.originOf(path);
  return { file, line };
}

function unknownKeys(
  schema: TSchema,
  table: unknown,
  path: KeyPath,
  source: SourceDocument,
): readonly KeyPath[] {
  if (schema.unknownToReference === true) {
    return source.isWritten(path) ? [path] : [];
  }
  if (!isTable(table)) {
    return [];
  }
  const properties: Readonly<Record<string, TSchema>> =
    chosenSchema(schema, table).properties ?? {};
  return Object.entries(properties).flatMap(([name, inner]) =>
    unknownKeys(inner, table[name], [...path, name], source),
  );
}
