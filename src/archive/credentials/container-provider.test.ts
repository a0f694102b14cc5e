import { expect, test } from "bun:test";
import { containerUrl } from "./container-provider.ts";

const FULL = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const RELATIVE = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const of = (variables: Readonly<Record<string, string>>) => containerUrl((name) => variables[name]);

test("a relative address is one of ECS, and counts more than a full one", () => {
  const full = "https://elsewhere.example/x";
  expect(of({ [RELATIVE]: "/v2/credentials/7", [FULL]: full })).toBe(
    "http://169.254.170.2/v2/credentials/7",
  );
  expect(of({ [FULL]: full })).toBe(full);
  expect(of({})).toBeUndefined();
});

test.each([
  "http://127.0.0.1:9/x",
  "http://127.8.9.1/x",
  "http://localhost/x",
  "http://[::1]:80/x",
  "http://169.254.170.2/x",
  "http://169.254.170.23/v1/credentials",
  "http://[fd00:ec2::23]/v1/credentials",
])("without encryption %s may be asked", (url) => {
  expect(of({ [FULL]: url })).toContain("http://");
});

test.each([
  "http://169.254.169.254/x",
  "http://10.0.0.1/x",
  "http://localhost.example/x",
  "http://127.0.0.1.example/x",
  "http://[::2]/x",
  "http://169.254.170.2@evil.example/x",
  "https://user:word@good.example/x",
  "file:///etc/passwd",
  "169.254.170.2",
])("%s may not be asked", (url) => {
  expect(() => of({ [FULL]: url })).toThrow(FULL);
});

test.each(["v2/x", "@evil.example/x", "/a\r\nb"])("the relative address %j is refused", (text) => {
  expect(() => of({ [RELATIVE]: text })).toThrow("does not begin with /");
});

test("a relative address that looks like another host stays at that of ECS", () => {
  expect(new URL(of({ [RELATIVE]: "//evil.example/x" }) ?? "").host).toBe("169.254.170.2");
});
