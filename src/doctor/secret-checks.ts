/** Where secrets come from, and those that can be read without using them up: their sizes and envelopes. */
import { type Stats, statSync } from "node:fs";
import { isCredential } from "../config/credential-folder.ts";
import type { SecretDeclaration } from "../config/declared-secrets.ts";
import { permissionProblem } from "../config/file-permissions.ts";
import { variableOf } from "../config/hidden-variables.ts";
import { fileOf } from "../config/secret-sources.ts";
import { errorText } from "../errors.ts";
import { type CheckContext, isWithheld } from "./check-context.ts";
import type { Finding } from "./finding.ts";

export async function* examineSecrets(context: CheckContext): AsyncGenerator<Finding> {
  const { secrets } = await context.config();
  for (const name of secrets.names) {
    const declaration = secrets.declaration(name);
    if (declaration !== undefined) {
      yield sourceFinding(name, declaration.source);
    }
  }
  const directory = process.env.CREDENTIALS_DIRECTORY;
  if (directory !== undefined) {
    yield directoryFinding(directory);
  }
  for (const user of ["encryption", "stripe_source"] as const) {
    if (secrets.uses.some((use) => use.path[0] === user)) {
      yield await readingFinding(context, user);
    }
  }
}

export function sourceFinding(name: string, source: SecretDeclaration["source"]): Finding {
  const check = name;
  if (source.env !== undefined) {
    return variableOf(source.env) === undefined
      ? { check, verdict: "fail", found: `variable ${source.env} is not set`, advice: "set it" }
      : { check, verdict: "ok", found: `variable ${source.env} is set` };
  }
  if (isWithheld(source)) {
    const found = `credential ${source.credential}: only the service gets it`;
    return { check, verdict: "skip", found, advice: "run this with the credential as well" };
  }
  let file: string | undefined;
  try {
    file = fileOf(source);
  } catch (error) {
    return { check, verdict: "fail", found: errorText(error) };
  }
  if (file === undefined) {
    return { check, verdict: "ok", found: "stands in the configuration" };
  }
  const stats = lookAt(file);
  return typeof stats === "string"
    ? { check, verdict: "fail", found: stats, advice: "make it, or name another one" }
    : fileFinding(check, file, stats);
}

// --- internal ---

function fileFinding(check: string, file: string, stats: Stats): Finding {
  if (stats.isFIFO()) {
    const found = `${file} is a named pipe: its writer is awaited at each start`;
    return { check, verdict: "ok", found };
  }
  if (stats.isDirectory()) {
    const advice = "name a file or a pipe";
    return { check, verdict: "fail", found: `${file} is a directory`, advice };
  }
  const problem = isCredential(file, stats) ? undefined : permissionProblem(file, stats);
  if (problem !== undefined) {
    const verdict = problem.isFatal ? "fail" : "warn";
    return { check, verdict, found: problem.message, advice: `chmod 0600 ${file}` };
  }
  const kind = stats.isFile() ? `a file of ${stats.size} bytes` : "a device or a socket";
  return { check, verdict: "ok", found: `${file} is ${kind}` };
}

/** Whether its secrets are what the section needs: their sizes, and keys that unwrap them. */
async function readingFinding(
  context: CheckContext,
  user: "encryption" | "stripe_source",
): Promise<Finding> {
  const check = `[${user}]`;
  const answer = await context.secretsOf(user);
  if (answer.kind === "read") {
    return { check, verdict: "ok", found: "its secrets are read, and have the right sizes" };
  }
  const { why, isFailure } = answer;
  return { check, verdict: isFailure ? "fail" : "skip", found: why };
}

function directoryFinding(directory: string): Finding {
  const check = "CREDENTIALS_DIRECTORY";
  const stats = lookAt(directory);
  if (typeof stats === "string") {
    return { check, verdict: "warn", found: stats, advice: "start it by the service manager" };
  }
  const mode = (stats.mode & 0o7777).toString(8).padStart(4, "0");
  return (stats.mode & 0o077) === 0
    ? { check, verdict: "ok", found: `${directory}, mode ${mode}` }
    : {
        check,
        verdict: "warn",
        found: `${directory}: mode ${mode} lets others in`,
        advice: "chmod 0700",
      };
}

/** Why it cannot be looked at, as a text. */
function lookAt(path: string): Stats | string {
  try {
    return statSync(path);
  } catch (error) {
    return `cannot read ${path}: ${errorText(error)}`;
  }
}
