/**
 * Tests that a machine may be unable to run. They count as skipped, with the reason in their name, so
 * that the closing report can say it; never as passed.
 */
import { test } from "bun:test";

type Body = () => void | Promise<void>;
type DeclareTest = (name: string, body: Body, timeoutMs?: number) => void;

/** `test`, or a skipped test that tells `reason` when `condition` does not hold. */
export function skipUnless(reason: string, condition: boolean): DeclareTest {
  if (condition) {
    return (name, body, timeoutMs) => test(name, body, timeoutMs);
  }
  return (name, body) => test.skip(`${name} (skipped: ${reason})`, body);
}

/** `skipUnless` for programs that must be installed; the first one missing is the reason. */
export function skipUnlessInstalled(...programs: readonly string[]): DeclareTest {
  const missing = programs.find((program) => !isInstalled(program));
  return skipUnless(`${missing} is not installed`, missing === undefined);
}

/** Looks beyond PATH: the administrator's programs are not in every user's. */
export function isInstalled(program: string): boolean {
  const path = `${process.env.PATH ?? ""}:/usr/sbin:/sbin`;
  return Bun.which(program, { PATH: path }) !== null;
}

/** How often a randomised test goes round, or what it does: more under `npm run test:long`. */
export function rounds<T>(normal: T, long: T): T {
  return process.env.UBIBLK_TEST_LONG === "1" ? long : normal;
}
