/** What the figures were measured on and with. */
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import packageJson from "../../package.json" with { type: "json" };
import { runCommand } from "../../scripts/command.ts";

export interface Machine {
  readonly processor: string;
  readonly processorCount: number;
  readonly processorFlags: readonly string[];
  readonly memoryGib: number;
  readonly cipherProvider: string;
  readonly kernel: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly loadAverage: string;
}

export async function describeMachine(cipherProvider: string): Promise<Machine> {
  const flags = /^flags\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
  const present = new Set(flags.split(" "));
  return {
    processor: cpus()[0]?.model ?? "unknown",
    processorCount: cpus().length,
    processorFlags: FLAGS_OF_INTEREST.filter((flag) => present.has(flag)),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    cipherProvider,
    kernel: release(),
    versions: {
      ubiblk: packageJson.version,
      bun: Bun.version,
      "qemu-storage-daemon": await versionOf("qemu-storage-daemon"),
      fio: await versionOf("fio"),
      gcc: await versionOf("gcc"),
    },
    loadAverage: readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).join(" "),
  };
}

/** Whether the processor has what the fastest cipher kernel needs. */
export function hasVaes512(machine: Machine): boolean {
  return ["vaes", "avx512f", "avx512bw", "vpclmulqdq"].every((flag) =>
    machine.processorFlags.includes(flag),
  );
}

export function machineText(machine: Machine): string {
  const versions = Object.entries(machine.versions).map((entry) => entry.join(" "));
  return [
    `${machine.processorCount} x ${machine.processor}, ${machine.memoryGib} GiB, Linux ${machine.kernel}`,
    `processor flags: ${machine.processorFlags.join(" ")}; load before: ${machine.loadAverage}`,
    `cipher provider: ${machine.cipherProvider}`,
    versions.join(", "),
  ].join("\n");
}

// --- internal ---

const FLAGS_OF_INTEREST = [
  "aes",
  "vaes",
  "pclmulqdq",
  "vpclmulqdq",
  "avx2",
  "avx512f",
  "avx512bw",
  "avx512dq",
  "avx512vl",
] as const;

async function versionOf(program: string): Promise<string> {
  const { stdout } = await runCommand([program, "--version"], { timeoutMs: 10_000 });
  return /\d+(\.\d+)+/.exec(stdout)?.[0] ?? "unknown";
}
