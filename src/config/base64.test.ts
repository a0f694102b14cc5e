import { expect, test } from "bun:test";
import fc from "fast-check";
import { Base64Error, decodeBase64 } from "./base64.ts";

const decode = (text: string) => decodeBase64(new TextEncoder().encode(text));

test("five bytes are decoded", () => {
  expect([...decode("AQIDBAU=")]).toEqual([1, 2, 3, 4, 5]);
});

test("an empty text gives no bytes", () => {
  expect(decode("")).toHaveLength(0);
});

test("ascii whitespace is accepted in front, inside and behind", () => {
  expect([...decode(" \tAQ\nID\r\nBA\fU= \n")]).toEqual([1, 2, 3, 4, 5]);
});

test("a foreign character is refused with its offset", () => {
  expect(() => decode("%%%")).toThrow("character 0 is not a base64 digit");
});

test.each([
  ["the alphabet of URLs", "_-8="],
  ["a vertical tab", "AQID\v"],
  ["missing padding", "AQIDBAU"],
  ["bits that are set before the padding", "AR=="],
  ["padding in front", "=AQI"],
  ["padding after one digit", "A==="],
  ["padding of three", "AQ==="],
  ["digits after the padding", "AQ==AQID"],
])("%s is refused", (_, text) => {
  expect(() => decode(text)).toThrow(Base64Error);
});

test("what Buffer encodes comes back byte for byte", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      expect(decode(Buffer.from(bytes).toString("base64"))).toEqual(bytes);
    }),
  );
});
