import { expect, test } from "bun:test";
import { memoryFinding, pinningFinding, queueFinding } from "./resource-checks.ts";

test("queues: more than CPUs is a warning", () => {
  expect(queueFinding(2, 2).verdict).toBe("ok");
  expect(queueFinding(3, 2).verdict).toBe("warn");
});

test("cpus: those that the process may not use are named", () => {
  expect(pinningFinding([0, 1], new Set([0, 1])).verdict).toBe("ok");
  expect(pinningFinding([0, 9], new Set([0, 1])).found).toBe("this process may not run on CPU 9");
  expect(pinningFinding([0, 9], undefined).verdict).toBe("ok");
});

test("memory: less than a busy disk takes is a warning", () => {
  expect(memoryFinding(2 ** 27, 2 ** 30).verdict).toBe("ok");
  expect(memoryFinding(2 ** 30, 2 ** 27).verdict).toBe("warn");
});
