import { expect, test } from "bun:test";
import { defineCommand } from "citty";
import { errorsOf } from "../../tests/support/config-folder.ts";
import { runnableCommand } from "./run-command.ts";

const SURROUNDINGS = { parentName: "ubiblk", versionLine: "ubiblk 1.2.3" };

const recording = (calls: unknown[]) =>
  runnableCommand(
    defineCommand({
      meta: { name: "demo", description: "Shows how" },
      args: {
        config: { type: "string", alias: "f", required: true, description: "The document" },
        count: { type: "string", integer: { minimum: 1, maximum: 9 } },
      },
      run: ({ args }) => {
        calls.push([args.config, args.count]);
      },
    }),
  );

test("a command runs with the values of its flags", async () => {
  const calls: unknown[] = [];
  expect(await recording(calls).run(["-f=c.toml", "--count", "3"], SURROUNDINGS)).toBeUndefined();
  expect(calls).toEqual([["c.toml", "3"]]);
});

test("a command with wrong flags does not run", async () => {
  const calls: unknown[] = [];
  const running = recording(calls).run(["-fc", "--count=10"], SURROUNDINGS);
  expect(await errorsOf(running)).toBe(
    "E_USAGE --count: 10 is not in 1 to 9; see ubiblk demo --help",
  );
  expect(calls).toEqual([]);
});

test("help of a command names command, flags and descriptions", async () => {
  const text = await recording([]).run(["--help"], SURROUNDINGS);
  expect(text).toContain("Shows how (ubiblk demo)");
  expect(text).toContain("-f, --config=<config>");
  expect(text).toContain("The document");
});

test("a command tells the version of the whole", async () => {
  expect(await recording([]).run(["--version"], SURROUNDINGS)).toBe("ubiblk 1.2.3");
});

test("an error of a command passes through", async () => {
  const failing = runnableCommand(
    defineCommand({
      run: () => {
        throw new RangeError("from inside");
      },
    }),
  );
  await expect(failing.run([], SURROUNDINGS)).rejects.toThrow("from inside");
});
