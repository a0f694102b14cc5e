import { expect, test } from "bun:test";
import { OPCODE, STATUS } from "../formats/stripe-protocol.ts";
import { ServerCounter, ServerStatistics } from "./server-statistics.ts";

/** The server's side and a reader's, in one memory. */
function twoSides(placesMax: number) {
  const writer = ServerStatistics.create(placesMax);
  return { writer, reader: ServerStatistics.attach(writer.shared, placesMax) };
}

test("nobody has come: no client, and all counters are zero", () => {
  const { reader } = twoSides(3);
  expect(reader.clients()).toEqual([]);
  expect(Object.values(ServerCounter).map((which) => reader.counter(which))).toEqual(
    new Array<number>(Object.keys(ServerCounter).length).fill(0),
  );
});

test("a client: what it asks for and gets is counted for it and for all", () => {
  const { writer, reader } = twoSides(3);
  const beforeMs = Date.now();
  const client = writer.open(2, "192.0.2.7:4711", 100);
  expect(reader.clients()).toMatchObject([{ isServed: false, activeMs: 100, requests: 0 }]);
  client.begin();
  for (const opcode of [...Object.values(OPCODE), OPCODE.READ, 0xaa]) {
    client.request(opcode, 200);
  }
  client.sent(1000, 300);
  client.sent(33, 350);
  client.answered(STATUS.OK, true);
  client.answered(STATUS.OK, false);
  client.answered(STATUS.ZERO, false);
  client.answered(STATUS.NO_DATA, false);
  client.setInFlight(4);
  const [entry, ...more] = reader.clients();
  expect(more).toEqual([]);
  expect(entry).toEqual({
    name: "192.0.2.7:4711",
    sinceMs: entry?.sinceMs ?? 0,
    activeMs: 350,
    isServed: true,
    requests: 8,
    bytesSent: 1033,
    inFlight: 4,
  });
  expect(entry?.sinceMs).toBeWithin(beforeMs, Date.now() + 1);
  expect(reader.counter(ServerCounter.readRequests)).toBe(2);
  expect(reader.counter(ServerCounter.readSparseRequests)).toBe(1);
  expect(reader.counter(ServerCounter.unknownRequests)).toBe(1);
  expect(reader.counter(ServerCounter.bytesSent)).toBe(1033);
  expect(reader.counter(ServerCounter.stripesSent)).toBe(1);
  expect([STATUS.OK, STATUS.ZERO, STATUS.NO_DATA].map((each) => reader.answers(each))).toEqual([
    0, 1, 1,
  ]);
});

test("who comes to the place of another begins anew; the counters of all go on", () => {
  const { writer, reader } = twoSides(2);
  const first = writer.open(0, "first, with a long name", 1);
  first.request(OPCODE.HELLO, 5);
  writer.close(0);
  expect(reader.clients()).toEqual([]);
  writer.open(0, "second", 9);
  expect(reader.clients()).toMatchObject([{ name: "second", requests: 0, activeMs: 9 }]);
  expect(reader.counter(ServerCounter.accepted)).toBe(2);
  expect(reader.counter(ServerCounter.helloRequests)).toBe(1);
});

test("places are apart: the last one's name and counts touch no other's", () => {
  const { writer, reader } = twoSides(4);
  const long = "x".repeat(300);
  for (const place of [0, 1, 2, 3]) {
    writer.open(place, `${place}${long}`, place).sent(place, place);
  }
  writer.close(1);
  expect(reader.clients().map(({ bytesSent }) => bytesSent)).toEqual([0, 2, 3]);
  expect(reader.clients().map(({ name }) => name)).toEqual(
    ["0", "2", "3"].map((place) => `${place}${long}`.slice(0, 127)),
  );
});
