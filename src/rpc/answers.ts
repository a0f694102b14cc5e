/**
 * What each command of a disk answers. Clients rely on the field names, units, error texts and the alphabetical
 * order of keys of `version`, `queues`, `stats` and of `stripes` in `status`: these never gain or lose a key.
 * New facts have commands of their own, and the fetch of stripes an object beside `stripes`.
 */
import type { StripeCounts } from "../device/disk-metadata.ts";
import {
  bucketLimitNs,
  Counter,
  LATENCY_OPERATIONS,
  percentileNs,
  type QueueStatistics,
} from "../device/queue-statistics.ts";
import type { RpcAnswer } from "./answer-lines.ts";
import { commandDisk, type DiskControl, isDiskCommand } from "./disk-commands.ts";
import { commandFetch, type FetchControl, fetchFacts, isFetchCommand } from "./fetch-commands.ts";
import { type LimitControl, limitFacts, setLimits } from "./limit-commands.ts";
import { type OverdueFacts, overdueAnswer, overdueInStatus } from "./overdue-answer.ts";
import type { Request } from "./request.ts";
import { ageNs, requestObject } from "./request-object.ts";

/** Entries of one queue that `requests` lists. */
export const REQUESTS_LISTED_MAX = 256;

/** Where the answers come from. */
export interface RpcFacts {
  readonly version: string;
  readonly queues: readonly QueueStatistics[];
  /** Undefined for a disk without metadata. */
  readonly stripes: () => StripeCounts | undefined;
  /** Undefined for a disk with nothing to fetch or track. */
  readonly fetch: () => FetchControl | undefined;
  readonly control: DiskControl;
  readonly limits: LimitControl;
  readonly overdue: OverdueFacts;
  /** The clock that the statistics were written with. */
  readonly nowNs: () => number;
}

/** Undefined for a command that no disk knows. @throws UbiError E_RPC_NO_FETCH, E_RPC_REQUEST; of a growth */
export function diskAnswer(
  facts: RpcFacts,
  request: Request,
): RpcAnswer | undefined | Promise<RpcAnswer> {
  const { command } = request;
  if (isFetchCommand(command)) {
    return { fetch: commandFetch(facts.fetch(), command, request.members) };
  }
  if (isDiskCommand(command)) {
    return commandDisk(facts.control, command, request.members);
  }
  switch (command) {
    case "version":
      return { version: facts.version };
    case "status":
      return {
        ...overdueInStatus(facts.overdue, facts.nowNs()),
        status: status(facts.stripes(), facts.fetch()),
      };
    case "overdue":
      return { overdue: overdueAnswer(facts.overdue, facts.nowNs()) };
    case "queues":
      return { queues: facts.queues.map(requestTuples) };
    case "stats":
      return { stats: { queues: facts.queues.map(operationCounts) } };
    case "statistics":
      return {
        statistics: { queues: facts.queues.map((queue) => allCounts(queue, facts)) },
      };
    case "limits":
      return { limits: limitFacts(facts.limits) };
    case "set_limits":
      return { limits: setLimits(facts.limits, request.members) };
    case "histograms":
      return { histograms: { queues: facts.queues.map(histograms) } };
    case "requests":
      return {
        requests: { queues: facts.queues.map((queue) => requestObjects(queue, facts.nowNs())) },
      };
    default:
      return undefined;
  }
}

// --- internal ---

function status(
  stripes: StripeCounts | undefined,
  fetch: FetchControl | undefined,
): RpcAnswer | null {
  if (stripes === undefined) {
    return null;
  }
  const { fetched, source, total } = stripes;
  return {
    ...(fetch === undefined ? {} : { fetch: fetchFacts(fetch) }),
    stripes: { fetched, source, total },
  };
}

/** Clients know reads, writes and flushes only: the other operations are left out. */
function requestTuples(queue: QueueStatistics): readonly unknown[] {
  const tuples: unknown[] = [];
  for (const { operation, sector, sectorCount } of queue.inFlight()) {
    if (operation === "flush") {
      tuples.push([operation]);
    } else if (operation === "read" || operation === "write") {
      tuples.push([operation, sector, sectorCount]);
    }
  }
  return tuples;
}

function operationCounts(queue: QueueStatistics): RpcAnswer {
  return {
    bytes_read: queue.counter(Counter.bytesRead),
    bytes_written: queue.counter(Counter.bytesWritten),
    flush_ops: queue.counter(Counter.flushOps),
    read_ops: queue.counter(Counter.readOps),
    write_ops: queue.counter(Counter.writeOps),
  };
}

function allCounts(queue: QueueStatistics, facts: RpcFacts): RpcAnswer {
  const nowNs = facts.nowNs();
  const started = queue.inFlight().map((entry) => entry.startedNs);
  return {
    bad_chains: queue.counter(Counter.badChains),
    bytes_read: queue.counter(Counter.bytesRead),
    bytes_written: queue.counter(Counter.bytesWritten),
    calls: queue.counter(Counter.calls),
    completed: queue.counter(Counter.completed),
    discard_ops: queue.counter(Counter.discardOps),
    failed: queue.counter(Counter.failed),
    flush_ops: queue.counter(Counter.flushOps),
    in_flight: queue.counter(Counter.inFlight),
    kicks: queue.counter(Counter.kicks),
    latency: latencySummary(queue),
    oldest_in_flight_ns:
      started.length === 0
        ? null
        : ageNs(
            nowNs,
            started.reduce((a, b) => Math.min(a, b)),
          ),
    overdue: started.filter((startedNs) => facts.overdue.isOverdue(startedNs, nowNs)).length,
    read_ops: queue.counter(Counter.readOps),
    stopped: queue.counter(Counter.stopped),
    write_ops: queue.counter(Counter.writeOps),
    write_zeroes_ops: queue.counter(Counter.writeZeroesOps),
  };
}

function latencySummary(queue: QueueStatistics): RpcAnswer {
  return byOperation((operation) => {
    const counts = queue.latencies(operation);
    return {
      count: counts.reduce((sum, count) => sum + count, 0),
      p50_ns: percentileNs(counts, 0.5) ?? null,
      p99_ns: percentileNs(counts, 0.99) ?? null,
      sum_ns: Math.round(queue.latencySumNs(operation)),
    };
  });
}

/** Pairs of a bucket's limit and its count; empty buckets are left out. */
function histograms(queue: QueueStatistics): RpcAnswer {
  return byOperation((operation) => {
    const pairs: (readonly [number, number])[] = [];
    for (const [bucket, count] of queue.latencies(operation).entries()) {
      if (count > 0) {
        pairs.push([bucketLimitNs(bucket), count]);
      }
    }
    return pairs;
  });
}

function byOperation(
  value: (operation: (typeof LATENCY_OPERATIONS)[number]) => unknown,
): RpcAnswer {
  const names = [...LATENCY_OPERATIONS].sort();
  return Object.fromEntries(names.map((operation) => [operation, value(operation)]));
}

/** The oldest requests first. */
function requestObjects(queue: QueueStatistics, nowNs: number): readonly RpcAnswer[] {
  return queue
    .inFlight()
    .toSorted((a, b) => a.startedNs - b.startedNs)
    .slice(0, REQUESTS_LISTED_MAX)
    .map((entry) => requestObject(entry, nowNs));
}
