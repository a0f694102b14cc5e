/** Kernel, processors, clock, memory and swap. */
import type { Finding } from "./finding.ts";
import { sizeText } from "./size-text.ts";
import { numberNamed, systemText } from "./system-file.ts";

export function* examineMachine(): Generator<Finding> {
  yield kernelFinding(systemText("/proc/sys/kernel/osrelease"));
  yield processorFinding(systemText("/proc/cpuinfo"));
  yield clockFinding(systemText(`${CLOCK}/current_clocksource`), new Date());
  yield memoryFinding({
    memory: systemText("/proc/meminfo"),
    limit: systemText("/sys/fs/cgroup/memory.max"),
  });
  yield swapFinding(systemText("/proc/swaps"), isEnciphered);
}

export function kernelFinding(release: string | undefined): Finding {
  const check = "kernel";
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release ?? "") ?? [];
  const version = Number(major) * 1000 + Number(minor);
  const found = `Linux ${release ?? "of an unknown version"}`;
  if (version < 5013) {
    const advice =
      "Linux 5.13 or later has all of io_uring that is used; without it disks are slower";
    return { check, verdict: "warn", found, advice };
  }
  return { check, verdict: "ok", found };
}

export function processorFinding(text: string | undefined): Finding {
  const model = /^model name\s*:\s*(.*)$/m.exec(text ?? "")?.[1] ?? "unknown model";
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(text ?? "")?.[1]?.split(" "));
  const present = Object.entries(FLAG_NAMES).filter(([flag]) => flags.has(flag));
  const names =
    present.length === 0 ? "no AES instructions" : present.map(([, name]) => name).join(", ");
  const count = (text?.match(/^processor\s*:/gm) ?? []).length;
  const shown = count === 1 ? "1 CPU" : `${count} CPUs`;
  return { check: "processors", verdict: "ok", found: `${shown}, ${model}: ${names}` };
}

export function clockFinding(source: string | undefined, now: Date): Finding {
  const check = "clock";
  const found = `${now.toISOString().slice(0, 19)}Z, source ${source ?? "unknown"}`;
  if (now.getUTCFullYear() < YEAR_MIN) {
    const advice = "set the clock: S3 services and certificates are refused with a wrong time";
    return { check, verdict: "warn", found, advice };
  }
  if (source !== undefined && SLOW_CLOCKS.includes(source)) {
    const advice =
      "this clock is slow to read, each request reads it; see clocksource= of the kernel";
    return { check, verdict: "warn", found, advice };
  }
  return { check, verdict: "ok", found };
}

/** @param facts /proc/meminfo, and the limit of the control group where it has one */
export function memoryFinding(facts: {
  readonly memory: string | undefined;
  readonly limit: string | undefined;
}): Finding {
  const check = "memory";
  const total = numberNamed(facts.memory, "MemTotal");
  const available = numberNamed(facts.memory, "MemAvailable");
  if (total === undefined || available === undefined) {
    return { check, verdict: "skip", found: "/proc/meminfo cannot be read" };
  }
  const limit = Number(facts.limit);
  const limited = Number.isFinite(limit) ? `, this control group has ${sizeText(limit)}` : "";
  const found = `${sizeText(available * 1024)} of ${sizeText(total * 1024)} available${limited}`;
  return available * 1024 < AVAILABLE_BYTES_MIN
    ? {
        check,
        verdict: "warn",
        found,
        advice: "a backend needs about 100 MiB, some more with lazy stripes",
      }
    : { check, verdict: "ok", found };
}

/** @param isSafe whether what is written to a swap device is enciphered, or stays in memory */
export function swapFinding(text: string | undefined, isSafe: (path: string) => boolean): Finding {
  const check = "swap";
  const places = (text ?? "")
    .split("\n")
    .slice(1)
    .map((line) => line.split(/\s+/)[0] ?? "")
    .filter((path) => path !== "");
  const open = places.filter((path) => !isSafe(path));
  if (open.length > 0) {
    const found = `${open.join(", ")}: keys in memory may be written there in the clear`;
    const advice = "encipher the swap space, or turn it off (swapoff)";
    return { check, verdict: "warn", found, advice };
  }
  const found = places.length === 0 ? "none" : `${places.join(", ")}, enciphered or in memory`;
  return { check, verdict: "ok", found };
}

// --- internal ---

const CLOCK = "/sys/devices/system/clocksource/clocksource0";
const YEAR_MIN = 2025;
const SLOW_CLOCKS: readonly string[] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];
const AVAILABLE_BYTES_MIN = 128 * 2 ** 20;
const FLAG_NAMES: Readonly<Record<string, string>> = {
  aes: "AES-NI",
  vaes: "VAES",
  vpclmulqdq: "VPCLMULQDQ",
  avx512f: "AVX-512",
};

/** dm-crypt, or compressed memory. */
function isEnciphered(path: string): boolean {
  const name = path.split("/").at(-1) ?? "";
  const uuid = systemText(`/sys/class/block/${name}/dm/uuid`);
  const backing = systemText(`/sys/class/block/${name}/backing_dev`) ?? "none";
  return uuid?.startsWith("CRYPT-") === true || (/^zram\d+$/.test(name) && backing === "none");
}
