import { expect, test } from "bun:test";
import { DATE, FLOAT, parseToml, sectionText, typeName } from "./toml.ts";

const messageOf = (text: string): string => {
  try {
    parseToml(text, "f.toml");
    return "";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
};

test("toml 1.1 inline tables accept newlines and a trailing comma", () => {
  const table = parseToml("a = {\n  x = 1,\n  y = 2,\n}\n", "f.toml");
  expect(table.a).toEqual({ x: 1, y: 2 });
});

test("toml 1.1 strings accept the escapes of one byte", () => {
  expect(parseToml('a = "\\e\\x41"', "f.toml").a).toBe("\u001bA");
});

test("a byte order mark and carriage returns are accepted", () => {
  expect(parseToml("\ufeffa = 1\r\nb = 2\r\n", "f.toml")).toEqual({ a: 1, b: 2 });
});

test("integers are read in all four bases with underscores", () => {
  const table = parseToml("a = 1_000\nb = 0x1F\nc = 0o17\nd = 0b101", "f.toml");
  expect(table).toEqual({ a: 1000, b: 31, c: 15, d: 5 });
});

test("an integer beyond the exact range of numbers stays apart as a bigint", () => {
  expect(parseToml("a = 9007199254740993", "f.toml").a).toBe(9007199254740993n);
});

test("a float and a date are kept as marks of their type only", () => {
  const table = parseToml("a = 1.0\nb = 1979-05-27\nc = nan", "f.toml");
  expect(table).toEqual({ a: FLOAT, b: DATE, c: FLOAT });
});

test("a key named like a property of every object is a key like any other", () => {
  const table = parseToml("__proto__ = 1\nconstructor = 2", "f.toml");
  expect(Object.entries(table)).toEqual([
    ["__proto__", 1],
    ["constructor", 2],
  ]);
});

test("a duplicate key is refused with file and line", () => {
  expect(messageOf("a = 1\na = 2\n")).toStartWith("f.toml:2:");
});

test("text without quotes is told what it lacks", () => {
  expect(messageOf("a = disk.raw")).toBe(
    "f.toml:1:5: not valid TOML: invalid value; text stands in quotes",
  );
});

test("a syntax error in a line that holds a secret does not quote the line", () => {
  const message = messageOf('[secrets.k]\nsource.inline = "hunter2hunter2" oops\n');
  expect(message).toStartWith("f.toml:2:");
  expect(message).not.toContain("hunter2");
});

test("an unfinished string that holds a secret is not quoted", () => {
  expect(messageOf('a = "hunter2hunter2')).not.toContain("hunter2");
});

test("a malformed date that hides a secret is not quoted", () => {
  expect(messageOf("a = 2024-13-45T99:99:99Zhunter2")).not.toContain("hunter2");
});

test("arrays nested without end are refused", () => {
  expect(messageOf(`a = ${"[".repeat(5000)}`)).toContain("f.toml:1:");
});

test.each([
  ["a dotted key", `${"a.".repeat(200_000)}a = 1`],
  ["a header", `[${"a.".repeat(200_000)}a]`],
  ["inline tables", `a = ${"{a=".repeat(2000)}1${"}".repeat(2000)}`],
])("%s nested without end is refused", (_, text) => {
  expect(messageOf(text)).toStartWith("f.toml:");
});

test("types are named in words", () => {
  const names = ["x", 1, 1n, true, FLOAT, DATE, [], {}].map(typeName);
  expect(names.join(", ")).toBe(
    "a string, an integer, an integer, a boolean, a float, a date, an array, a table",
  );
});

test("a section that is written reads back, whatever its keys and values have in them", () => {
  const hostile = 'a"b\\c\n\t\u0000\u007f=[]#é\u{1f511}';
  const text = sectionText(["secrets", hostile], {
    source: { file: hostile },
    absent: undefined,
    cpus: [0, 1],
    "a b": { c: true },
    count: 3,
  });
  const table = parseToml(text, "c.toml");
  expect(JSON.parse(JSON.stringify(table))).toEqual({
    secrets: {
      [hostile]: { source: { file: hostile }, cpus: [0, 1], "a b": { c: true }, count: 3 },
    },
  });
});

test("a section that is written is one for people", () => {
  const text = sectionText(["secrets", "k"], { source: { file: "/a/b" }, encoding: "base64" });
  expect(text).toBe('[secrets.k]\nsource.file = "/a/b"\nencoding = "base64"\n');
});
