/**
 * A sample document made from the schema: every key with its description. What is required, or makes
 * the sample a plausible one, is filled in; everything else is commented out (`#key = value`), with
 * its default where it has one.
 */
import type { TSchema } from "@sinclair/typebox";
import { assert } from "../errors.ts";
import { DOCUMENT_SCHEMAS, type DocumentKind } from "./document-kinds.ts";
import { IncludeList, SecretSection } from "./schema.ts";

/** The text of a sample, which is a valid document once the pipes of its secrets are there. */
export function exampleOf(kind: DocumentKind): string {
  const sample = new Sample(FILLED_IN[kind]);
  sample.writeDocument(DOCUMENT_SCHEMAS[kind]);
  return sample.text;
}

// --- internal ---

/** Filled in beside what is required. */
const FILLED_IN: Readonly<Record<DocumentKind, readonly string[]>> = {
  device: ["encryption", "device.vhost_socket", "device.rpc_socket"],
  target: ["target.archive_kek"],
  archive: ["archive.archive_kek"],
  server: ["server.address", "server.psk"],
};

const LINE_LENGTH = 100;

const INTRODUCTION =
  'Every key that there is. Lines that begin with "#" and a key are commented out: they show the default, or an example of a key that has none.';

class Sample {
  readonly #lines: string[] = [];
  readonly #filledIn: readonly string[];
  readonly #secretNames = new Set<string>();

  constructor(filledIn: readonly string[]) {
    this.#filledIn = filledIn;
  }

  get text(): string {
    return `${this.#lines.join("\n")}\n`;
  }

  writeDocument(document: TSchema): void {
    this.#comment(`${document.description} ${INTRODUCTION}`);
    this.#lines.push("");
    this.#writeKey("include", IncludeList, { isFilledIn: false });
    for (const [name, section] of Object.entries<TSchema>(document.properties)) {
      if (name !== "secrets") {
        this.#writeSection(name, section, document.required?.includes(name) === true);
      }
    }
    for (const name of this.#secretNames) {
      this.#writeTable(`secrets.${name}`, SecretSection, {
        isFilledIn: true,
        description: descriptionOf(SecretSection),
        filledIn: (key) => key === "source.file",
      });
    }
  }

  /** Of the variants of a section the first is filled in, if the section is. */
  #writeSection(name: string, section: TSchema, isRequired: boolean): void {
    const variants: readonly string[] = section.variants ?? [];
    const members: readonly TSchema[] = variants.length === 0 ? [section] : section.anyOf;
    const description = descriptionOf(section);
    const isOffered = isRequired && section.unknownToReference !== true;
    const isFilledIn = isOffered || this.#filledIn.includes(name);
    for (const [index, member] of members.entries()) {
      const choice = variants
        .filter((key) => member.properties[key] !== undefined)
        .map((key) => `${key} = ${tomlText(member.properties[key].const)}`)
        .join(", ");
      this.#writeTable(name, member, {
        isFilledIn: isFilledIn && index === 0,
        description: choice === "" ? description : `${description} With ${choice}:`,
        filledIn: (key, isKeyRequired) =>
          isKeyRequired || this.#filledIn.some((each) => `${name}.${key}.`.startsWith(`${each}.`)),
      });
    }
  }

  #writeTable(
    name: string,
    table: TSchema,
    options: {
      readonly isFilledIn: boolean;
      readonly description: string;
      readonly filledIn: (key: string, isRequired: boolean) => boolean;
    },
  ): void {
    this.#lines.push("");
    this.#comment(options.description);
    this.#lines.push(`${options.isFilledIn ? "" : "#"}[${name}]`);
    for (const { key, schema, isRequired } of keysOf(table)) {
      const isFilledIn = options.isFilledIn && options.filledIn(key, isRequired);
      this.#writeKey(key, schema, { isFilledIn, secretName: name.split(".")[1] });
    }
  }

  #writeKey(
    key: string,
    schema: TSchema,
    options: { readonly isFilledIn: boolean; readonly secretName?: string | undefined },
  ): void {
    this.#comment(descriptionOf(schema));
    if (isTable(schema)) {
      return;
    }
    const isReference = schema.secret !== undefined;
    const {
      default: fallback,
      const: fixed,
      examples,
    } = isReference ? schema.properties.ref : schema;
    const value: unknown = fallback ?? fixed ?? examples?.[0];
    assert(value !== undefined, `the key ${key} has a default or an example`);
    if (options.isFilledIn && isReference) {
      this.#secretNames.add(String(value));
    }
    const text = tomlText(value).replace("NAME", options.secretName ?? "NAME");
    this.#lines.push(
      `${options.isFilledIn ? "" : "#"}${key}${isReference ? ".ref" : ""} = ${text}`,
    );
  }

  #comment(text: string): void {
    let line = "#";
    for (const word of text.split(" ")) {
      if (line.length + 1 + word.length > LINE_LENGTH) {
        this.#lines.push(line);
        line = "#";
      }
      line += ` ${word}`;
    }
    this.#lines.push(line);
  }
}

function descriptionOf(schema: TSchema): string {
  return schema.description ?? "";
}

function isTable(schema: TSchema): boolean {
  return schema.properties !== undefined && schema.secret === undefined;
}

interface DottedKey {
  readonly key: string;
  readonly schema: TSchema;
  readonly isRequired: boolean;
}

/** The keys of a table, those of its sub-tables dotted, and each sub-table itself in front of its keys. */
function keysOf(table: TSchema, prefix = "", isTableRequired = true): readonly DottedKey[] {
  return Object.entries<TSchema>(table.properties).flatMap(([name, schema]) => {
    const required: readonly string[] = table.required ?? [];
    const hasNoDefault = schema.default === undefined;
    const isRequired = isTableRequired && required.includes(name) && hasNoDefault;
    const own = { key: `${prefix}${name}`, schema, isRequired };
    return isTable(schema) ? [own, ...keysOf(schema, `${own.key}.`, isRequired)] : [own];
  });
}

/** Strings, numbers, truth values, and lists of them. */
function tomlText(value: unknown): string {
  return Array.isArray(value) ? `[${value.map(tomlText).join(", ")}]` : JSON.stringify(value);
}
