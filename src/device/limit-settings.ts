/** The limits of a disk as they are set, in the order of `LIMITS`. */
import type { DeviceConfig } from "../config/index.ts";
import { LIMITS, type Limit } from "../config/limit-rules.ts";

export type LimitSettings = readonly Limit[];

export const NO_LIMITS: LimitSettings = LIMITS.map(() => ({
  perSecond: undefined,
  burst: undefined,
}));

/** What may go at once, as it is set or by itself; undefined without a limit. */
export function burstOf({ perSecond, burst }: Limit): number | undefined {
  return perSecond === undefined
    ? undefined
    : (burst ?? Math.max(1, Math.floor(perSecond * BURST_SECONDS)));
}

/** The limits that a document sets. */
export function configuredLimits({ limits }: Pick<DeviceConfig, "limits">): LimitSettings {
  return [
    { perSecond: limits.iops, burst: limits.iopsBurst },
    { perSecond: limits.readIops, burst: limits.readIopsBurst },
    { perSecond: limits.writeIops, burst: limits.writeIopsBurst },
    { perSecond: limits.bytesPerSecond, burst: limits.bytesBurst },
    { perSecond: limits.readBytesPerSecond, burst: limits.readBytesBurst },
    { perSecond: limits.writeBytesPerSecond, burst: limits.writeBytesBurst },
  ];
}

// --- internal ---

/** As QEMU does: without any burst a guest that pauses for a moment would never reach its limit. */
const BURST_SECONDS = 0.1;
