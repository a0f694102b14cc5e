import { expect, test } from "bun:test";
import { answerOf } from "./rpc-question.ts";
import { lengthFinding, modeFinding, stateFinding } from "./socket-checks.ts";

test("path: 107 bytes fit a socket, 108 do not", () => {
  expect(lengthFinding("x".repeat(107))).toBeUndefined();
  expect(lengthFinding("ä".repeat(54))).toMatchObject({ verdict: "fail" });
});

test.each([
  { state: "absent", listener: "nobody", verdict: "ok", found: "is free" },
  { state: "other", listener: "nobody", verdict: "fail", found: "not a socket" },
  { state: "socket", listener: "listening", verdict: "ok", found: "listens at" },
  { state: "socket", listener: "nobody", verdict: "warn", found: "a process that died" },
  { state: "socket", listener: { error: "EACCES" }, verdict: "warn", found: "EACCES" },
  { state: { error: "cannot look" }, listener: "nobody", verdict: "fail", found: "cannot look" },
] as const)("socket %j", ({ state, listener, verdict, found }) => {
  const finding = stateFinding("/run/x.sock", state, listener);
  expect(finding.verdict).toBe(verdict);
  expect(finding.found).toContain(found);
});

test("folder: one that everybody may write to is a warning, sticky or not", () => {
  expect(modeFinding("/run/ubiblk", 0o40750).verdict).toBe("ok");
  expect(modeFinding("/tmp", 0o41777).verdict).toBe("warn");
});

test("answer of an RPC socket: a version, or what is wrong with it", () => {
  expect(answerOf('{"version":"0.6.0"}\n')).toEqual({ version: "0.6.0" });
  expect(answerOf('{"error":"x"}\n')).toMatchObject({
    problem: expect.stringContaining("names no"),
  });
  expect(answerOf("SSH-2.0\n")).toMatchObject({ problem: expect.stringContaining("no JSON") });
  expect(answerOf('{"version":7}\n')).toMatchObject({ problem: expect.any(String) });
});
