/** What a stripe server does: its clients, their requests, and the memory that stripes take. */
import { amountOf, recordOf } from "../top/json-reader.ts";
import { isOfStripeServer } from "../top/reading.ts";
import {
  type Answers,
  type MetricFamily,
  type MetricSample,
  sampleOf,
  samplesBy,
  statesOf,
} from "./family.ts";

const SOURCE_STATES = ["none", "open", "retrying"] as const;

export const SERVER_FAMILIES: readonly MetricFamily[] = [
  {
    name: "ubiblk_server_requests",
    type: "counter",
    help: "Requests of clients, by opcode.",
    samples: (answers) => amounts("request", part(answers, "requests")),
  },
  {
    name: "ubiblk_server_answers",
    type: "counter",
    help: "Answers to reads: whole stripes, zeros, and those that are a status only.",
    samples: (answers) => amounts("answer", part(answers, "answers")),
  },
  {
    name: "ubiblk_server_sent_bytes",
    type: "counter",
    unit: "bytes",
    help: "Bytes of all answers, without what TLS adds.",
    samples: (answers) => sampleOf(amountOf(statsOf(answers).bytes_sent)),
  },
  connectionCounter("accepted", "Connections that were accepted."),
  connectionCounter("refused", "Connections that were refused for max_connections."),
  connectionCounter("dropped", "Connections that were dropped for what clients did or did not do."),
  connectionCounter(
    "handshake_failures",
    "Clients with a wrong key, strangers, and too slow ones.",
  ),
  connectionGauge("open", "Connections that are open now."),
  connectionGauge("waiting_for_memory", "Clients that wait for memory for a stripe now."),
  memoryGauge("in_use_bytes", "ubiblk_server_memory_bytes", "Memory that stripes take now."),
  memoryGauge("limit_bytes", "ubiblk_server_memory_limit_bytes", "Memory that stripes may take."),
  {
    name: "ubiblk_server_stripes",
    type: "gauge",
    help: "Stripes that are served.",
    samples: (answers) => sampleOf(amountOf(stripesOf(answers).total)),
  },
  {
    name: "ubiblk_server_stripes_from_source",
    type: "gauge",
    help: "Stripes that the server itself has to get from its source.",
    samples: (answers) => sampleOf(amountOf(stripesOf(answers).from_source)),
  },
  {
    name: "ubiblk_server_draining",
    type: "gauge",
    help: "1 while the server stops, else 0.",
    samples: (answers) => {
      const { draining } = statusOf(answers);
      return typeof draining === "boolean" ? sampleOf(draining ? 1 : 0) : [];
    },
  },
  {
    name: "ubiblk_server_source_state",
    type: "gauge",
    help: "How the source of the server is: 1 for the state it is in.",
    samples: (answers) => statesOf("state", SOURCE_STATES, statusOf(answers).source_state),
  },
];

// --- internal ---

function connectionCounter(key: string, help: string): MetricFamily {
  const samples = (answers: Answers) => sampleOf(amountOf(part(answers, "connections")[key]));
  return { name: `ubiblk_server_connections_${key}`, type: "counter", help, samples };
}

function connectionGauge(key: string, help: string): MetricFamily {
  return { ...connectionCounter(key, help), type: "gauge" };
}

function memoryGauge(key: string, name: string, help: string): MetricFamily {
  const samples = (answers: Answers) => sampleOf(amountOf(part(answers, "memory")[key]));
  return { name, type: "gauge", unit: "bytes", help, samples };
}

/** Nothing for a disk, which has a `stats` of its own. */
function statsOf(answers: Answers): Readonly<Record<string, unknown>> {
  return isOfStripeServer(answers) ? recordOf(answers.get("stats")?.stats) : {};
}

function part(answers: Answers, key: string): Readonly<Record<string, unknown>> {
  return recordOf(statsOf(answers)[key]);
}

function statusOf(answers: Answers): Readonly<Record<string, unknown>> {
  return isOfStripeServer(answers) ? recordOf(answers.get("status")?.status) : {};
}

function stripesOf(answers: Answers): Readonly<Record<string, unknown>> {
  return recordOf(statusOf(answers).stripes);
}

/** All that a server counts, by its own names; no more than it may have. */
function amounts(
  label: string,
  values: Readonly<Record<string, unknown>>,
): readonly MetricSample[] {
  const known = Object.entries(values).slice(0, NAMES_MAX);
  return samplesBy(
    label,
    Object.fromEntries(known.map(([name, value]) => [name, amountOf(value)])),
  );
}

const NAMES_MAX = 32;
