import { expect, test } from "bun:test";
import { join } from "node:path";

const SCRIPT = `
const { log } = await import(${JSON.stringify(join(import.meta.dir, "log.ts"))});
log.debug("d"); log.info("i"); log.warn("w"); log.error("e");`;

const linesOf = (level: string, rust?: string) => {
  const env = { ...process.env, UBIBLK_LOG: level, RUST_LOG: rust };
  return Bun.spawnSync([process.execPath, "-e", SCRIPT], { env }).stderr.toString();
};
const ALL = ["[DEBUG] d\n", "[INFO ] i\n", "[WARN ] w\n", "[ERROR] e\n"];

test.each([
  ["debug", 0],
  ["info", 1],
  ["", 1],
  ["warn", 2],
  ["error", 3],
])("with UBIBLK_LOG=%s lines below that level are left out", (level, leftOut) => {
  expect(linesOf(level)).toBe(ALL.slice(leftOut).join(""));
});

test("a level that is none is told with the levels there are, and counts as info", () => {
  expect(linesOf("nonsense")).toBe(
    `[WARN ] UBIBLK_LOG is none of its levels; info counts value=nonsense levels="error, warn, info, debug"\n${ALL.slice(1).join("")}`,
  );
});

test.each([
  ["", "off", 4],
  ["", "ubiblk=debug,warn", 0],
  ["warn", "ubiblk=debug", 2],
  ["", "hyper=debug", 1],
])("UBIBLK_LOG=%s counts before RUST_LOG=%s", (own, rust, leftOut) => {
  expect(linesOf(own, rust)).toBe(ALL.slice(leftOut).join(""));
});
