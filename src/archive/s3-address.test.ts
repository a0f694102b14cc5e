import { expect, test } from "bun:test";
import { bucketUrl, encodePath, normalPrefix } from "./s3-address.ts";

const url = (bucket: string, endpoint?: string, isPathStyleForced = false) =>
  bucketUrl({ bucket, region: "eu-west-1", endpoint, isPathStyleForced });

test.each([
  ["bkt", undefined, "https://bkt.s3.eu-west-1.amazonaws.com"],
  ["bkt", "https://s3.example.org", "https://bkt.s3.example.org"],
  ["bkt", "https://s3.example.org:8443/base/", "https://bkt.s3.example.org:8443/base"],
  ["bkt", "http://localhost:9000", "http://bkt.localhost:9000"],
  ["bkt", "http://127.0.0.1:9000", "http://127.0.0.1:9000/bkt"],
  ["bkt", "http://[::1]:9000/base", "http://[::1]:9000/base/bkt"],
  ["a.b", "https://s3.example.org", "https://s3.example.org/a.b"],
  ["a.b", "http://s3.example.org", "http://a.b.s3.example.org"],
  ["a..b", "http://s3.example.org", "http://s3.example.org/a..b"],
  ["Bkt", "https://s3.example.org", "https://s3.example.org/Bkt"],
  ["a_b", "https://s3.example.org", "https://s3.example.org/a_b"],
  ["ab", "https://s3.example.org", "https://s3.example.org/ab"],
  ["x".repeat(64), "https://s3.example.org", `https://s3.example.org/${"x".repeat(64)}`],
])("bucket %s at %s is %s", (bucket, endpoint, expected) => {
  expect(url(bucket, endpoint)).toBe(expected);
});

test("a forced path style keeps the bucket out of the host name", () => {
  expect(url("bkt", "http://minio.local:9000", true)).toBe("http://minio.local:9000/bkt");
});

test("regions in China have a domain of their own", () => {
  const place = { bucket: "bkt", region: "cn-north-1", endpoint: undefined };
  expect(bucketUrl({ ...place, isPathStyleForced: false })).toBe(
    "https://bkt.s3.cn-north-1.amazonaws.com.cn",
  );
});

test("prefixes have no slash in front and one behind", () => {
  expect([undefined, "", "/", "a", "/a/b/", "//a//"].map(normalPrefix)).toEqual([
    "",
    "",
    "",
    "a/",
    "a/b/",
    "a/",
  ]);
});

test("all but unreserved characters are encoded", () => {
  expect(encodePath("a b+c/(é)!'*%41~_-.")).toBe("a%20b%2Bc/%28%C3%A9%29%21%27%2A%2541~_-.");
});
