/** Limits of the process. */
import type { Finding } from "./finding.ts";
import { CAPABILITY, hasCapability, systemText } from "./system-file.ts";

export function* examineLimits(): Generator<Finding> {
  const limits = systemText("/proc/self/limits");
  yield userFinding(process.geteuid?.() ?? -1, hasCapability(CAPABILITY.systemAdministrator));
  yield lockedMemoryFinding({
    limitBytes: softLimit(limits, "Max locked memory"),
    isUnlimited: hasCapability(CAPABILITY.ipcLock),
  });
  yield descriptorFinding(softLimit(limits, "Max open files"));
}

export function userFinding(uid: number, isAdministrator: boolean): Finding {
  const may = isAdministrator ? "" : ", without CAP_SYS_ADMIN (ublk devices need it)";
  const who = uid === 0 ? "root" : `user ${uid}`;
  return { check: "user", verdict: "ok", found: `${who}${may}` };
}

/** Bounce buffers are registered with io_uring, which counts them as locked memory. */
export function lockedMemoryFinding(facts: {
  readonly limitBytes: number | undefined;
  readonly isUnlimited: boolean;
}): Finding {
  const check = "locked memory";
  if (facts.isUnlimited) {
    return { check, verdict: "ok", found: "no limit (CAP_IPC_LOCK)" };
  }
  const { limitBytes } = facts;
  if (limitBytes === undefined) {
    return { check, verdict: "skip", found: "/proc/self/limits cannot be read" };
  }
  const found = limitBytes === Infinity ? "no limit" : `${Math.round(limitBytes / 1024)} KiB`;
  if (limitBytes >= BUFFERS_BYTES) {
    return { check, verdict: "ok", found };
  }
  return {
    check,
    verdict: "warn",
    found: `${found}: a busy disk cannot register all its buffers with io_uring`,
    advice: `allow ${BUFFERS_BYTES / 2 ** 20} MiB: LimitMEMLOCK= of a unit, ulimit -l`,
  };
}

export function descriptorFinding(limit: number | undefined): Finding {
  const check = "open files";
  if (limit === undefined) {
    return { check, verdict: "skip", found: "/proc/self/limits cannot be read" };
  }
  const found = limit === Infinity ? "no limit" : `up to ${limit}`;
  return limit < DESCRIPTORS_MIN
    ? { check, verdict: "warn", found, advice: `allow ${DESCRIPTORS_MIN}: LimitNOFILE=, ulimit -n` }
    : { check, verdict: "ok", found };
}

/** The soft limit of a line of /proc/self/limits. */
export function softLimit(text: string | undefined, name: string): number | undefined {
  const line = text?.split("\n").find((each) => each.startsWith(name));
  const value = line?.slice(name.length).trim().split(/\s+/)[0];
  return value === undefined ? undefined : value === "unlimited" ? Infinity : Number(value);
}

// --- internal ---

/** Of all queues of a disk together, and of its stripe worker. */
const BUFFERS_BYTES = 96 * 2 ** 20;
/** 63 queues with their events and a guest's memory, and the connections of a stripe source. */
const DESCRIPTORS_MIN = 1024;
