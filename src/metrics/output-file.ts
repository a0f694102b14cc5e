/**
 * The file that metrics are written to, for node_exporter's textfile collector: what is there is replaced as a whole,
 * so that nobody reads half of it. The collector reads what ends with `.prom`; the name beside it does not.
 */
import { randomBytes } from "node:crypto";
import { renameSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";

/** @throws UbiError E_METRICS; what is there stays then, and nothing is left beside it */
export function replaceFile(path: string, text: string): void {
  const temporaryPath = `${path}.${randomBytes(6).toString("hex")}.new`;
  try {
    const existing = statSync(path, { throwIfNoEntry: false });
    if (existing !== undefined && !existing.isFile()) {
      throw new Error("it is not a regular file; leave --output out to write to standard output");
    }
    writeFileSync(temporaryPath, text, { mode: 0o644, flag: "wx" });
    renameSync(temporaryPath, path);
  } catch (error) {
    removeIfThere(temporaryPath);
    const message = `cannot write metrics to ${path}: ${errorText(error)}`;
    throw new UbiError("E_METRICS", message, { cause: error });
  }
}

// --- internal ---

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // it was not made, or its folder is gone: the failure itself is told
  }
}
