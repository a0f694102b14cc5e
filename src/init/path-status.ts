/** What is at a path, for paths that a person gave. */
import { type BigIntStats, lstatSync, statSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";

/** Undefined when there is nothing. @throws UbiError E_INIT when that cannot be told */
export function pathStatus(path: string): BigIntStats | undefined {
  return told(path, () => statSync(path, { bigint: true }));
}

/** Whether there is anything of that name, also a link that leads nowhere. @throws UbiError E_INIT */
export function isTaken(path: string): boolean {
  return told(path, () => lstatSync(path, { bigint: true })) !== undefined;
}

// --- internal ---

function told(path: string, look: () => BigIntStats): BigIntStats | undefined {
  try {
    return look();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ENOTDIR") {
      return undefined;
    }
    throw new UbiError("E_INIT", `cannot look at ${path}: ${errorText(error)}`, { cause: error });
  }
}
