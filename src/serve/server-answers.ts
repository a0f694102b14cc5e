/** What a stripe server tells on its RPC socket (docs/rpc.md). Keys of objects stand in alphabetical order. */
import { STATUS } from "../formats/stripe-protocol.ts";
import { type ClientEntry, ServerCounter, type ServerStatistics } from "./server-statistics.ts";

/** Where the answers come from. */
export interface ServerFacts {
  readonly version: string;
  /** The disk, or the archive. */
  readonly serves: string;
  readonly stripeCount: number;
  readonly stripeBytes: number;
  /** Stripes that are to be had from the source only. */
  readonly fromSource: number;
  readonly sourceState: () => "none" | "open" | "retrying";
  readonly isTls: boolean;
  /** Where it listens; none before it does. */
  readonly listeners: () => readonly string[];
  readonly isDraining: () => boolean;
  readonly statistics: ServerStatistics;
  /** Asks for a clean stop, and returns before it. */
  readonly stop: () => void;
  /** How many stripes are in memory at once. */
  readonly bufferCount: number;
  /** The clock that the statistics are written with, and that time at the start. */
  readonly nowMs: () => number;
  readonly startMs: number;
}

type Answer = Readonly<Record<string, unknown>>;

/** Undefined for a command that no stripe server knows. */
export function serverAnswer(facts: ServerFacts, command: string): Answer | undefined {
  switch (command) {
    case "version":
      return { version: facts.version };
    case "status":
      return { status: statusOf(facts) };
    case "stats":
      return { stats: statsOf(facts) };
    case "clients":
      return { clients: facts.statistics.clients().map((client) => clientOf(facts, client)) };
    case "stop":
      facts.stop();
      return { stop: { stopping: true } };
    default:
      return undefined;
  }
}

// --- internal ---

function statusOf(facts: ServerFacts): Answer {
  return {
    draining: facts.isDraining(),
    listeners: facts.listeners(),
    serves: facts.serves,
    source_state: facts.sourceState(),
    stripe_bytes: facts.stripeBytes,
    stripes: { from_source: facts.fromSource, total: facts.stripeCount },
    tls: facts.isTls,
    uptime_seconds: Math.max(0, Math.floor((facts.nowMs() - facts.startMs) / 1000)),
  };
}

function statsOf({ statistics, stripeBytes, bufferCount }: ServerFacts): Answer {
  const counter = (which: keyof typeof ServerCounter) => statistics.counter(ServerCounter[which]);
  return {
    answers: {
      no_data: statistics.answers(STATUS.NO_DATA),
      not_fetched: statistics.answers(STATUS.NOT_FETCHED),
      out_of_range: statistics.answers(STATUS.OUT_OF_RANGE),
      server_error: statistics.answers(STATUS.SERVER_ERROR),
      stripes: counter("stripesSent"),
      unknown_opcode: statistics.answers(STATUS.UNKNOWN_OPCODE),
      zero: statistics.answers(STATUS.ZERO),
    },
    bytes_sent: counter("bytesSent"),
    connections: {
      accepted: counter("accepted"),
      dropped: counter("dropped"),
      handshake_failures: counter("handshakeFailures"),
      open: statistics.clients().length,
      refused: counter("refused"),
      waiting_for_memory: counter("waiting"),
    },
    memory: {
      in_use_bytes: counter("buffersInUse") * stripeBytes,
      limit_bytes: bufferCount * stripeBytes,
    },
    requests: {
      features: counter("featuresRequests"),
      hello: counter("helloRequests"),
      metadata: counter("metadataRequests"),
      metadata_digest: counter("digestRequests"),
      read: counter("readRequests"),
      read_sparse: counter("readSparseRequests"),
      unknown: counter("unknownRequests"),
    },
  };
}

function clientOf(facts: ServerFacts, client: ClientEntry): Answer {
  return {
    address: client.name,
    bytes_sent: client.bytesSent,
    idle_ms: Math.max(0, Math.round(facts.nowMs() - client.activeMs)),
    in_flight: client.inFlight,
    requests: client.requests,
    since: new Date(client.sinceMs).toISOString(),
    state: client.isServed ? "serving" : "handshake",
    tls: facts.isTls,
  };
}
