import { expect, test } from "bun:test";
import { descriptorFinding, lockedMemoryFinding, softLimit, userFinding } from "./limit-checks.ts";

const LIMITS = `Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 1048576              files
Max locked memory         8388608              8388608              bytes
Max cpu time              unlimited            unlimited            seconds`;

test("limits: the soft one of a line counts", () => {
  expect(softLimit(LIMITS, "Max open files")).toBe(1024);
  expect(softLimit(LIMITS, "Max cpu time")).toBe(Infinity);
  expect(softLimit(LIMITS, "Max nothing")).toBeUndefined();
  expect(softLimit(undefined, "Max open files")).toBeUndefined();
});

test.each([
  { limitBytes: 8_388_608, isUnlimited: false, verdict: "warn" },
  { limitBytes: 8_388_608, isUnlimited: true, verdict: "ok" },
  { limitBytes: 2 ** 27, isUnlimited: false, verdict: "ok" },
  { limitBytes: Infinity, isUnlimited: false, verdict: "ok" },
  { limitBytes: undefined, isUnlimited: false, verdict: "skip" },
])("locked memory %j", ({ limitBytes, isUnlimited, verdict }) => {
  expect<string>(lockedMemoryFinding({ limitBytes, isUnlimited }).verdict).toBe(verdict);
});

test.each([
  { limit: 256, verdict: "warn" },
  { limit: 1024, verdict: "ok" },
  { limit: Infinity, verdict: "ok" },
  { limit: undefined, verdict: "skip" },
])("open files $limit: $verdict", ({ limit, verdict }) => {
  expect<string>(descriptorFinding(limit).verdict).toBe(verdict);
});

test("user: what it may not do is told", () => {
  expect(userFinding(0, true).found).toBe("root");
  expect(userFinding(1000, false).found).toBe(
    "user 1000, without CAP_SYS_ADMIN (ublk devices need it)",
  );
});
