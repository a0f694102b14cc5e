import { expect, test } from "bun:test";
import { formatFor, httpAnswer, refusalAnswer } from "./http-answer.ts";

const metrics = (format: string) => `${format} é\n`;
const ask = (method: string, path: string, accept = "") =>
  httpAnswer({ method, path, accept }, metrics);

test("GET /metrics: the text with its type and its length in bytes, and the end of the connection", () => {
  expect(ask("GET", "/metrics")).toBe(
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: 14\r\n" +
      "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\nprometheus é\n",
  );
});

test("HEAD: the same without the text", () => {
  const [head] = ask("GET", "/metrics").split("\r\n\r\n");
  expect(ask("HEAD", "/metrics")).toBe(`${head}\r\n\r\n`);
});

test("another path: 404; another method: 405 with those that are allowed", () => {
  expect(ask("GET", "/")).toStartWith("HTTP/1.1 404 Not Found\r\n");
  expect(ask("POST", "/nothing")).toStartWith("HTTP/1.1 404 Not Found\r\n");
  expect(ask("POST", "/metrics")).toStartWith("HTTP/1.1 405 Method Not Allowed\r\n");
  expect(ask("POST", "/metrics")).toContain("\r\nAllow: GET, HEAD\r\n");
});

test("refusals: a status of their own, and words", () => {
  expect(refusalAnswer("too_many", "later")).toStartWith("HTTP/1.1 503 Service Unavailable\r\n");
  expect(refusalAnswer("too_long", "less")).toEndWith("\r\n\r\nless\n");
});

test.each([
  ["", "prometheus"],
  ["*/*", "prometheus"],
  ["text/plain;version=0.0.4", "prometheus"],
  ["application/openmetrics-text", "openmetrics"],
  [
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "openmetrics",
  ],
  ["text/plain, Application/OpenMetrics-Text ; version=0.0.1", "openmetrics"],
  ["application/openmetrics-text; q=0", "prometheus"],
  ["application/openmetrics-text-2", "prometheus"],
] as const)("Accept: %j gets %s", (accept, format) => {
  expect(formatFor(accept)).toBe(format);
});
