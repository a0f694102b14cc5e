/** ubiblk.toml(5): every key of every kind of document, from the schema. */
import { DOCUMENT_KINDS, type DocumentKind } from "../../src/config/document-kinds.ts";
import { type JsonSchema, jsonSchemaOf } from "../../src/config/json-schema.ts";
import type { Edition } from "./commands.ts";
import { inline } from "./markdown.ts";
import { bold, chapter, entry, filled, page, paragraph, subchapter } from "./roff.ts";

/** @param chapters what the manual says beyond single keys, as roff */
export function configPage(edition: Edition, chapters: readonly string[]): string {
  const summary = "configuration of ubiblk";
  return page({ ...edition, name: "ubiblk.toml", section: 5, summary }, [
    chapter("Description", [
      paragraph(
        filled(
          "Documents of ubiblk are TOML 1.1. There are several kinds, each with a section that the others do not have. " +
            `Keys marked ${bold("new")} are unknown to ubicloud\\(aqs ubiblk 0.5.`,
        ),
      ),
      ...DOCUMENT_KINDS.map((kind) => {
        const { description } = jsonSchemaOf(kind);
        return entry(bold(`[${kind}]`), filled(inline(String(description ?? ""))));
      }),
    ]),
    ...sectionChapters(),
    ...chapters,
  ]);
}

/** A dotted key, such as `psk.identity`. */
export interface KeyFacts {
  readonly name: string;
  readonly schema: JsonSchema;
  readonly isRequired: boolean;
}

/** The keys of a section, those of its tables dotted. */
export function keysOf(table: JsonSchema, prefix = ""): readonly KeyFacts[] {
  const required = Array.isArray(table.required) ? table.required : [];
  return Object.entries(tableOf(table.properties)).flatMap(([name, value]) => {
    const schema = tableOf(value);
    const own = { name: `${prefix}${name}`, schema, isRequired: required.includes(name) };
    const isReference = schema["x-ubiblk-secret-bytes"] !== undefined;
    return schema.properties === undefined || isReference
      ? [{ ...own, name: isReference ? `${own.name}.ref` : own.name }]
      : keysOf(schema, `${own.name}.`);
  });
}

/** The forms that a section may have. */
export function variantsOf(section: JsonSchema): readonly JsonSchema[] {
  return Array.isArray(section.anyOf) ? section.anyOf.map(tableOf) : [section];
}

/** Each section of each kind of document, once. */
export function sectionsOf(): ReadonlyMap<string, JsonSchema> {
  const sections = new Map<string, JsonSchema>();
  for (const kind of DOCUMENT_KINDS satisfies readonly DocumentKind[]) {
    for (const [name, schema] of Object.entries(tableOf(jsonSchemaOf(kind).properties))) {
      sections.set(name, tableOf(schema));
    }
  }
  return sections;
}

// --- internal ---

function sectionChapters(): readonly string[] {
  return [...sectionsOf()].map(([name, schema]) => {
    const inner = tableOf(schema.additionalProperties);
    const isMap = inner.properties !== undefined || inner.anyOf !== undefined;
    const variants = variantsOf(isMap ? inner : schema);
    const about = [schema.description, isMap ? inner.description : undefined];
    const isTable = variants.some(({ properties }) => properties !== undefined);
    const title = isMap ? `[${name}.NAME]` : isTable ? `[${name}]` : name;
    const parts = variants.flatMap((variant) => [
      ...(variants.length > 1 ? [subchapter(variantTitle(variant))] : []),
      ...keysOf(variant).map(keyEntry),
    ]);
    const text = about.filter((each) => typeof each === "string").join(" ");
    return chapter(title, [paragraph(filled(inline(text))), ...parts]);
  });
}

/** `type = "archive", storage = "s3"` */
function variantTitle(variant: JsonSchema): string {
  return keysOf(variant)
    .flatMap(({ name, schema }) => {
      const values = Array.isArray(schema.enum) ? schema.enum : [];
      return values.length === 1 ? [`${name} = ${JSON.stringify(values[0])}`] : [];
    })
    .join(", ");
}

function keyEntry({ name, schema, isRequired }: KeyFacts): string {
  const facts = [
    typeOf(schema),
    isRequired ? "required" : undefined,
    schema.default === undefined ? undefined : `default ${JSON.stringify(schema.default)}`,
    schema["x-ubiblk-unknown-to-reference"] === true ? "new" : undefined,
  ].filter((fact) => fact !== undefined);
  const description = typeof schema.description === "string" ? schema.description : "";
  return entry(`${bold(name)} (${inline(facts.join(", "))})`, filled(inline(description)));
}

function typeOf(schema: JsonSchema): string {
  if (schema["x-ubiblk-secret-bytes"] !== undefined) {
    return "name of a secret";
  }
  if (Array.isArray(schema.enum)) {
    return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  }
  if (schema.type === "array") {
    return `list of ${typeOf(tableOf(schema.items))}`;
  }
  const { minimum, maximum } = schema;
  const range =
    minimum === undefined || maximum === undefined || maximum === Number.MAX_SAFE_INTEGER
      ? ""
      : ` from ${minimum} to ${maximum}`;
  const path = schema["x-ubiblk-path"] === true ? "path" : schema.type;
  return `${path ?? "value"}${range}`;
}

function tableOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
