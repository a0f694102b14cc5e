import { expect, test } from "bun:test";
import { allowedCpus, parseCpuList } from "./allowed-cpus.ts";

test.each([
  ["0", [0]],
  ["0-3", [0, 1, 2, 3]],
  ["1,4-5,8", [1, 4, 5, 8]],
])("the list %s names the CPUs %j", (list, cpus) => {
  expect([...parseCpuList(list)]).toEqual(cpus);
});

test("this process may run somewhere", () => {
  expect(allowedCpus()?.size).toBeGreaterThan(0);
});
