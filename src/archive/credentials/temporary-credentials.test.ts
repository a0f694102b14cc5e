import { expect, test } from "bun:test";
import {
  readJsonCredentials,
  readXmlCredentials,
  readXmlRefusal,
} from "./temporary-credentials.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const GOOD = {
  Code: "Success",
  AccessKeyId: "ASIA1",
  SecretAccessKey: "a/b+c",
  Token: "t==",
  Expiration: "2030-01-02T03:04:05Z",
};
const READ = {
  accessKeyId: "ASIA1",
  secretAccessKey: "a/b+c",
  sessionToken: "t==",
  expiresAtMs: Date.UTC(2030, 0, 2, 3, 4, 5),
};
const json = (value: unknown) => readJsonCredentials(bytes(JSON.stringify(value)));

test("the JSON of an instance and of a container, with an end or without", () => {
  expect(json(GOOD)).toEqual(READ);
  const { Code: _, Expiration: __, ...container } = GOOD;
  const { expiresAtMs: ___, ...endless } = READ;
  expect(json(container)).toEqual(endless);
});

test.each([
  ["not JSON", "<html>SecretAccessKey"],
  ["cut", JSON.stringify(GOOD).slice(0, 50)],
  ["a list", "[1]"],
  ["nothing", ""],
  ["null", "null"],
  ["no key", JSON.stringify({ ...GOOD, SecretAccessKey: undefined })],
  ["an empty token", JSON.stringify({ ...GOOD, Token: "" })],
  ["a number", JSON.stringify({ ...GOOD, AccessKeyId: 5 })],
  ["a line break, for another header", JSON.stringify({ ...GOOD, Token: "t\r\nx-evil: 1" })],
  ["an end that is none", JSON.stringify({ ...GOOD, Expiration: "soon" })],
  ["an end that is a number", JSON.stringify({ ...GOOD, Expiration: 17 })],
  ["a failure", JSON.stringify({ Code: "AssumeRoleUnauthorizedAccess", Message: "no" })],
])("%s is told as wrong, and nothing of it is shown but a code", (_, text) => {
  const read = readJsonCredentials(bytes(text));
  expect(read).toHaveProperty("wrong");
  expect(JSON.stringify(read)).not.toMatch(/a\/b\+c|SecretAccessKey|evil/);
});

test.each([
  [{ Token: undefined }, "the token is missing"],
  [{ AccessKeyId: 5 }, "the access key is missing"],
  [{ SecretAccessKey: "a\nb" }, "the secret key has a character that none has"],
  [
    { SecretAccessKey: "", Token: "t\r\n" },
    "the secret key is missing; the token has a character that none has",
  ],
])("of %j it is said which one is wrong", (changes, wrong) => {
  expect(json({ ...GOOD, ...changes })).toEqual({ wrong });
});

const XML =
  '<?xml version="1.0"?><AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">' +
  "<AssumeRoleWithWebIdentityResult><Audience>x</Audience><Credentials><SessionToken>t==</SessionToken>" +
  "<SecretAccessKey>a/b+c</SecretAccessKey><Expiration>2030-01-02T03:04:05Z</Expiration>" +
  "<AccessKeyId>ASIA1</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>" +
  "<ResponseMetadata/></AssumeRoleWithWebIdentityResponse>";

test("the XML of the token service", () => {
  expect(readXmlCredentials(bytes(XML))).toEqual(READ);
});

test.each([
  ["another document", "<Other/>"],
  ["cut", XML.slice(0, 200)],
  ["no secret key", XML.replace(/<SecretAccessKey>.*<\/SecretAccessKey>/, "")],
  ["JSON", JSON.stringify(GOOD)],
])("%s is told as wrong", (_, text) => {
  expect(readXmlCredentials(bytes(text))).toHaveProperty("wrong");
});

test("a refusal of the token service is one line", () => {
  const text =
    "<ErrorResponse><Error><Code>ExpiredToken</Code><Message>too\n\nlate\u0007</Message></Error></ErrorResponse>";
  expect(readXmlRefusal(bytes(text), "token")).toBe("ExpiredToken: too late");
  expect(readXmlRefusal(bytes("nothing"), "token")).toBeUndefined();
});
