import { expect, test } from "bun:test";
import { DoubtfulWrites, Durability } from "./doubtful-writes.ts";
import { FlushGroup } from "./flush-group.ts";
import { Operation, Outcome, RequestTable } from "./request-table.ts";

test("a write that was under way when another queue's sync failed: the next flush fails, the one after it does not", () => {
  const queue = new Queue();
  const write = queue.take(Operation.write);
  expect(queue.otherFlush(false)).toBe(false);
  expect(queue.end(write)).toBe(Outcome.ok);
  expect([queue.otherFlush(true), queue.otherFlush(true)]).toEqual([false, true]);
});

test.each([
  { name: "a discard", operation: Operation.discard, isTold: true },
  { name: "a write of zeros", operation: Operation.writeZeroes, isTold: true },
  { name: "a read", operation: Operation.read, isTold: false },
  { name: "a flush", operation: Operation.flush, isTold: false },
])("$name: the next flush is told: $isTold", ({ operation, isTold }) => {
  const queue = new Queue();
  const slot = queue.take(operation);
  queue.otherFlush(false);
  queue.end(slot);
  expect(queue.otherFlush(true)).toBe(!isTold);
});

test("a write that failed itself is told already", () => {
  const queue = new Queue();
  const write = queue.take(Operation.write);
  queue.otherFlush(false);
  expect(queue.end(write, Outcome.ioError)).toBe(Outcome.ioError);
  expect(queue.otherFlush(true)).toBe(true);
});

test("what was answered before the failure was told, or taken behind it, is not doubtful", () => {
  const queue = new Queue();
  queue.end(queue.take(Operation.write));
  queue.otherFlush(false);
  queue.end(queue.take(Operation.write));
  expect(queue.otherFlush(true)).toBe(true);
});

test("each write that was under way is told of, however late it ends, and once", () => {
  const queue = new Queue();
  const writes = [0, 1].map(() => queue.take(Operation.write));
  queue.otherFlush(false);
  const told = writes.map((write) => {
    queue.end(write);
    return [queue.otherFlush(true), queue.otherFlush(true)];
  });
  expect(told).toEqual([
    [false, true],
    [false, true],
  ]);
  queue.end(queue.take(Operation.write)); // in the slot of one of them
  expect(queue.otherFlush(true)).toBe(true);
});

test("a failure that is told between the look and the answers is told again", () => {
  const queue = new Queue();
  const write = queue.take(Operation.write);
  queue.end(write, Outcome.ok, () => expect(queue.otherFlush(false)).toBe(false));
  expect(queue.otherFlush(true)).toBe(false);
});

test("a write that a sync was to make durable fails itself", () => {
  const queue = new Queue(Durability.bySync);
  const write = queue.take(Operation.write);
  queue.otherFlush(false);
  expect(queue.end(write)).toBe(Outcome.ioError);
  expect(queue.failed).toEqual([write]);
  expect(queue.otherFlush(true)).toBe(true);
});

test("a write that is durable by itself is not doubtful", () => {
  const queue = new Queue(Durability.byItself);
  const write = queue.take(Operation.write);
  queue.otherFlush(false);
  expect(queue.end(write)).toBe(Outcome.ok);
  expect(queue.otherFlush(true)).toBe(true);
});

// --- internal ---

/** Queue 0, with requests; and queue 1, which has flushes only. */
class Queue {
  readonly failed: number[] = [];
  readonly #requests = new RequestTable(4, 1);
  readonly #doubtful: DoubtfulWrites;
  readonly #other: FlushGroup;
  #answer = false;

  constructor(durability: number = Durability.byFlush) {
    const shared = new SharedArrayBuffer(FlushGroup.sharedBytes(2));
    const idle = { startSync: () => {}, finish: () => {}, wake: () => {}, noteFailure: () => {} };
    const finish = (_: number, isOk: boolean) => {
      this.#answer = isOk;
    };
    const group = { shared, queues: 2, slotsMax: 4 };
    this.#other = new FlushGroup({ ...group, queue: 1, host: { ...idle, finish } });
    this.#doubtful = new DoubtfulWrites({
      flushes: new FlushGroup({ ...group, queue: 0, host: idle }),
      requests: this.#requests,
      durabilityOf: () => durability,
      failed: (slot) => this.failed.push(slot),
    });
  }

  take(operation: number): number {
    this.#doubtful.look();
    const slot = this.#requests.take(1);
    this.#requests.operation[slot] = operation;
    return slot;
  }

  /** Returns what the guest is told. @param meanwhile between the look at failures and the answer */
  end(slot: number, outcome: number = Outcome.ok, meanwhile = () => {}): number | undefined {
    this.#requests.outcome[slot] = outcome;
    this.#doubtful.beforeAnswers(Int32Array.of(slot), 1);
    meanwhile();
    this.#requests.give(slot);
    this.#doubtful.afterAnswers();
    return this.#requests.outcome[slot];
  }

  /** A flush of queue 1, alone with its sync: whether it succeeds. */
  otherFlush(isOk: boolean): boolean {
    this.#other.request(0, true);
    this.#other.advance();
    this.#other.ended(isOk);
    return this.#answer;
  }
}
