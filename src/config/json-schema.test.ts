import { expect, test } from "bun:test";
import { DOCUMENT_KINDS } from "./document-kinds.ts";
import { type JsonSchema, jsonSchemaOf } from "./json-schema.ts";

const DEVICE = JSON.parse(JSON.stringify(jsonSchemaOf("device")));

test("each kind has a schema with its sections and include", () => {
  const sections = DOCUMENT_KINDS.map((kind) =>
    Object.keys(JSON.parse(JSON.stringify(jsonSchemaOf(kind))).properties),
  );
  expect(sections.map((names) => names[0])).toEqual(DOCUMENT_KINDS.map(() => "include"));
  expect(sections.map((names) => names[1])).toEqual([...DOCUMENT_KINDS]);
});

test("a number has its range, default and description", () => {
  expect(DEVICE.properties.tuning.properties.num_queues).toMatchObject({
    type: "integer",
    minimum: 1,
    maximum: 63,
    default: 1,
    description: expect.stringContaining("queues"),
  });
});

test("a choice is an enum with its default", () => {
  expect(DEVICE.properties.tuning.properties.io_engine).toMatchObject({
    enum: ["io_uring", "sync"],
    default: "io_uring",
  });
});

test("what has a default is not required, the rest of a section is", () => {
  expect(DEVICE.required).toEqual(["device"]);
  expect(DEVICE.properties.device.required).toEqual(["data_path"]);
  expect(DEVICE.properties.tuning.required).toBeUndefined();
});

test("unknown keys are refused everywhere", () => {
  const tables: JsonSchema[] = [];
  JSON.parse(JSON.stringify(DEVICE), (_, value) => {
    if (value?.type === "object" && value.properties !== undefined) {
      tables.push(value);
    }
    return value;
  });
  expect(tables.length).toBeGreaterThan(10);
  expect(tables.filter((table) => table.additionalProperties !== false)).toEqual([]);
});

test("what only this program knows is annotated by its own name", () => {
  const { read_only, data_path } = DEVICE.properties.device.properties;
  expect(read_only["x-ubiblk-unknown-to-reference"]).toBe(true);
  expect(data_path["x-ubiblk-unknown-to-reference"]).toBeUndefined();
  expect(data_path["x-ubiblk-path"]).toBe(true);
});

test("a reference to a secret tells its sizes", () => {
  const { xts_key } = DEVICE.properties.encryption.properties;
  expect(xts_key).toMatchObject({
    "x-ubiblk-secret-bytes": { minimum: 64, maximum: 64 },
    required: ["ref"],
  });
});

test("secrets may have any name", () => {
  expect(DEVICE.properties.secrets.additionalProperties.properties.encoding.enum).toEqual([
    "plaintext",
    "base64",
  ]);
});
