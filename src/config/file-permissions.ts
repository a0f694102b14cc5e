/** Judges who else may read or change a file that holds keys or decides over them. */
import type { Stats } from "node:fs";

export interface PermissionProblem {
  /** Someone else can change the file: it is refused. Otherwise someone else can read it: a warning. */
  readonly isFatal: boolean;
  readonly message: string;
}

/** Judges an opened file. Only regular files count: the mode of a terminal or pipe says little. */
export function permissionProblem(file: string, stats: Stats): PermissionProblem | undefined {
  if (!stats.isFile()) {
    return undefined;
  }
  const mode = (stats.mode & 0o7777).toString(8).padStart(4, "0");
  if ((stats.mode & 0o022) !== 0) {
    const message = `${file}: mode ${mode} lets other users change it; use 0600`;
    return { isFatal: true, message };
  }
  if ((stats.mode & 0o077) !== 0) {
    return { isFatal: false, message: `${file}: mode ${mode} lets other users read it; use 0600` };
  }
  const userId = process.geteuid?.();
  if (stats.uid !== 0 && userId !== undefined && stats.uid !== userId) {
    const message = `${file}: belongs to user ${stats.uid}, who can change it; use your own file`;
    return { isFatal: false, message };
  }
  return undefined;
}
