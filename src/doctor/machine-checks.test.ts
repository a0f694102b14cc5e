import { expect, test } from "bun:test";
import {
  clockFinding,
  kernelFinding,
  memoryFinding,
  processorFinding,
  swapFinding,
} from "./machine-checks.ts";

const NOW = new Date("2026-01-02T03:04:05Z");

test.each([
  { release: "6.12.9-amd64", verdict: "ok" },
  { release: "5.13.0", verdict: "ok" },
  { release: "5.4.0-200-generic", verdict: "warn" },
  { release: "4.19.0", verdict: "warn" },
])("kernel $release: $verdict", ({ release, verdict }) => {
  expect(kernelFinding(release)).toMatchObject({ verdict, found: `Linux ${release}` });
});

test("processors: their number, model, and what they have for AES", () => {
  const processor = "processor\t: 0\nmodel name\t: Fast CPU\nflags\t\t: fpu aes vaes avx512f\n";
  const { found } = processorFinding(`${processor}\n${processor}`);
  expect(found).toBe("2 CPUs, Fast CPU: AES-NI, VAES, AVX-512");
});

test("processors: none with AES, or of another kind", () => {
  expect(processorFinding("processor\t: 0\nflags\t\t: fpu\n").found).toContain("no AES");
  expect(processorFinding(undefined).verdict).toBe("ok");
});

test.each([
  { source: "tsc", now: NOW, verdict: "ok" },
  { source: undefined, now: NOW, verdict: "ok" },
  { source: "hpet", now: NOW, verdict: "warn" },
  { source: "tsc", now: new Date("1970-01-01T00:00:10Z"), verdict: "warn" },
])("clock $source at $now: $verdict", ({ source, now, verdict }) => {
  expect<string>(clockFinding(source, now).verdict).toBe(verdict);
});

test("memory: what is available, and the limit of the control group", () => {
  const memory = "MemTotal:       2097152 kB\nMemAvailable:   1048576 kB\n";
  expect(memoryFinding({ memory, limit: "max" })).toEqual({
    check: "memory",
    verdict: "ok",
    found: "1 GiB of 2 GiB available",
  });
  expect(memoryFinding({ memory, limit: "536870912" }).found).toContain("group has 512 MiB");
});

test("memory: hardly any is a warning; not to be told is no verdict", () => {
  const memory = "MemTotal: 2097152 kB\nMemAvailable: 1024 kB\n";
  expect(memoryFinding({ memory, limit: undefined }).verdict).toBe("warn");
  expect(memoryFinding({ memory: undefined, limit: undefined }).verdict).toBe("skip");
});

test("swap: keys may reach a device in the clear, not one that is enciphered", () => {
  const text =
    "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n/dev/dm-0 partition 1 0 -3";
  const isSafe = (path: string) => path === "/dev/dm-0";
  expect(swapFinding(text, isSafe)).toMatchObject({ verdict: "warn" });
  expect(swapFinding(text, isSafe).found).toStartWith("/dev/sda2: keys");
  expect(swapFinding(text, () => true).verdict).toBe("ok");
  expect(swapFinding("Filename Type", isSafe)).toMatchObject({ verdict: "ok", found: "none" });
});
