/** The configuration: every mistake of it, and every warning. */
import { UbiError, UbiErrors } from "../errors.ts";
import type { CheckContext } from "./check-context.ts";
import type { Finding } from "./finding.ts";

export async function* examineConfig(context: CheckContext): AsyncGenerator<Finding> {
  const { configPath } = context.options;
  if (configPath === undefined) {
    const found = "none was given; with -f FILE its disk is examined as well";
    yield { check: "file", verdict: "skip", found };
    return;
  }
  try {
    const { files, warnings, secrets } = await context.config();
    const count = secrets.names.length;
    const named = count === 1 ? "1 secret" : `${count} secrets`;
    yield { check: "file", verdict: "ok", found: `${files[0] ?? configPath} loads, with ${named}` };
    for (const warning of warnings) {
      yield { check: "warning", verdict: "warn", found: warning };
    }
  } catch (error) {
    yield* isLate(error) ? [lateFinding(configPath)] : mistakes(error);
    const found = "the disk: its configuration does not load";
    yield { check: "not examined", verdict: "skip", found };
  }
}

// --- internal ---

/** A pipe without a writer. */
function isLate(error: unknown): boolean {
  return error instanceof DOMException && error.name === "TimeoutError";
}

function lateFinding(path: string): Finding {
  const found = `cannot read config ${path}: nobody writes to this pipe`;
  return { check: "E_CONFIG_READ", verdict: "fail", found, advice: "start its writer" };
}

function* mistakes(error: unknown): Generator<Finding> {
  const errors = error instanceof UbiErrors ? error.errors : [error];
  for (const each of errors) {
    if (!(each instanceof UbiError)) {
      throw each;
    }
    yield { check: each.code, verdict: "fail", found: each.message };
  }
}
