import { expect, test } from "bun:test";
import type { TSchema } from "@sinclair/typebox";
import { ConfigFolder } from "../../tests/support/config-folder.ts";
import { DOCUMENT_KINDS, DOCUMENT_SCHEMAS } from "./document-kinds.ts";
import { exampleOf } from "./example-document.ts";
import { inspectDocument } from "./inspect-document.ts";
import { parseToml } from "./toml.ts";

const inspect = async (text: string) => {
  using folder = new ConfigFolder({ "c.toml": text });
  return await inspectDocument(folder.file("c.toml"), {
    kind: undefined,
    backend: undefined,
    mayReadSecrets: false,
    isForReference: true,
    signal: new AbortController().signal,
  });
};

test.each([...DOCUMENT_KINDS])(
  "the sample of a %s document is a valid one of its kind",
  async (kind) => {
    const { errors, kind: found } = await inspect(exampleOf(kind));
    expect(errors.map((error) => error.message)).toEqual([]);
    expect(found).toBe(kind);
  },
);

test.each([...DOCUMENT_KINDS])(
  "each commented key of the sample of a %s document is TOML",
  (kind) => {
    const commented = exampleOf(kind)
      .split("\n")
      .filter((line) => /^#[a-z[]/.test(line))
      .map((line) => line.slice(1));
    expect(commented.length).toBeGreaterThan(10);
    for (const line of commented) {
      expect(Object.keys(parseToml(line, line))).toHaveLength(1);
    }
  },
);

const keysOf = (schema: TSchema): readonly string[] =>
  (schema.variants === undefined ? [schema] : schema.anyOf).flatMap((member: TSchema) =>
    Object.entries<TSchema>(member.properties ?? {}).flatMap(([name, inner]) => [
      name,
      ...keysOf(inner),
    ]),
  );

test.each([...DOCUMENT_KINDS])("the sample of a %s document has every key", (kind) => {
  const text = exampleOf(kind);
  const keys = keysOf(DOCUMENT_SCHEMAS[kind]);
  const missing = keys.filter(
    (key) => !new RegExp(`^#?\\[?([a-z_]+\\.)*${key}\\b`, "m").test(text),
  );
  expect(keys.length).toBeGreaterThan(20);
  expect(missing.filter((key) => key !== "secrets")).toEqual([]);
});

test("every other variant of a section is valid when it takes the place of the first", async () => {
  const [beforeFirst = "", ...variants] = exampleOf("archive").split(/^#?\[archive\]$/m);
  const s3 = variants[1]?.split(/^\[/m)[0] ?? "";
  const chosen = s3.replaceAll(
    /^#(?=(storage|bucket|access_key_id.ref|secret_access_key.ref) )/gm,
    "",
  );
  const secrets = '[secrets.s3_id]\nsource.file = "a"\n[secrets.s3_secret]\nsource.file = "b"\n';
  const { errors, values } = await inspect(`${beforeFirst}[archive]${chosen}${secrets}`);
  expect(errors.map((error) => error.message)).toEqual([]);
  expect(values.find(({ key }) => key === "archive.bucket")?.value).toBe("backups");
});

test("no line of a sample is longer than a terminal is wide", () => {
  const lines = DOCUMENT_KINDS.flatMap((kind) => exampleOf(kind).split("\n"));
  expect(lines.filter((line) => line.length > 100)).toEqual([]);
});

test("what is filled in is what a disk needs, and nothing whose name begins alike", () => {
  const lines = exampleOf("device").split("\n");
  const filledIn = lines.filter((line) => /^[a-z]/.test(line)).map((line) => line.split(" ")[0]);
  expect(filledIn).toEqual([
    "data_path",
    "vhost_socket",
    "rpc_socket",
    "xts_key.ref",
    "source.file",
  ]);
});
