/** What virtual machines on this host want: ubiblk itself needs none of it, so what is missing is a warning. */
import { accessSync, constants, statfsSync } from "node:fs";
import type { Finding } from "./finding.ts";
import { sizeText } from "./size-text.ts";
import { chosenOf, numberNamed, systemText } from "./system-file.ts";

export function* examineGuests(): Generator<Finding> {
  yield kvmFinding(accessOf("/dev/kvm"));
  yield hugePageFinding({
    shared: chosenOf(systemText("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
    memory: systemText("/proc/meminfo"),
  });
  yield sharedMemoryFinding(freeBytes("/dev/shm"));
}

export function kvmFinding(access: "granted" | "denied" | "absent"): Finding {
  const check = "kvm";
  switch (access) {
    case "granted":
      return { check, verdict: "ok", found: "/dev/kvm can be used" };
    case "denied":
      return {
        check,
        verdict: "warn",
        found: "/dev/kvm may not be used by this user",
        advice: "join the group kvm, for those who start guests",
      };
    case "absent":
      return {
        check,
        verdict: "warn",
        found: "there is no /dev/kvm: guests would be emulated, slowly",
        advice: "modprobe kvm_intel or kvm_amd; turn virtualisation on in the firmware",
      };
  }
}

/** Guest memory is shared memory, whose huge pages are set apart from those of other memory. */
export function hugePageFinding(facts: {
  readonly shared: string | undefined;
  readonly memory: string | undefined;
}): Finding {
  const total = numberNamed(facts.memory, "HugePages_Total") ?? 0;
  const free = numberNamed(facts.memory, "HugePages_Free") ?? 0;
  const size = numberNamed(facts.memory, "Hugepagesize") ?? 0;
  const reserved =
    total === 0 ? "none reserved" : `${free} of ${total} reserved ones free (${size} KiB)`;
  const shared = facts.shared ?? "not known to this kernel";
  const found = `${reserved}; transparent ones for shared memory: ${shared}`;
  return { check: "huge pages", verdict: "ok", found };
}

/** @param free undefined when there is no such file system */
export function sharedMemoryFinding(free: number | undefined): Finding {
  const check = "shared memory";
  return free === undefined
    ? {
        check,
        verdict: "warn",
        found: "there is no /dev/shm",
        advice: "guests whose memory is a file there do not start; memory from memfd does without",
      }
    : { check, verdict: "ok", found: `${sizeText(free)} free in /dev/shm` };
}

// --- internal ---

function accessOf(path: string): "granted" | "denied" | "absent" {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return "granted";
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    return code === "EACCES" || code === "EPERM" ? "denied" : "absent";
  }
}

function freeBytes(path: string): number | undefined {
  try {
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize;
  } catch {
    return undefined;
  }
}
