import { expect, test } from "bun:test";
import { watchdogMs } from "./watchdog.ts";

test.each([
  [{ WATCHDOG_USEC: "30000000" }, 30_000],
  [{ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "7" }, 30_000],
  [{ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "8" }, undefined],
  [{ WATCHDOG_USEC: "1500", WATCHDOG_PID: "" }, 1.5],
  [{ WATCHDOG_USEC: "0" }, undefined],
  [{ WATCHDOG_USEC: "soon" }, undefined],
  [{ WATCHDOG_USEC: "-5" }, undefined],
  [{ WATCHDOG_PID: "7" }, undefined],
  [{}, undefined],
])("for process 7 %j allows %p ms", (environment, limitMs) => {
  expect(watchdogMs(environment, 7)).toBe(limitMs as never);
});
