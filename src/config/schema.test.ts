import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { TSchema } from "@sinclair/typebox";
import { Check } from "@sinclair/typebox/value";
import {
  ArchiveDocument,
  DeviceDocument,
  KeyDocument,
  SecretSection,
  ServerDocument,
  TargetDocument,
} from "./schema.ts";

const MANUAL = readFileSync(join(import.meta.dir, "../../docs/config.md"), "utf8");

interface Leaf {
  readonly key: string;
  readonly schema: TSchema;
}

const membersOf = (schema: TSchema): readonly TSchema[] =>
  schema.variants === undefined ? [schema] : schema.anyOf;

/** Every key below a section that holds a value, dotted; a reference counts as `key.ref`. */
const leavesOf = (schema: TSchema, prefix = ""): readonly Leaf[] => {
  const properties = membersOf(schema).flatMap((member) =>
    Object.entries<TSchema>(member.properties ?? {}),
  );
  return properties.flatMap(([name, inner]) =>
    inner.properties === undefined
      ? [{ key: `${prefix}${name}`, schema: inner }]
      : leavesOf(inner, `${prefix}${name}.`),
  );
};

const DOCUMENTS: Readonly<Record<string, TSchema>> = {
  device: DeviceDocument,
  key: KeyDocument,
  target: TargetDocument,
  archive: ArchiveDocument,
  server: ServerDocument,
  secret: SecretSection,
};

const sections: readonly TSchema[] = [
  ...[DeviceDocument, TargetDocument, ServerDocument].flatMap(({ properties }) =>
    Object.entries(properties)
      .filter(([name]) => name !== "secrets")
      .map(([, section]) => section),
  ),
  SecretSection,
];
const LEAVES = sections
  .flatMap((section) => leavesOf(section))
  .filter(({ schema }) => schema.const === undefined);

/** Every table and key at any depth, members of unions included. */
const nodesOf = (schema: TSchema, at: string): readonly Leaf[] => [
  { key: at, schema },
  ...membersOf(schema).flatMap((member) => propertiesOf(member, at)),
];
const propertiesOf = (schema: TSchema, at: string): readonly Leaf[] =>
  Object.entries<TSchema>(schema.properties ?? {}).flatMap(([name, inner]) =>
    nodesOf(inner, `${at}.${name}`),
  );
const NODES = Object.entries(DOCUMENTS).flatMap(([name, document]) => nodesOf(document, name));

const rowsOf = (key: string) =>
  MANUAL.split("\n").filter((line) => line.startsWith(`| \`${key}\` |`));

test("every document, section and key has a description of one or two sentences", () => {
  const described = (text: unknown) =>
    typeof text === "string" && /^[^\n]{8,160}[.!]$/.test(text) && /^[A-Z]|^[a-z_]+ /.test(text);
  const wrong = NODES.filter(({ schema }) => !described(schema.description));
  expect(NODES.length).toBeGreaterThan(150);
  expect(wrong.map(({ key }) => key)).toEqual([]);
});

test("every key without a default has an example that fits it", () => {
  const values = NODES.filter(
    ({ schema }) =>
      schema.properties === undefined &&
      schema.variants === undefined &&
      schema.patternProperties === undefined &&
      schema.const === undefined &&
      schema.default === undefined,
  );
  const wrong = values.filter(({ schema }) => !Check(schema, schema.examples?.[0]));
  expect(values.length).toBeGreaterThan(30);
  expect(wrong.map(({ key }) => key)).toEqual([]);
});

test("every key of the schema has a row in the manual", () => {
  expect(LEAVES.length).toBeGreaterThan(50);
  expect(LEAVES.map(({ key }) => key).filter((key) => rowsOf(key).length === 0)).toEqual([]);
});

test("every default of the schema is the manual's", () => {
  const withDefault = LEAVES.filter(
    ({ key, schema }) => schema.default !== undefined && !isDangerFlag(key),
  );
  const wrong = withDefault.filter(({ key, schema }) =>
    rowsOf(key).every((row) => !row.split("|")[3]?.includes(JSON.stringify(schema.default))),
  );
  expect(wrong.map(({ key }) => key)).toEqual([]);
});

test("every key that only this program knows is marked as new, and no other", () => {
  for (const { key } of LEAVES) {
    const leaves = LEAVES.filter((leaf) => leaf.key === key);
    const marks = rowsOf(key).map((row) => row.includes("*new*"));
    const ours = leaves.map(({ schema }) => schema.unknownToReference === true);
    expect({ key, isNew: shareOf(marks) }).toEqual({ key, isNew: shareOf(ours) });
  }
});

/** A key may be new in one section only. */
const shareOf = (flags: readonly boolean[]) =>
  flags.every((isSet) => isSet) ? "everywhere" : flags.includes(true) ? "somewhere" : "nowhere";

/** The manual says once for the whole section that they are false. */
const isDangerFlag = (key: string) => key === "enabled" || key.startsWith("allow_");

test("every range of the tuning keys is the manual's", () => {
  const numbers = Object.entries(DeviceDocument.properties.tuning.properties).filter(
    ([, schema]) => "maximum" in schema,
  );
  const wrong = numbers.filter(([key, schema]) =>
    rowsOf(key).every((row) => !row.includes(rangeOf(schema))),
  );
  expect(numbers).toHaveLength(7);
  expect(wrong.map(([key]) => key)).toEqual([]);
});

const rangeOf = (schema: TSchema) => `${schema.minimum} to ${schema.maximum}`;

test("the examples of the manual are valid documents", () => {
  const examples = [...MANUAL.matchAll(/```toml\n([^`]*)```/g)].map((match) => match[1] ?? "");
  expect(examples).toHaveLength(8);
  expect(examples.map((text) => Object.keys(Bun.TOML.parse(text)).length > 0)).not.toContain(false);
});
