import { expect, test } from "bun:test";
import { FEATURE } from "../formats/ublk.ts";
import { absenceFinding, deviceFindings, featureFinding } from "./ublk-checks.ts";

const DEVICE = {
  id: 3,
  path: "/dev/ublkb3",
  state: "quiesced",
  pid: undefined,
  queues: 1,
  queue_size: 64,
  max_io_bytes: 2 ** 20,
  recoverable: true,
  zero_copy: false,
  orphan: true,
};

test("no driver: what to do depends on whether its module is there", () => {
  expect(absenceFinding("cannot open", "there").advice).toStartWith("modprobe ublk_drv");
  expect(absenceFinding("cannot open", "absent").found).toBe("this kernel has no ublk driver");
  expect(absenceFinding("cannot open", undefined).found).toBe("cannot open");
});

test("no driver is no warning: a monitor with --strict would never be content", () => {
  for (const module of ["there", "absent", undefined] as const) {
    expect(absenceFinding("cannot open", module).verdict).toBe("skip");
  }
});

test("features: recovery and zero copy, or neither, or too old", () => {
  const all = Object.values(FEATURE).reduce((sum, bit) => sum + bit, 0);
  expect(featureFinding(all)).toMatchObject({ verdict: "ok" });
  expect(featureFinding(all).found).toBe("devices can be recovered, zero copy");
  expect(featureFinding(FEATURE.ioctlEncoding).found).toStartWith("devices cannot be recovered");
  expect(featureFinding(0).verdict).toBe("warn");
});

test("devices: one that nobody serves is named, with the ways out", () => {
  expect([...deviceFindings([DEVICE])]).toEqual([
    {
      check: "devices",
      verdict: "warn",
      found: "/dev/ublkb3 is quiesced: nobody serves it",
      advice: "ubiblk ublk --recover 3, or --delete 3",
    },
  ]);
  const [served] = deviceFindings([{ ...DEVICE, orphan: false, pid: 7 }]);
  expect(served).toMatchObject({ verdict: "ok", found: "1, all served" });
});
