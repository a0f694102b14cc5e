/** The one date that what is built bears: SOURCE_DATE_EPOCH, or that of the last commit. */
import { statSync } from "node:fs";
import { join, resolve } from "node:path";
import { runCommand } from "./command.ts";

const ROOT = resolve(import.meta.dir, "..");

/** Seconds since 1970. */
export async function sourceDateSeconds(): Promise<number> {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) {
    if (!/^[0-9]{1,11}$/.test(given)) {
      throw new Error(`SOURCE_DATE_EPOCH: ${JSON.stringify(given)} is not a number of seconds`);
    }
    return Number(given);
  }
  const commit = await runCommand(["git", "-C", ROOT, "log", "-1", "--format=%ct"]);
  if (commit.exitCode === 0) {
    return Number(commit.stdout.trim());
  }
  return Math.floor(statSync(join(ROOT, "package.json")).mtimeMs / 1000); // not a clone
}
