/** The program itself: its file, its native library, its protection of keys, and variables that change it. */
import { type Stats, statSync } from "node:fs";
import packageJson from "../../package.json" with { type: "json" };
import { errnoText, errorText } from "../errors.ts";
import { LOG_LEVELS } from "../log.ts";
import type { Finding } from "./finding.ts";
import { systemText } from "./system-file.ts";

export async function* examineProgram(): AsyncGenerator<Finding> {
  yield executableFinding(process.execPath, statSync(process.execPath));
  yield await libraryFinding();
  yield await hardeningFinding();
  yield* environmentFindings(process.env);
}

/** Others that can exchange the executable can read every key. */
export function executableFinding(
  path: string,
  { mode, uid }: Pick<Stats, "mode" | "uid">,
): Finding {
  const found = `ubiblk ${packageJson.version}, ${path}`;
  const check = "executable";
  if ((mode & 0o022) !== 0) {
    const advice = `chmod go-w ${path}`;
    return { check, verdict: "warn", found: `${found}: other users can change it`, advice };
  }
  if (uid !== 0 && uid !== process.geteuid?.()) {
    const advice = "install it as root";
    return { check, verdict: "warn", found: `${found}: user ${uid} can change it`, advice };
  }
  return { check, verdict: "ok", found };
}

/** What variables of the environment change, as far as they should not. */
export function* environmentFindings(
  environment: Readonly<Record<string, string | undefined>>,
): Generator<Finding> {
  const check = "environment";
  const names = Object.keys(environment).filter((name) => environment[name] !== undefined);
  const runtime = names.filter((name) => /^BUN_/.test(name) && !HARMLESS.includes(name));
  if (runtime.length > 0) {
    const found = `${runtime.join(", ")}: the runtime inside of ubiblk heeds it`;
    const advice = "unset it for backends (in a unit: UnsetEnvironment=)";
    yield { check, verdict: "warn", found, advice };
  }
  for (const [name, why] of Object.entries(UNUSUAL)) {
    if (environment[name] !== undefined && environment[name] !== "") {
      yield { check, verdict: "warn", found: `${name}: ${why}`, advice: `unset ${name}` };
    }
  }
  const level = environment.UBIBLK_LOG;
  if (level !== undefined && !LEVELS.includes(level)) {
    const found = `UBIBLK_LOG is ${JSON.stringify(level)}, which is no level`;
    yield { check, verdict: "warn", found, advice: "set it to error, warn, info or debug" };
  }
  if (runtime.length === 0) {
    yield { check, verdict: "ok", found: "no variable changes the runtime" };
  }
}

// --- internal ---

/** Where packages of developers lie, and where temporary files would. */
const HARMLESS = ["BUN_INSTALL", "BUN_TMPDIR"];
const LEVELS: readonly string[] = ["", ...LOG_LEVELS];
const UNUSUAL = {
  LD_PRELOAD: "a library of somebody else is loaded into processes with keys",
  UBIBLK_XTS_HIDE: "hides ciphers that this machine has; it is for tests",
};

async function libraryFinding(): Promise<Finding> {
  const check = "native library";
  const policy = systemText("/proc/sys/vm/memfd_noexec") ?? "not known to this kernel";
  try {
    const { nativeInheritance } = await import("../ffi/library.ts");
    nativeInheritance();
    return { check, verdict: "ok", found: `loaded (vm.memfd_noexec: ${policy})` };
  } catch (error) {
    return {
      check,
      verdict: "fail",
      found: errorText(error),
      advice: `vm.memfd_noexec is ${policy}; a container or a service manager may forbid it as well`,
    };
  }
}

async function hardeningFinding(): Promise<Finding> {
  const check = "keys in memory";
  const { hardenProcess } = await import("../ffi/process.ts");
  const result = hardenProcess();
  return result === 0
    ? { check, verdict: "ok", found: "core dumps and tracing by the same user can be turned off" }
    : {
        check,
        verdict: "warn",
        found: `core dumps and tracing cannot be turned off: ${errnoText(result)}`,
        advice: "allow prctl and setrlimit in the sandbox, or forbid core dumps there",
      };
}
