import { expect, test } from "bun:test";
import { environmentFindings, executableFinding } from "./program-checks.ts";

const PLACE = "/usr/bin/ubiblk";

test.each([
  { mode: 0o100755, uid: 0, verdict: "ok" },
  { mode: 0o100775, uid: 0, verdict: "warn" },
  { mode: 0o100757, uid: 0, verdict: "warn" },
  { mode: 0o100755, uid: 4_000_000, verdict: "warn" },
])("executable %j", ({ mode, uid, verdict }) => {
  expect<string>(executableFinding(PLACE, { mode, uid }).verdict).toBe(verdict);
});

test("environment: variables of the runtime are named, those of developers are not", () => {
  const findings = [...environmentFindings({ BUN_OPTIONS: "--x", BUN_INSTALL: "/b", HOME: "/h" })];
  expect(findings).toHaveLength(1);
  expect(findings[0]).toMatchObject({ verdict: "warn" });
  expect(findings[0]?.found).toStartWith("BUN_OPTIONS: ");
});

test("environment: nothing unusual", () => {
  expect([...environmentFindings({ PATH: "/bin", UBIBLK_LOG: "debug" })]).toEqual([
    { check: "environment", verdict: "ok", found: "no variable changes the runtime" },
  ]);
});

test.each([
  { variable: "LD_PRELOAD", value: "/lib/x.so" },
  { variable: "UBIBLK_XTS_HIDE", value: "vaes512" },
  { variable: "UBIBLK_LOG", value: "loud" },
])("environment: $variable is a warning", ({ variable, value }) => {
  const [first] = environmentFindings({ [variable]: value });
  expect(first).toMatchObject({ verdict: "warn" });
  expect(first?.found).toContain(variable);
});
