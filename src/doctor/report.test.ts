import { expect, test } from "bun:test";
import type { SubjectFinding } from "./finding.ts";
import { countFindings, failureText, findingLines, reportJson, summaryText } from "./report.ts";

const KERNEL = { subject: "machine", check: "kernel", verdict: "ok", found: "Linux 6.1" } as const;
const LIMIT = {
  subject: "limits",
  check: "open files",
  verdict: "warn",
  found: "up to 64",
  advice: "ulimit -n",
} as const;
const DISK = { subject: "data_path", check: "file", verdict: "fail", found: "gone" } as const;

test("text: the subject stands once, above what was found about it", () => {
  expect(findingLines(KERNEL, undefined)).toBe(
    "machine\n  ok    kernel                Linux 6.1\n",
  );
  expect(findingLines(KERNEL, "machine")).toBe("  ok    kernel                Linux 6.1\n");
});

test("text: advice has a line of its own", () => {
  expect(findingLines(LIMIT, "limits")).toBe(
    "  warn  open files            up to 64\n        -> ulimit -n\n",
  );
});

test("text: control characters of a file name do not reach the terminal", () => {
  const finding: SubjectFinding = { ...DISK, found: "a\u001b[2Jb\nc" };
  expect(findingLines(finding, "data_path")).toBe(
    "  fail  file                  a\\u001b[2Jb\\nc\n",
  );
});

test("summary: each verdict is counted", () => {
  expect(summaryText(countFindings([KERNEL, LIMIT, DISK, DISK]))).toBe(
    "1 ok, 1 warning, 2 failed, 0 not checked",
  );
});

test("JSON: one line, with every finding and no undefined member", () => {
  expect(reportJson([KERNEL, LIMIT], "1.2.3")).toBe(
    '{"version":"1.2.3","counts":{"ok":1,"warn":1,"fail":0,"skip":0},"checks":[' +
      '{"subject":"machine","check":"kernel","verdict":"ok","found":"Linux 6.1","advice":null},' +
      '{"subject":"limits","check":"open files","verdict":"warn","found":"up to 64","advice":"ulimit -n"}]}\n',
  );
});

test("failure: what failed is named, up to five", () => {
  expect(failureText([KERNEL, DISK], false)).toBe("a check failed: data_path file");
  expect(failureText(Array(7).fill(DISK), false)).toEndWith("data_path file and 2 more");
});

test("failure: warnings count only when they are asked for", () => {
  expect(failureText([KERNEL, LIMIT], false)).toBeUndefined();
  expect(failureText([KERNEL, LIMIT], true)).toBe("warnings, with --strict: limits open files");
});
