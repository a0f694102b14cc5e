import { expect, test } from "bun:test";
import { operationFinding, refusalFinding, setUpFinding } from "./uring-checks.ts";

const ALL = [1, 2, 3, 4, 5, 6, 7, 17, 22, 23];
const message = "the kernel refuses io_uring: EPERM (operation not permitted)";

test.each([
  { setting: "2", isFiltered: false, advice: "sysctl kernel.io_uring_disabled=0 (it is 2)" },
  { setting: "1", isFiltered: true, advice: "sysctl kernel.io_uring_disabled=0 (it is 1)" },
  { setting: "0", isFiltered: true, advice: "allow io_uring_setup" },
  { setting: undefined, isFiltered: false, advice: "use Linux 5.13 or later" },
])("refused, io_uring_disabled $setting, filter $isFiltered: what to do", (facts) => {
  const finding = refusalFinding({ message, ...facts });
  expect(finding).toMatchObject({ verdict: "warn", found: message });
  expect(finding.advice).toStartWith(facts.advice);
});

test("set-up: task work deferred to the thread, or not", () => {
  expect(setUpFinding(1 << 13).verdict).toBe("ok");
  expect(setUpFinding(1 << 8).verdict).toBe("warn");
});

test("operations: all, without ublk's, and one missing", () => {
  expect(operationFinding(new Set([...ALL, 46])).found).toBe("all 10 that disks use");
  expect(operationFinding(new Set(ALL)).found).toBe("all 10 that disks use; not those of ublk");
  expect(operationFinding(new Set(ALL.filter((number) => number !== 17)))).toMatchObject({
    verdict: "warn",
    found: "the kernel has no FALLOCATE",
  });
  expect(operationFinding(undefined).verdict).toBe("skip");
});
