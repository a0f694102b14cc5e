/** Small files of /proc and /sys, which tell about the machine. */
import { readFileSync } from "node:fs";

/** The text without the blanks around it; undefined where it cannot be read: an older kernel, a container. */
export function systemText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

/** The choice in brackets: `madvise` of `always [madvise] never`. */
export function chosenOf(text: string | undefined): string | undefined {
  return /\[(\w+)\]/.exec(text ?? "")?.[1];
}

/** The number behind a name, as /proc/meminfo and /proc/self/status have them. */
export function numberNamed(text: string | undefined, name: string): number | undefined {
  const digits = new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(text ?? "")?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Whether this process has a capability, by its number in capabilities(7). */
export function hasCapability(number: number): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(systemText("/proc/self/status") ?? "")?.[1];
  return mask !== undefined && ((BigInt(`0x${mask}`) >> BigInt(number)) & 1n) === 1n;
}

export const CAPABILITY = { ipcLock: 14, systemAdministrator: 21 } as const;
