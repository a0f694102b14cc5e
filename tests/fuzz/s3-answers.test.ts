/** Whatever an S3 service answers is read within bounds: a list, an error, or neither; never a crash. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { failureText, readFailure } from "../../src/archive/s3-failure.ts";
import { readListPage } from "../../src/archive/s3-list.ts";
import { parseXml } from "../../src/archive/s3-xml.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";

const RUNS = process.env.UBIBLK_TEST_LONG === undefined ? 3000 : 60_000;

const piece = fc.constantFrom(
  ...["<", ">", "</", "/>", "&", ";", "&lt;", "&#x41;", "&#99999999;", "<!--", "-->", "<![CDATA["],
  ...[
    "]]>",
    "<?xml",
    "?>",
    "<!DOCTYPE",
    "Error",
    "Code",
    "<Error>",
    "</Error>",
    "<Code>",
    "</Code>",
  ],
  ...["<ListBucketResult>", "</ListBucketResult>", "<Contents>", "</Contents>", "<Key>", "</Key>"],
  ...["<Size>", "</Size>", "1", "\0", "\ud800", " ", "\n", 'a="b"'],
);
const text = fc.array(fc.oneof(piece, fc.string({ maxLength: 5 })), { maxLength: 40 });

test("answers of known pieces in any order are read without a crash, in one line of bounded length", () => {
  fc.assert(
    fc.property(text, fc.integer({ min: 200, max: 599 }), (pieces, status) => {
      const source = pieces.join("");
      const body = new TextEncoder().encode(source);
      parseXml(source);
      readListPage(body);
      const failure = readFailure({ status, headers: new Headers(), body }, ["1", ""]);
      const line = failureText({ name: "GetObject", key: "key" }, failure);
      expect(line).not.toMatch(/[\n\0]/);
      expect(line.length).toBeLessThan(2000);
    }),
    { numRuns: RUNS, seed: FUZZ_SEED },
  );
});

test("any text in a document comes out as it went in", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 60 }), (content) => {
      const source = `<a><b>${Bun.escapeHTML(content)}</b></a>`;
      expect(parseXml(source)?.children[0]?.text).toBe(content);
    }),
    { numRuns: RUNS, seed: FUZZ_SEED },
  );
});
