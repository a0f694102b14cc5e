/** CPU time of the process that is measured. */
import { errnoText, UbiError } from "../errors.ts";
import { processCpuNs } from "../ffi/process.ts";

/** Nanoseconds that all threads of a process have used. @throws UbiError E_BENCH when there is no such process */
export function backendCpuNs(pid: number): number {
  const cpuNs = processCpuNs(pid);
  if (cpuNs < 0) {
    throw new UbiError(
      "E_BENCH",
      `cannot read the CPU time of process ${pid}: ${errnoText(cpuNs)}`,
    );
  }
  return cpuNs;
}
