import { expect, test } from "bun:test";
import { childText, parseXml } from "./s3-xml.ts";

test("an error document gives its fields, entities decoded", () => {
  const root = parseXml(
    '<?xml version="1.0" encoding="UTF-8"?>\n<!-- no > news -->\n<Error a="x"><Code>SlowDown</Code>' +
      "<Message>a &lt;b&gt; &amp; &quot;c&quot; &#233;&#x20AC;</Message><Empty/></Error>\n",
  );
  expect(root?.name).toBe("Error");
  expect(childText(root, "Code")).toBe("SlowDown");
  expect(childText(root, "Message")).toBe('a <b> & "c" \u00e9\u20ac');
  expect(childText(root, "Empty")).toBe("");
  expect(childText(root, "Other")).toBeUndefined();
});

test("namespaces and CDATA are understood", () => {
  const root = parseXml('<s:Error xmlns:s="x"><s:Code><![CDATA[<&>]]></s:Code></s:Error>');
  expect(childText(root, "Code")).toBe("<&>");
});

test.each([
  ["nothing", ""],
  ["no document", "Service Unavailable"],
  ["HTML", "<!DOCTYPE html><html><body>down</body></html>"],
  ["a document type with entities", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'],
  ["a cut document", "<Error><Code>Slow"],
  ["a cut tag", "<Error><Cod"],
  ["crossed tags", "<a><b></a></b>"],
  ["two roots", "<a></a><b></b>"],
  ["one closing tag too many", "<a></a></b>"],
  ["a depth of a thousand", "<a>".repeat(1000) + "</a>".repeat(1000)],
  ["a hundred thousand elements", `<a>${"<b/>".repeat(100_000)}</a>`],
])("%s is no document", (_, source) => {
  expect(parseXml(source)).toBeUndefined();
});

test("an unknown entity and a number that is no character become a mark, which is part of no key", () => {
  expect(parseXml("<a>x&b;y&#x110000;z</a>")?.text).toBe("x\uFFFDy\uFFFDz");
});
