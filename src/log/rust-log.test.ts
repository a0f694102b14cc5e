import { expect, test } from "bun:test";
import { thresholdFromRustLog } from "./rust-log.ts";

test.each([
  ["info", "info"],
  ["WARN", "warn"],
  ["off", "off"],
  ["trace", "debug"],
  ["a=warn,debug", "debug"],
  ["ubiblk=debug", "debug"],
  ["ubiblk=warn,debug", "warn"],
  ["debug, ubiblk = warn", "warn"],
  ["ubiblk", "debug"],
  ["ubiblk=", "debug"],
  ["ubiblk::vhost_backend=debug,ubiblk=error", "debug"],
  ["vhost_backend=off", "off"],
  ["error/ubiblk=debug", "error"],
])("RUST_LOG=%s asks for %s", (value, threshold) => {
  expect(thresholdFromRustLog(value)).toBe(threshold as never);
});

test.each(["", ",", "hyper=debug", "hyper", "ubiblks=debug", "=debug", "__proto__", "toString"])(
  "RUST_LOG=%s says nothing of this program",
  (value) => {
    expect(thresholdFromRustLog(value)).toBeUndefined();
  },
);
