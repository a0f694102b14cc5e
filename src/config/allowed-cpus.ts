/** Tells on which CPUs this process may run. */
import { readFileSync } from "node:fs";

/** The CPU numbers of the affinity mask, or nothing where the kernel does not tell. */
export function allowedCpus(): ReadonlySet<number> | undefined {
  let status: string;
  try {
    status = readFileSync("/proc/self/status", "utf8");
  } catch {
    return undefined;
  }
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1];
  return list === undefined ? undefined : parseCpuList(list);
}

/** `0-2,5` to 0, 1, 2, 5. */
export function parseCpuList(list: string): ReadonlySet<number> {
  const cpus = new Set<number>();
  for (const range of list.split(",")) {
    const [first, last = first] = range.split("-").map(Number);
    for (let cpu = first ?? 0; cpu <= (last ?? -1); cpu += 1) {
      cpus.add(cpu);
    }
  }
  return cpus;
}
