import { expect, test } from "bun:test";
import { clockFindings } from "./service-checks.ts";

const NOW_MS = Date.parse("2026-01-02T12:00:00Z");

test.each([
  { date: "Fri, 02 Jan 2026 12:00:30 GMT", verdict: "ok" },
  { date: "Fri, 02 Jan 2026 12:05:00 GMT", verdict: "warn" },
  { date: "Fri, 02 Jan 2026 11:00:00 GMT", verdict: "fail" },
])("clock of the service at $date: $verdict", ({ date, verdict }) => {
  const [finding] = clockFindings(date, NOW_MS);
  expect<string | undefined>(finding?.verdict).toBe(verdict);
});

test("clock of a service that does not tell: no finding", () => {
  expect([...clockFindings(null, NOW_MS)]).toEqual([]);
  expect([...clockFindings("yesterday", NOW_MS)]).toEqual([]);
});
