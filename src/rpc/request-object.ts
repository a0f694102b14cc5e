/** A request in flight, as answers tell of it. */
import type { InFlightEntry } from "../device/queue-statistics.ts";
import type { RpcAnswer } from "./answer-lines.ts";

export function requestObject(entry: InFlightEntry, nowNs: number): RpcAnswer {
  const { operation, sector, sectorCount, startedNs } = entry;
  const age_ns = ageNs(nowNs, startedNs);
  return operation === "flush"
    ? { age_ns, operation }
    : { age_ns, operation, sector, sectors: sectorCount };
}

/** A request may have begun after the clock was read. */
export function ageNs(nowNs: number, startedNs: number): number {
  return Math.max(0, Math.round(nowNs - startedNs));
}
