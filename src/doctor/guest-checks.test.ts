import { expect, test } from "bun:test";
import { hugePageFinding, kvmFinding, sharedMemoryFinding } from "./guest-checks.ts";

test.each([
  { access: "granted", verdict: "ok" },
  { access: "denied", verdict: "warn" },
  { access: "absent", verdict: "warn" },
] as const)("kvm $access: $verdict", ({ access, verdict }) => {
  expect(kvmFinding(access).verdict).toBe(verdict);
});

test("huge pages: those reserved, and whether shared memory gets any", () => {
  const memory = "HugePages_Total:      16\nHugePages_Free:        4\nHugepagesize:       2048 kB";
  expect(hugePageFinding({ shared: "advise", memory }).found).toBe(
    "4 of 16 reserved ones free (2048 KiB); transparent ones for shared memory: advise",
  );
  expect(hugePageFinding({ shared: undefined, memory: undefined }).found).toStartWith(
    "none reserved",
  );
});

test("shared memory: its room, or that there is none", () => {
  expect(sharedMemoryFinding(2 ** 30).found).toBe("1 GiB free in /dev/shm");
  expect(sharedMemoryFinding(undefined).verdict).toBe("warn");
});
