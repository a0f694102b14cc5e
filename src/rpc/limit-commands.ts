/** Commands that tell and change the limits of a disk. */
import { burstMistake, LIMIT_BYTES_MIN, LIMITS, type Limit } from "../config/limit-rules.ts";
import { nearestName } from "../config/nearest-name.ts";
import type { DiskLimits } from "../device/disk-limits.ts";
import { burstOf } from "../device/limit-settings.ts";
import { UbiError } from "../errors.ts";

/** What the commands need of a disk. */
export type LimitControl = Pick<DiskLimits, "settings" | "waits" | "set">;

/**
 * Changes those limits that `members` names; the others stay. Nothing changes when one is refused. Returns the facts
 * as they are then.
 * @throws UbiError E_RPC_REQUEST
 */
export function setLimits(
  limits: LimitControl,
  members: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  for (const name of Object.keys(members)) {
    if (name !== "command" && !NAMES.includes(name)) {
      throw refusal(`\`${name}\` is no limit${hintFor(name)}`);
    }
  }
  limits.set(LIMITS.map((names, i) => changed(names, limits.settings[i], members)));
  return limitFacts(limits);
}

/** Keys in alphabetical order. */
export function limitFacts(limits: LimitControl): Readonly<Record<string, unknown>> {
  const facts: [string, unknown][] = LIMITS.flatMap(({ rate, burst }, i) => {
    const limit = limits.settings[i] ?? NO_LIMIT;
    return [
      [rate, limit.perSecond ?? null],
      [burst, burstOf(limit) ?? null],
    ];
  });
  facts.push(["queues", limits.waits.map(queueFacts)]);
  return Object.fromEntries(facts.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

// --- internal ---

const NO_LIMIT: Limit = { perSecond: undefined, burst: undefined };
const NAMES: readonly string[] = LIMITS.flatMap(({ rate, burst }) => [rate, burst]);

/** One limit after the change. Without a limit there is no burst. */
function changed(
  { rate, burst }: (typeof LIMITS)[number],
  before: Limit = NO_LIMIT,
  members: Readonly<Record<string, unknown>>,
): Limit {
  const perSecond = wishOf(members, rate, before.perSecond);
  const isLifted = perSecond === undefined && members[burst] === undefined;
  const limit = {
    perSecond,
    burst: isLifted ? undefined : wishOf(members, burst, before.burst),
  };
  const mistake = burstMistake(limit, `\`${rate}\``);
  if (mistake !== undefined) {
    throw refusal(`\`${burst}\`: ${mistake}`);
  }
  return limit;
}

/** Null lifts it; a member that was not sent leaves it as it was. */
function wishOf(
  members: Readonly<Record<string, unknown>>,
  name: string,
  before: number | undefined,
): number | undefined {
  const value = members[name];
  if (value === undefined) {
    return before;
  }
  if (value === null) {
    return undefined;
  }
  const least = name.includes("bytes") ? LIMIT_BYTES_MIN : 1;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least) {
    throw refusal(`\`${name}\` must be a whole number of ${least} or more, or null for none`);
  }
  return value;
}

function queueFacts(waits: LimitControl["waits"][number]): Readonly<Record<string, number>> {
  return {
    read_throttled_ns: Math.round(waits.readThrottledNs),
    reads_throttled: waits.readsThrottled,
    write_throttled_ns: Math.round(waits.writeThrottledNs),
    writes_throttled: waits.writesThrottled,
  };
}

function hintFor(name: string): string {
  const nearest = nearestName(name, NAMES);
  return nearest === undefined
    ? `; there are ${NAMES.join(", ")}`
    : `; did you mean \`${nearest}\`?`;
}

function refusal(what: string): UbiError {
  return new UbiError("E_RPC_REQUEST", `invalid request: ${what}`);
}
