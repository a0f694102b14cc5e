import { expect, test } from "bun:test";
import { problemFinding, speedFinding } from "./cipher-checks.ts";

test("speed: the provider that disks use is named, and has to be fast enough", () => {
  expect(speedFinding({ provider: "aesni", gigabytesPerSecond: 4.94, isChosen: true })).toEqual({
    check: "aesni",
    verdict: "ok",
    found: "4.9 GB/s a CPU, which disks use",
  });
  expect(
    speedFinding({ provider: "portable", gigabytesPerSecond: 0.2, isChosen: true }).verdict,
  ).toBe("warn");
  expect(
    speedFinding({ provider: "portable", gigabytesPerSecond: 0.2, isChosen: false }).verdict,
  ).toBe("ok");
});

test("problems: what a machine lacks is told, wrong answers fail", () => {
  const facts = { provider: "isal", reason: "libisal_crypto.so.2 is not found" } as const;
  expect(problemFinding({ ...facts, isFault: false }).verdict).toBe("skip");
  expect(problemFinding({ ...facts, isFault: true }).verdict).toBe("fail");
});
