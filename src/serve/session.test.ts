import { expect, test } from "bun:test";
import {
  expectedAnswer,
  LIMITS,
  SessionWorld,
  STRIPE_BYTES,
} from "../../tests/support/session-world.ts";
import { WANT_READ } from "../ffi/byte-stream.ts";
import { ServerCounter } from "./server-statistics.ts";

const READ_0 = [1, 0, 0, 0, 0, 0, 0, 0, 0];
const READ_1 = [1, 1, 0, 0, 0, 0, 0, 0, 0];
const EIO = -5;

test("a handshake that takes too long ends the session, however often it goes on", () => {
  using world = new SessionWorld();
  world.stream.handshakeResult = WANT_READ;
  for (let nowMs = 0; nowMs < LIMITS.handshakeMs; nowMs += 10) {
    world.turn(nowMs);
    expect(world.session.end).toBeUndefined();
  }
  world.turn(LIMITS.handshakeMs);
  expect(world.session.end?.reason).toContain("handshake took too long");
});

test("a request's time runs from its first byte, and not from its last", () => {
  using world = new SessionWorld();
  world.turn(0);
  for (const [i, byte] of READ_0.slice(0, 8).entries()) {
    world.stream.incoming.push(byte);
    world.turn(100 + i * 110);
    expect(world.session.end).toBeUndefined();
  }
  expect(world.session.dueMs).toBe(100 + LIMITS.answerMs);
  world.turn(100 + LIMITS.answerMs);
  expect(world.session.end?.reason).toContain("did not become whole");
});

test("a client that asks for nothing is let go after the idle time", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(0x02);
  world.turn(10);
  expect(world.session.dueMs).toBe(10 + LIMITS.idleMs);
  world.turn(10 + LIMITS.idleMs);
  expect(world.session.end).toEqual({ isFailure: false, reason: "it was idle" });
});

test("a read that does not end is answered with ff, and its buffer stays with the disk", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...READ_0, 0x02);
  world.turn(0);
  world.turn(LIMITS.answerMs);
  expect(world.stream.sent).toEqual([0xff]);
  expect(world.session.takeFailure()).toContain("not read in time");
  const free = world.reads.count - 1;
  expect(freeBuffers(world)).toBe(free);
  world.disk.finish(0);
  world.reads.advance();
  expect(freeBuffers(world)).toBe(free + 1);
});

test("a failed read: answers before it are sent, ff is the last, and what follows is not read", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...READ_0, ...READ_1, ...READ_0, 0x02);
  world.turn(0);
  world.source.finish(0, EIO);
  world.turn(1);
  expect(world.stream.sent).toEqual([]);
  world.disk.finish(0);
  world.turn(2);
  expect(world.stream.sent).toEqual([...expectedAnswer(READ_0), 0xff]);
  world.stream.isOver = true;
  world.turn(3);
  expect(world.session.end?.isFailure).toBe(false);
});

test("answers keep the order of the requests, whichever read ends first", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...READ_0, 0x02, ...READ_1);
  world.turn(0);
  world.source.finish(0);
  world.turn(1);
  expect(world.stream.sent).toEqual([]);
  world.disk.finish(0);
  world.turn(2);
  expect(world.stream.sent).toEqual([READ_0, [0x02], READ_1].flatMap(expectedAnswer));
});

test("a client that takes an answer byte by byte is dropped when the whole takes too long", () => {
  using world = new SessionWorld();
  world.stream.room = 0;
  world.stream.incoming.push(...READ_0);
  world.turn(0);
  world.disk.finish(0);
  world.turn(0);
  const wholeMs = LIMITS.answerMs + (STRIPE_BYTES + 9) / 64;
  let nowMs = 0;
  for (; nowMs < wholeMs; nowMs += 200) {
    world.stream.room = 1;
    world.turn(nowMs);
    expect(world.session.end).toBeUndefined();
  }
  world.stream.room = 1;
  world.turn(nowMs);
  expect(world.session.end).toEqual({
    isFailure: true,
    reason: "it takes its answers too slowly",
  });
});

test("no more is read than can be answered, and reading goes on when answers are taken", () => {
  using world = new SessionWorld();
  world.stream.room = 0;
  world.stream.incoming.push(...Array.from({ length: 10_000 }, () => 0xaa));
  world.turn(0);
  expect(world.stream.incoming.length).toBeGreaterThan(5000);
  expect(world.session.events).toBe(4); // POLLOUT
  world.stream.room = Number.POSITIVE_INFINITY;
  for (let nowMs = 1; nowMs < 1 + 10_000 / 256; nowMs++) {
    world.turn(nowMs);
  }
  expect(world.stream.sent.length).toBe(10_000);
});

test("a stop: answers under way are sent, later requests are not taken", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...READ_0);
  world.turn(0);
  world.session.stop(1);
  world.stream.incoming.push(0x02);
  world.disk.finish(0);
  world.turn(2);
  expect(world.stream.sent).toEqual([...expectedAnswer(READ_0)]);
  world.turn(2 + 500);
  expect(world.session.end?.isFailure).toBe(false);
});

