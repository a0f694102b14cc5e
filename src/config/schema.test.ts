import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { TSchema } from "@sinclair/typebox";
import { DeviceDocument, SecretSection, ServerDocument, TargetDocument } from "./schema.ts";

const MANUAL = readFileSync(join(import.meta.dir, "../../docs/config.md"), "utf8");

interface Leaf {
  readonly key: string;
  readonly schema: TSchema;
}

/** Every key below a section that holds a value, dotted; a reference counts as `key.ref`. */
const leavesOf = (schema: TSchema, prefix = ""): readonly Leaf[] => {
  const members: readonly TSchema[] = schema.variants === undefined ? [schema] : schema.anyOf;
  const properties: readonly (readonly [string, TSchema])[] = members.flatMap((member) =>
    Object.entries(member.properties ?? {}),
  );
  return properties.flatMap(([name, inner]) =>
    inner.properties === undefined
      ? [{ key: `${prefix}${name}`, schema: inner }]
      : leavesOf(inner, `${prefix}${name}.`),
  );
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

const rowsOf = (key: string) =>
  MANUAL.split("\n").filter((line) => line.startsWith(`| \`${key}\` |`));

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
  expect(numbers).toHaveLength(6);
  expect(wrong.map(([key]) => key)).toEqual([]);
});

const rangeOf = (schema: TSchema) => `${schema.minimum} to ${schema.maximum}`;

test("the examples of the manual are valid documents", () => {
  const examples = [...MANUAL.matchAll(/```toml\n([^`]*)```/g)].map((match) => match[1] ?? "");
  expect(examples).toHaveLength(7);
  expect(examples.map((text) => Object.keys(Bun.TOML.parse(text)).length > 0)).not.toContain(false);
});
