import { expect, test } from "bun:test";
import { processAnswer } from "./process-command.ts";

test("process: facts of this process, keys in alphabetical order", () => {
  const { process: facts } = processAnswer("process") ?? {};
  expect(Object.keys(Object(facts))).toEqual([
    "cpu_seconds",
    "open_files",
    "open_files_max",
    "pid",
    "resident_bytes",
    "start_time_seconds",
  ]);
  expect(facts).toMatchObject({ pid: process.pid });
});

test("any other command: no answer", () => {
  expect(processAnswer("version")).toBeUndefined();
});
