/**
 * What can be known without running the product: types, style and format, dead code and unused
 * dependencies. Each check prints one line when it passes and its own findings when it does not.
 */
import { resolve } from "node:path";
import { type CommandResult, runCommand } from "./command.ts";

const ROOT = resolve(import.meta.dir, "..");
const TOOLS = resolve(ROOT, "node_modules", ".bin");
/** The tools run on Bun: whatever Node came with npm may be too old for them. */
const BUN = process.execPath;
/** Of each: a quiet machine of two cores needs a twentieth of it. */
const LIMIT_MS = 600_000;

interface Check {
  readonly name: string;
  readonly command: readonly string[];
  readonly advice: string;
}

const CHECKS: readonly Check[] = [
  { name: "types", command: [BUN, `${TOOLS}/tsc`, "--noEmit"], advice: "mend the types" },
  {
    name: "style",
    command: [BUN, `${TOOLS}/biome`, "check", "--error-on-warnings", "--max-diagnostics=50", "."],
    advice: "`npm run format` mends most of it",
  },
  {
    name: "dead code",
    command: [BUN, `${TOOLS}/knip`, "--no-progress"],
    advice: "remove what nothing uses, or say in knip.json why it stays",
  },
];

/** Runs every check and returns the names of those that failed. */
export async function check(): Promise<readonly string[]> {
  const results = await Promise.all(CHECKS.map(async (each) => [each, await run(each)] as const));
  const failed: string[] = [];
  for (const [{ name, advice }, result] of results) {
    const seconds = (result.durationMs / 1000).toFixed(1);
    if (result.exitCode === 0) {
      console.log(`check: ${name} ok (${seconds} s)`);
    } else {
      failed.push(name);
      console.log(`${result.stdout}${result.stderr}`.trim());
      const why = result.isTimedOut ? `took more than ${LIMIT_MS / 1000} s` : advice;
      console.log(`check: ${name} FAILED; ${why}`);
    }
  }
  return failed;
}

// --- internal ---

function run(each: Check): Promise<CommandResult> {
  return runCommand(each.command, { cwd: ROOT, timeoutMs: LIMIT_MS });
}

if (import.meta.main) {
  process.exitCode = (await check()).length === 0 ? 0 : 1;
}
