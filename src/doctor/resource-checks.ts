/** What the configuration takes of the machine, against what there is. */
import { availableParallelism } from "node:os";
import { allowedCpus } from "../config/allowed-cpus.ts";
import type { DeviceConfig } from "../config/index.ts";
import type { CheckContext } from "./check-context.ts";
import type { Finding } from "./finding.ts";
import { memoryNeed } from "./memory-need.ts";
import { sizeText } from "./size-text.ts";
import { numberNamed, systemText } from "./system-file.ts";

export async function* examineResources(context: CheckContext): AsyncGenerator<Finding> {
  const config = await context.config();
  const { numQueues, cpus } = config.tuning;
  yield queueFinding(numQueues, availableParallelism());
  if (cpus !== undefined) {
    yield pinningFinding(cpus, allowedCpus());
  }
  const available = numberNamed(systemText("/proc/meminfo"), "MemAvailable");
  if (available !== undefined) {
    yield memoryFinding(await memoryBytes(config), available * 1024);
  }
}

export function queueFinding(queues: number, cpus: number): Finding {
  const check = "queues";
  const found = `${queues} for ${cpus} CPUs`;
  return queues > cpus
    ? { check, verdict: "warn", found, advice: "more queues than CPUs only cost memory" }
    : { check, verdict: "ok", found };
}

export function pinningFinding(
  cpus: readonly number[],
  allowed: ReadonlySet<number> | undefined,
): Finding {
  const check = "cpus";
  const absent = cpus.filter((cpu) => allowed !== undefined && !allowed.has(cpu));
  return absent.length === 0
    ? { check, verdict: "ok", found: `threads are pinned to ${cpus.join(", ")}` }
    : {
        check,
        verdict: "warn",
        found: `this process may not run on CPU ${absent.join(", ")}`,
        advice: "mend tuning.cpus, or CPUAffinity= and AllowedCPUs= of the unit",
      };
}

export function memoryFinding(neededBytes: number, availableBytes: number): Finding {
  const check = "memory";
  const found = `up to ${sizeText(neededBytes)} under load, ${sizeText(availableBytes)} are available`;
  return neededBytes > availableBytes
    ? { check, verdict: "warn", found, advice: "free memory, or take fewer queues" }
    : { check, verdict: "ok", found };
}

// --- internal ---

/** Of the program itself, and of each thread. */
const PROCESS_BYTES = 48 * 2 ** 20;
const THREAD_BYTES = 6 * 2 ** 20;

/** The most that a backend takes. */
async function memoryBytes(config: DeviceConfig): Promise<number> {
  const backend = config.device.vhostSocket === undefined ? "ublk" : "vhost";
  const need = await memoryNeed({ device: config, server: undefined, backend });
  return PROCESS_BYTES + config.tuning.numQueues * THREAD_BYTES + (need?.total ?? 0);
}
