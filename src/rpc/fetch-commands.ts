/** Commands that steer the fetch of a disk's stripes, and what is told of it. */
import type { DiskStripes } from "../device/disk-stripes.ts";
import { UbiError } from "../errors.ts";

/** What the commands need of a disk. */
export type FetchControl = Pick<
  DiskStripes,
  "facts" | "pause" | "resume" | "limit" | "retryFailed"
>;

const FETCH_COMMANDS = ["pause_fetch", "resume_fetch", "retry_failed", "set_fetch_rate"] as const;

type FetchCommand = (typeof FETCH_COMMANDS)[number];

export function isFetchCommand(command: string): command is FetchCommand {
  return FETCH_COMMANDS.some((name) => name === command);
}

/**
 * Carries a command out; returns the facts as they are then.
 * @throws UbiError E_RPC_NO_FETCH, E_RPC_REQUEST
 */
export function commandFetch(
  fetch: FetchControl | undefined,
  command: FetchCommand,
  members: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  if (fetch === undefined) {
    const what = "this disk has no stripes to fetch";
    throw new UbiError("E_RPC_NO_FETCH", `nothing to fetch: ${what}`);
  }
  switch (command) {
    case "pause_fetch":
      fetch.pause();
      break;
    case "resume_fetch":
      fetch.resume();
      break;
    case "retry_failed":
      fetch.retryFailed();
      break;
    case "set_fetch_rate":
      fetch.limit(rateOf(members.bytes_per_second));
  }
  return fetchFacts(fetch);
}

/** Keys in alphabetical order. */
export function fetchFacts(fetch: FetchControl): Readonly<Record<string, unknown>> {
  const facts = fetch.facts;
  const limit = facts.limitBytesPerSecond;
  return {
    ahead_fetches: facts.aheadFetches,
    background_fetches: facts.backgroundFetches,
    bytes_per_second: facts.bytesPerSecond,
    demand_fetches: facts.demandFetches,
    eta_seconds: facts.etaSeconds ?? null,
    failed: facts.failed,
    failed_stripes: facts.failedStripes,
    failures: facts.failures,
    in_flight: facts.inFlight,
    limit_bytes_per_second: limit === Number.POSITIVE_INFINITY ? null : limit,
    paused: facts.isPaused,
    retries: facts.retries,
    source_bytes: facts.sourceBytes,
    source_state: facts.sourceState,
    stripe_bytes: facts.stripeBytes,
    unfetched: facts.unfetched,
    written: facts.written,
    zero_stripes: facts.zeroStripes,
  };
}

// --- internal ---

/** Null lifts the limit. */
function rateOf(value: unknown): number {
  if (value === null) {
    return Number.POSITIVE_INFINITY;
  }
  if (typeof value !== "number" || value < 1 || value > Number.MAX_SAFE_INTEGER) {
    throw new UbiError(
      "E_RPC_REQUEST",
      "invalid request: `bytes_per_second` must be a number of 1 or more, or null for no limit",
    );
  }
  return value;
}
