import { expect, test } from "bun:test";
import fc from "fast-check";
import { parseHead } from "./http-request.ts";

test("head of a scrape: method, path without its query, and what is accepted", () => {
  const head =
    "GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\nACCEPT:  text/plain;q=0.5 \r\nUser-Agent: x\r\n\r\n";
  expect(parseHead(head)).toEqual({
    method: "GET",
    path: "/metrics",
    accept: "text/plain;q=0.5",
  });
});

test("head with bare newlines, and Accept twice: read, and joined", () => {
  expect(parseHead("HEAD / HTTP/1.0\nAccept: a/b\naccept: c/d\n\n")).toEqual({
    method: "HEAD",
    path: "/",
    accept: "a/b,c/d",
  });
});

test("what follows the head is of no interest", () => {
  expect(parseHead("POST /metrics HTTP/1.1\r\n\r\nAccept: x/y\r\n\r\n")).toMatchObject({
    method: "POST",
    accept: "",
  });
});

test.each(["", "GET /metrics HTTP/1.1", "GET /metrics HTTP/1.1\r\n", "GET / HTTP/1.1\r\nA: b\r\n"])(
  "head that is not whole: %j",
  (head) => {
    expect(parseHead(head)).toBeUndefined();
  },
);

test.each([
  "\r\n\r\n",
  "GET\r\n\r\n",
  "get /metrics HTTP/1.1\r\n\r\n",
  "GET metrics HTTP/1.1\r\n\r\n",
  "GET http://other/metrics HTTP/1.1\r\n\r\n",
  "GET /metrics HTTP/2.0\r\n\r\n",
  "GET /a b HTTP/1.1\r\n\r\n",
  "\u0016\u0003\u0001\r\n\r\n",
  '{"command":"stats"}\n\n',
])("what is no request of HTTP/1: %j", (head) => {
  expect(parseHead(head)).toBe("invalid");
});

test("any bytes: an answer, and none takes long", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 4096 }), (head) => {
      parseHead(`${head}\r\n\r\n`);
    }),
  );
});
