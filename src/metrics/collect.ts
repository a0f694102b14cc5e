/** Asks running backends and stripe servers over their RPC sockets, once, all at a time. */
import { resolve } from "node:path";
import { UbiError } from "../errors.ts";
import { RpcConnection } from "../top/connection.ts";
import { findSockets, parseSocketNames } from "../top/socket-paths.ts";
import { identityOf } from "./device-metrics.ts";
import type { Labels } from "./family.ts";
import { METRIC_COMMANDS, type MetricTarget } from "./text.ts";

/** Sockets of one call. */
const SOCKETS_MAX = 1024;

/** So long a process may take to answer; it takes well below a millisecond. */
const TIMEOUT_MS = 5_000;
/** Connections that are open at a time. */
const CONNECTIONS_MAX = 64;

/** A socket to ask, with what is known of who is there. */
export interface MetricSocket {
  readonly path: string;
  readonly labels: Labels;
}

export interface CollectedTarget extends MetricTarget {
  readonly path: string;
  /** Why it did not answer. */
  readonly reason: string | undefined;
}

/**
 * The sockets that names mean now: paths, lists with commas, and patterns, which may mean none.
 * @throws UbiError E_USAGE
 */
export function namedSockets(names: readonly string[]): readonly MetricSocket[] {
  return findSockets(parseSocketNames(names)).map((path) => ({ path: resolve(path), labels: {} }));
}

/** One target for each socket, in their order. @throws UbiError E_USAGE for too many */
export async function collect(
  sockets: readonly MetricSocket[],
): Promise<readonly CollectedTarget[]> {
  if (sockets.length > SOCKETS_MAX) {
    const message = `${sockets.length} sockets; at most ${SOCKETS_MAX} are asked at once`;
    throw new UbiError("E_USAGE", message);
  }
  const targets: CollectedTarget[] = [];
  for (let first = 0; first < sockets.length; first += CONNECTIONS_MAX) {
    const some = sockets.slice(first, first + CONNECTIONS_MAX);
    targets.push(...(await Promise.all(some.map(askOne))));
  }
  return targets;
}

// --- internal ---

async function askOne({ path, labels }: MetricSocket): Promise<CollectedTarget> {
  try {
    using connection = await RpcConnection.open(path, TIMEOUT_MS);
    const { answers } = await connection.ask(METRIC_COMMANDS, TIMEOUT_MS);
    const identity = identityOf(answers);
    return { path, labels: { ...labels, ...identity, socket: path }, answers, reason: undefined };
  } catch (error) {
    if (!(error instanceof UbiError)) {
      throw error;
    }
    const target = { path, labels: { ...labels, socket: path } };
    return { ...target, answers: undefined, reason: error.message };
  }
}
