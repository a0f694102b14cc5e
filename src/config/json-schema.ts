/**
 * The schema of a kind of document as JSON Schema, draft-07, for editors and other checkers. It uses
 * no keyword that draft-04 understands differently, since some editors know no more than that. Rules
 * between keys are not in it: those only `ubiblk config check` knows.
 */
import type { TSchema } from "@sinclair/typebox";
import { DOCUMENT_SCHEMAS, type DocumentKind } from "./document-kinds.ts";
import { IncludeList } from "./schema.ts";

export type JsonSchema = Readonly<Record<string, unknown>>;

export function jsonSchemaOf(kind: DocumentKind): JsonSchema {
  const document = translated(DOCUMENT_SCHEMAS[kind]);
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: `ubiblk ${kind} configuration`,
    ...document,
    properties: { include: translated(IncludeList), ...propertiesOf(document) },
  };
}

// --- internal ---

/** Keywords that mean the same there as here. */
const KEYWORDS = [
  "type",
  "description",
  "examples",
  "minimum",
  "maximum",
  "minLength",
  "minItems",
  "maxItems",
  "uniqueItems",
  "minProperties",
  "maxProperties",
] as const;

function translated(schema: TSchema): JsonSchema {
  const kept = Object.fromEntries(
    KEYWORDS.filter((keyword) => schema[keyword] !== undefined).map((keyword) => [
      keyword,
      schema[keyword],
    ]),
  );
  return { ...kept, ...annotations(schema), ...structure(schema) };
}

/** Those of ours, by names that no other program uses. */
function annotations(schema: TSchema): JsonSchema {
  const { secret } = schema;
  return {
    ...(schema.unknownToReference === true ? { "x-ubiblk-unknown-to-reference": true } : {}),
    ...(schema.path === true ? { "x-ubiblk-path": true } : {}),
    ...(secret === undefined
      ? {}
      : { "x-ubiblk-secret-bytes": { minimum: secret.bytesMin, maximum: secret.bytesMax } }),
  };
}

function structure(schema: TSchema): JsonSchema {
  if (schema.const !== undefined) {
    return { enum: [schema.const] };
  }
  if (schema.patternProperties !== undefined) {
    const [inner] = Object.values<TSchema>(schema.patternProperties);
    return inner === undefined ? {} : { additionalProperties: translated(inner) };
  }
  if (schema.properties !== undefined) {
    return tableStructure(schema);
  }
  const members: readonly TSchema[] = schema.anyOf ?? [];
  const value = schema.default === undefined ? {} : { default: schema.default };
  if (members.length > 0) {
    return members.every((member) => member.const !== undefined)
      ? { type: "string", enum: members.map((member) => member.const), ...value }
      : { anyOf: members.map(translated) };
  }
  return schema.items === undefined ? value : { items: translated(schema.items), ...value };
}

/** A key with a default may be left out of a document. */
function tableStructure(schema: TSchema): JsonSchema {
  const properties: Readonly<Record<string, TSchema>> = schema.properties;
  const names: readonly string[] = schema.required ?? [];
  const required = names.filter((name) => properties[name]?.default === undefined);
  return {
    properties: Object.fromEntries(
      Object.entries(properties).map(([name, inner]) => [name, translated(inner)]),
    ),
    ...(required.length === 0 ? {} : { required }), // draft-04 has no empty list
    additionalProperties: false,
  };
}

function propertiesOf(schema: JsonSchema): JsonSchema {
  const { properties } = schema;
  return typeof properties === "object" && properties !== null ? { ...properties } : {};
}
