/** Every command's answer, byte for byte, on statistics made by hand. */
import { expect, test } from "bun:test";
import { OPCODE, STATUS } from "../formats/stripe-protocol.ts";
import { type ServerFacts, serverAnswer } from "./server-answers.ts";
import { ServerCounter, ServerStatistics } from "./server-statistics.ts";

function makeFacts(more: Partial<ServerFacts> = {}): ServerFacts {
  return {
    version: "1.2.3",
    serves: "/disks/a.raw",
    stripeCount: 40,
    stripeBytes: 1000,
    fromSource: 7,
    sourceState: () => "retrying",
    isTls: true,
    listeners: () => ["127.0.0.1:7777", "/run/a.sock"],
    isDraining: () => false,
    statistics: ServerStatistics.create(2),
    stop: () => {},
    bufferCount: 64,
    nowMs: () => 12_345.6,
    startMs: 2_000,
    ...more,
  };
}

const ask = (facts: ServerFacts, command: string) => JSON.stringify(serverAnswer(facts, command));

test("version: the one given", () => {
  expect(ask(makeFacts(), "version")).toBe('{"version":"1.2.3"}');
});

test("status: what is served and how it stands", () => {
  expect(ask(makeFacts(), "status")).toBe(
    '{"status":{"draining":false,"listeners":["127.0.0.1:7777","/run/a.sock"],"serves":"/disks/a.raw",' +
      '"source_state":"retrying","stripe_bytes":1000,"stripes":{"from_source":7,"total":40},"tls":true,' +
      '"uptime_seconds":10}}',
  );
});

test("stats: all counters", () => {
  const facts = makeFacts();
  const { statistics } = facts;
  const client = statistics.open(0, "a", 0);
  client.request(OPCODE.READ, 1);
  client.request(OPCODE.METADATA, 1);
  client.sent(1009, 1);
  client.answered(STATUS.OK, true);
  client.answered(STATUS.SERVER_ERROR, false);
  statistics.count(ServerCounter.refused, 2);
  statistics.count(ServerCounter.handshakeFailures);
  statistics.set(ServerCounter.buffersInUse, 3);
  statistics.set(ServerCounter.waiting, 1);
  expect(ask(facts, "stats")).toBe(
    '{"stats":{"answers":{"no_data":0,"not_fetched":0,"out_of_range":0,"server_error":1,"stripes":1,"unknown_opcode":0,' +
      '"zero":0},"bytes_sent":1009,"connections":{"accepted":1,"dropped":0,"handshake_failures":1,"open":1,"refused":2,' +
      '"waiting_for_memory":1},"memory":{"in_use_bytes":3000,"limit_bytes":64000},"requests":{"features":0,"hello":0,' +
      '"metadata":1,"metadata_digest":0,"read":1,"read_sparse":0,"unknown":0}}}',
  );
});

test("clients: each that is connected, with what it did and since when", () => {
  const facts = makeFacts({ isTls: false });
  const client = facts.statistics.open(1, '[::1]:80"', 12_000);
  client.setInFlight(2);
  expect(ask(facts, "clients")).toMatch(
    /^{"clients":\[{"address":"\[::1\]:80\\"","bytes_sent":0,"idle_ms":346,"in_flight":2,"requests":0,"since":"20\d\d-\d\d-\d\dT[\d:.]+Z","state":"handshake","tls":false}\]}$/,
  );
  client.begin();
  expect(ask(facts, "clients")).toContain('"state":"serving"');
});

test("keys of every object stand in alphabetical order", () => {
  const facts = makeFacts();
  facts.statistics.open(0, "a", 0);
  for (const command of ["status", "stats", "clients"]) {
    for (const keys of keysIn(serverAnswer(facts, command))) {
      expect(keys).toEqual([...keys].sort());
    }
  }
});

test("commands of disks, and others, are not known", () => {
  for (const command of ["queues", "statistics", "pause_fetch", "", "__proto__"]) {
    expect(serverAnswer(makeFacts(), command)).toBeUndefined();
  }
});

function keysIn(value: unknown): readonly string[][] {
  if (typeof value !== "object" || value === null) {
    return [];
  }
  const own = Array.isArray(value) ? [] : [Object.keys(value)];
  return [...own, ...Object.values(value).flatMap(keysIn)];
}
