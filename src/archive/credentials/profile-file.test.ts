import { expect, test } from "bun:test";
import { readProfile } from "./profile-file.ts";

const FILE = `
# aws_access_key_id = before any profile
[default] ; the one without a name
aws_access_key_id = AKIA1
aws_secret_access_key=a/b+c=d#e

  [inside] = of a value
[ other ]
AWS_ACCESS_KEY_ID = AKIA2 # a comment
  aws_access_key_id = a line of the value above
; aws_secret_access_key = commented
aws_secret_access_key =\tsecret2\t
aws_session_token = token==
[default]
aws_session_token = joined
[empty]
`;

const of = (profile: string, text = FILE) => {
  const settings = readProfile(text, profile);
  return settings === undefined ? undefined : Object.fromEntries(settings);
};

test("a profile has its settings, those of a second section of its name as well", () => {
  expect(of("default")).toEqual({
    aws_access_key_id: "AKIA1",
    aws_secret_access_key: "a/b+c=d#e",
    aws_session_token: "joined",
  });
});

test("comments and indented lines are none of the settings; names are in lower case", () => {
  expect(of("other")).toEqual({
    aws_access_key_id: "AKIA2",
    aws_secret_access_key: "secret2",
    aws_session_token: "token==",
  });
});

test("an empty profile is one, an absent one is none", () => {
  expect(of("empty")).toEqual({});
  expect(of("absent")).toBeUndefined();
  expect(of("default", "")).toBeUndefined();
});

test("lines may end as on Windows", () => {
  expect(of("default", "[default]\r\na = b\r\n")).toEqual({ a: "b" });
});
