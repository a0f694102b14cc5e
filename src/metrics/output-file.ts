/**
 * The file that metrics are written to, for node_exporter's textfile collector: what is there is replaced as a whole,
 * so that nobody reads half of it. The collector reads what ends with `.prom`; the name beside it does not.
 */
import { closeSync, fchmodSync, renameSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { makeUnfinished, type UnfinishedFile } from "../copy/unfinished-file.ts";
import { errorText, UbiError } from "../errors.ts";

/**
 * What killed runs left beside the file goes as well: they come every minute.
 * @throws UbiError E_METRICS; what is there stays then, and nothing is left beside it
 */
export function replaceFile(path: string, text: string): void {
  let unfinished: UnfinishedFile | undefined;
  try {
    const existing = statSync(path, { throwIfNoEntry: false });
    if (existing !== undefined && !existing.isFile()) {
      throw new Error("it is not a regular file; leave --output out to write to standard output");
    }
    unfinished = makeUnfinished(path);
    writeFileSync(unfinished.fd, text);
    fchmodSync(unfinished.fd, FILE_MODE & ~process.umask()); // the collector is another user
    renameSync(unfinished.path, path);
  } catch (error) {
    if (unfinished !== undefined) {
      removeIfThere(unfinished.path);
    }
    const message = `cannot write metrics to ${path}: ${errorText(error)}`;
    throw new UbiError("E_METRICS", message, { cause: error });
  } finally {
    if (unfinished !== undefined) {
      closeSync(unfinished.fd);
    }
  }
}

// --- internal ---

const FILE_MODE = 0o644;

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // it was not made, or its folder is gone: the failure itself is told
  }
}
