/** What the command `process` answers, of whatever process: what it costs its machine, and since when. */
import { readdirSync, readFileSync } from "node:fs";
import type { RpcAnswer } from "./answer-lines.ts";

/** Undefined for any other command. Keys in alphabetical order. */
export function processAnswer(command: string): RpcAnswer | undefined {
  if (command !== "process") {
    return undefined;
  }
  const { user, system } = process.cpuUsage();
  return {
    process: {
      cpu_seconds: (user + system) / 1e6,
      open_files: openFiles(),
      open_files_max: openFilesMax(),
      pid: process.pid,
      resident_bytes: process.memoryUsage.rss(),
      start_time_seconds: Math.round(performance.timeOrigin) / 1000,
    },
  };
}

// --- internal ---

/** Null where there is no /proc. */
function openFiles(): number | null {
  try {
    return readdirSync("/proc/self/fd").length - 1; // less the one of the folder itself
  } catch {
    return null;
  }
}

/** Null where it is not known, and for no limit. */
function openFilesMax(): number | null {
  try {
    const soft = /^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1];
    return soft === undefined ? null : Number(soft);
  } catch {
    return null; // no /proc
  }
}
