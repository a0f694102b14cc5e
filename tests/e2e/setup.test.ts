/** scripts/setup.sh on a machine that has everything already; on others it has run before this test. */
import { expect, test } from "bun:test";
import { resolve } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { belowOnce } from "../support/until.ts";

const SETUP = resolve(import.meta.dir, "..", "..", "scripts", "setup.sh");

test.each(["build", "test"])(
  "setup for %s, nothing missing: quick, and says nothing",
  async (mode) => {
    const durationMs = async () => {
      const result = await runCommand([SETUP, mode], { cwd: "/" });
      expect(result.exitCode).toBe(0);
      expect(result.stdout + result.stderr).toBe("");
      return result.durationMs;
    };
    expect(await belowOnce(2000, durationMs)).toBeLessThan(2000);
  },
);

test("setup for something else: says how it is called", async () => {
  const result = await runCommand([SETUP, "everything"]);
  expect(result.exitCode).toBe(2);
  expect(result.stderr).toContain("build|test|bench|fuzz");
});
