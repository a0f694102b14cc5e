/** The native library outside the cipher, in C, as it is and under the sanitizers. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { outputOf } from "../../scripts/command.ts";

const FFI = resolve(import.meta.dir, "..", "..", "ffi");
const SUBJECTS = ["event", "file", "memory", "process", "socket", "uring"];

const folder = mkdtempSync(join(tmpdir(), "ubiblk-native-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("native library: every function does what its header says", async () => {
  expect(await runMechanismTest("plain", ["-O2"])).toStartWith("ok ");
}, 120_000);

test("native library: clean under the address and undefined-behaviour sanitizers", async () => {
  // The guard's handler for SIGBUS must stay the last one.
  const flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
  expect(await runMechanismTest("sanitized", flags)).toStartWith("ok ");
}, 120_000);

async function runMechanismTest(name: string, flags: readonly string[]): Promise<string> {
  const program = join(folder, name);
  const sources = [
    join(FFI, "tests", "mechanism_test.c"),
    ...SUBJECTS.map((subject) => join(FFI, `${subject}.c`)),
  ];
  await outputOf(["gcc", "-std=gnu17", "-Wall", "-Wextra", ...flags, ...sources, "-o", program]);
  const env = { ...process.env, ASAN_OPTIONS: "handle_sigbus=0" };
  return await outputOf([program, folder], { env });
}
