import { afterEach, expect, test } from "bun:test";
import { logLevel, setLogLevel } from "../log.ts";
import { answerLine } from "./answer-lines.ts";

const before = logLevel();
afterEach(() => setLogLevel(before));

const ask = (request: unknown) =>
  JSON.parse(`${answerLine(() => undefined, JSON.stringify(request))}`);

test("log_level tells the level, set_log_level changes it", () => {
  setLogLevel("error");
  expect(ask({ command: "log_level" })).toEqual({ log_level: "error" });
  expect(ask({ command: "set_log_level", level: "warn" })).toEqual({ log_level: "warn" });
  expect(logLevel()).toBe("warn");
});

test.each([undefined, null, "", "loud", "off", 3, { debug: 1 }, "__proto__"])(
  "the level %j is refused and changes nothing",
  (level) => {
    setLogLevel("error");
    expect(ask({ command: "set_log_level", level })).toEqual({
      code: "E_RPC_REQUEST",
      error: "invalid request: `level` must be one of error, warn, info, debug",
    });
    expect(logLevel()).toBe("error");
  },
);
