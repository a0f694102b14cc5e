import { expect, test } from "bun:test";
import fc from "fast-check";
import { dottedKey, findKeyLines, keyId } from "./key-positions.ts";

test("keys of tables, dotted keys and inline tables are found on their lines", () => {
  const lines = findKeyLines(
    '# comment = 1\n[device]\ndata_path = "a # b"\n\n[secrets.k]\nsource.inline = "x"\n' +
      'encrypted_by = {\n  ref = "kek",\n}\n',
  );
  expect(lines.get(keyId(["device"]))).toBe(2);
  expect(lines.get(keyId(["device", "data_path"]))).toBe(3);
  expect(lines.get(keyId(["secrets", "k"]))).toBe(5);
  expect(lines.get(keyId(["secrets", "k", "source"]))).toBe(6);
  expect(lines.get(keyId(["secrets", "k", "source", "inline"]))).toBe(6);
  expect(lines.get(keyId(["secrets", "k", "encrypted_by", "ref"]))).toBe(8);
});

test("text that looks like keys inside strings and comments is passed over", () => {
  const lines = findKeyLines("a = '''\nb = 1\n''''\n# c = 1\nd = \"\\\"\\n[e]\"\nf = 1\n");
  expect([...lines.keys()]).toEqual([keyId(["a"]), keyId(["d"]), keyId(["f"])]);
  expect(lines.get(keyId(["f"]))).toBe(6);
});

test("keys after an array of several lines keep their line", () => {
  const lines = findKeyLines('include = [\n  "a", # first\n  "b",\n]\n[tuning]\ncpus = [0, 1]\n');
  expect(lines.get(keyId(["tuning", "cpus"]))).toBe(6);
});

test("quoted keys are found under their unquoted names", () => {
  const lines = findKeyLines('["a b".\'c.d\'."\\u00e9"]\nx = 1\n');
  expect(lines.get(keyId(["a b", "c.d", "é", "x"]))).toBe(2);
});

test("a table of an array of tables has the line of its first header", () => {
  const lines = findKeyLines("[[a]]\nx = 1\n[[a]]\nx = 2\n");
  expect(lines.get(keyId(["a"]))).toBe(1);
});

test("a dotted key shows quotes around parts that need them", () => {
  expect(dottedKey(["secrets", "a b", "", "ref"])).toBe('secrets."a b"."".ref');
});

test("any text at all is walked to an end without an error", () => {
  const toml = fc.string({ unit: fc.constantFrom(..."ab=.[]{}\"'\\,#\n \u00e9"), maxLength: 60 });
  fc.assert(
    fc.property(toml, (text) => {
      findKeyLines(text);
    }),
    { numRuns: 3000 },
  );
});