test("a client that has sent its last request still gets its answers", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...READ_0, 0x01);
  world.stream.isOver = true;
  world.turn(0);
  expect(world.session.end).toBeUndefined();
  world.disk.finish(0);
  world.turn(1);
  expect(world.stream.sent).toEqual([...expectedAnswer(READ_0)]);
  expect(world.session.end).toEqual({ isFailure: false, reason: "the client left" });
});

test("a flood of requests: a turn answers some hundreds, and says that there is more", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...Array.from({ length: 100_000 }, () => 0xaa));
  let before = 0;
  for (let nowMs = 0; nowMs < 10; nowMs++) {
    expect(world.session.advance(nowMs, 1)).toBe(true);
    expect(world.stream.sent.length - before).toBeWithin(1, 257);
    before = world.stream.sent.length;
  }
});

test("a client that sends on behind its last answer: read some kilobytes a turn, and ended in time", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...READ_0);
  world.turn(0);
  world.turn(LIMITS.answerMs);
  expect(world.stream.sent).toEqual([0xff]);
  world.stream.incoming.push(...Array.from({ length: 100_000 }, () => 0xaa));
  const left = world.stream.incoming.length;
  expect(world.session.advance(LIMITS.answerMs + 1, 1)).toBe(true);
  expect(left - world.stream.incoming.length).toBeWithin(4096, 50_000);
  expect(world.session.advance(LIMITS.answerMs + 500, 1)).toBe(false);
  expect(world.session.end?.isFailure).toBe(false);
});

test("the same stripe twice: read once, answered twice", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...READ_0, ...READ_0);
  world.turn(0);
  expect(world.disk.underWay.length).toBe(1);
  world.disk.finish(0);
  world.turn(1);
  expect(world.stream.sent).toEqual([READ_0, READ_0].flatMap(expectedAnswer));
  expect(freeBuffers(world)).toBe(world.reads.count);
});

test("the same stripe of zeros twice: both answers say so", () => {
  using world = new SessionWorld();
  const readZeros = [0x11, 3, 0, 0, 0, 0, 0, 0, 0];
  world.stream.incoming.push(...readZeros, ...readZeros);
  world.turn(0);
  world.disk.finish(0);
  world.turn(1);
  expect(world.stream.sent).toEqual([0x10, 0x10]);
  expect(freeBuffers(world)).toBe(world.reads.count);
});

test("the same stripe twice, and its read fails: one ff, and no buffer is lost", () => {
  using world = new SessionWorld();
  world.stream.incoming.push(...READ_0, ...READ_0, 0x02);
  world.turn(0);
  world.disk.finish(0, EIO);
  world.turn(1);
  expect(world.stream.sent).toEqual([0xff]);
  expect(freeBuffers(world)).toBe(world.reads.count);
});

test("a read that its owner gave up: who asks for the stripe next gets that read, also without a free buffer", () => {
  using world = new SessionWorld();
  const { reads, disk } = world;
  const ended: number[] = [];
  const owner = { readEnded: (buffer: number) => void ended.push(buffer) };
  const buffer = reads.begin(0, "disk", owner);
  reads.free(buffer, owner);
  for (let stripe = FIRST_FREE; reads.begin(stripe, "disk", owner) >= 0; stripe++) {}
  expect(reads.hasFreeBuffers).toBe(false);
  const other = { readEnded: (mine: number) => void ended.push(-mine - 1) };
  expect(reads.begin(0, "disk", other)).toBe(buffer);
  expect(disk.underWay.filter(({ stripe }) => stripe === 0).length).toBe(1);
  disk.finish(0);
  reads.advance();
  expect(ended).toEqual([-buffer - 1]);
});

/** A stripe that no test asks for. */
const FIRST_FREE = 8;

/** Takes all that are free, and gives them back. */
function freeBuffers({ reads, disk }: SessionWorld): number {
  const owner = { readEnded: (buffer: number) => reads.free(buffer, owner) };
  let count = 0;
  while (reads.begin(FIRST_FREE + count, "disk", owner) >= 0) {
    count += 1;
  }
  for (let i = 0; i < count; i++) {
    disk.finish(disk.underWay.length - 1);
  }
  reads.advance();
  return count;
}

test("requests, answers and bytes are counted, and so is what is under way", () => {
  using world = new SessionWorld();
  const client = () => world.statistics.clients()[0];
  expect(client()).toMatchObject({ isServed: false, requests: 0 });
  world.stream.incoming.push(...READ_0, 0x02, 0xaa, ...READ_1);
  world.turn(7);
  expect(client()).toMatchObject({ isServed: true, requests: 4, inFlight: 4, bytesSent: 0 });
  world.disk.finish(0);
  world.turn(9);
  const sent = 9 + STRIPE_BYTES + 5 + 1;
  expect(client()).toMatchObject({ inFlight: 1, bytesSent: sent, activeMs: 9 });
  world.source.finish(0, EIO);
  world.turn(11);
  expect(client()).toMatchObject({ inFlight: 0, bytesSent: sent + 1 });
  const { statistics } = world;
  expect(statistics.counter(ServerCounter.stripesSent)).toBe(1);
  expect(statistics.counter(ServerCounter.bytesSent)).toBe(sent + 1);
  expect(statistics.counter(ServerCounter.readRequests)).toBe(2);
  expect(statistics.answers(0xfe)).toBe(1);
  expect(statistics.answers(0xff)).toBe(1);
  expect(statistics.answers(0x00)).toBe(0);
});
