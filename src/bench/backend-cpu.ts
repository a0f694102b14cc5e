/**
 * CPU time that a process has used, from /proc: in nanoseconds as the sum over its threads, and in clock
 * ticks for the whole process. The ticks also count threads that ended meanwhile; whichever of both
 * shows clearly more is right.
 */
import { readdirSync, readFileSync } from "node:fs";
import { errorText, UbiError } from "../errors.ts";

/** USER_HZ is 100 on every Linux. */
const TICK_NS = 1e7;
/** Four counters (user and system time at both ends) are each cut to whole ticks. */
const TICK_ERROR_NS = 4 * TICK_NS;

export interface CpuReading {
  readonly threadsNs: number;
  readonly ticksNs: number;
}

/** @throws UbiError E_BENCH when there is no such process */
export function readBackendCpu(pid: number): CpuReading {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    const threadsNs = threads.reduce((sum, thread) => sum + threadCpuNs(pid, thread), 0);
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1")
      .replace(/^.*\) /s, "")
      .split(" ");
    const ticksNs = (Number(fields[11]) + Number(fields[12])) * TICK_NS;
    return { threadsNs, ticksNs };
  } catch (error) {
    throw new UbiError("E_BENCH", `cannot read the CPU time of ${pid}: ${errorText(error)}`);
  }
}

/** CPU time between two readings, nanoseconds. */
export function cpuBetweenNs(before: CpuReading, after: CpuReading): number {
  const threadsNs = after.threadsNs - before.threadsNs;
  const ticksNs = after.ticksNs - before.ticksNs;
  return ticksNs - TICK_ERROR_NS > threadsNs ? ticksNs : threadsNs;
}

// --- internal ---

function threadCpuNs(pid: number, thread: string): number {
  try {
    const text = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1");
    return Number(text.split(" ")[0]);
  } catch (error) {
    const isGone = error instanceof Error && "code" in error;
    if (isGone && (error.code === "ENOENT" || error.code === "ESRCH")) {
      return 0; // the thread ended after it was listed
    }
    throw error;
  }
}
