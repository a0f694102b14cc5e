import { afterEach, beforeEach, expect, test } from "bun:test";
import { drainEvent, signalEvent } from "../ffi/event.ts";
import { CompletionList } from "./completion-list.ts";
import { RequestBoard, type SharedBoard } from "./request-board.ts";

const REQUESTS = 8;
/** No memory is touched by a board. */
const ADDRESS = 0x1000;

let shared: SharedBoard;
let client: RequestBoard;
let worker: RequestBoard;

beforeEach(() => {
  shared = RequestBoard.create(REQUESTS, 1);
  client = new RequestBoard(shared);
  worker = new RequestBoard(shared);
});

afterEach(() => {
  RequestBoard.close(shared);
});

test("a request is taken once, with its stripe and address", () => {
  client.post(3, 2 ** 40, ADDRESS, true);
  expect(worker.take()).toBe(3);
  expect([worker.stripe(3), worker.address(3)]).toEqual([2 ** 40, ADDRESS]);
  expect(worker.take()).toBe(-1);
});

test("requests of one kind are taken in the order they came, whatever their ids", () => {
  for (const id of [5, 0, 7, 2]) {
    client.post(id, id, ADDRESS, false);
  }
  expect(takeAll()).toEqual([5, 0, 7, 2]);
});

test("what somebody waits for is taken before what was queued earlier", () => {
  client.post(0, 0, ADDRESS, false);
  client.post(1, 1, ADDRESS, false);
  client.post(2, 2, ADDRESS, true);
  client.post(3, 3, ADDRESS, true);
  expect(takeAll()).toEqual([2, 3, 0, 1]);
});

test("a queued request that somebody comes to wait for overtakes the others", () => {
  client.post(0, 0, ADDRESS, false);
  client.post(1, 1, ADDRESS, false);
  client.raise(1);
  expect(takeAll()).toEqual([1, 0]);
});

test("what a worker puts back is taken again in its old place, or before others when somebody waits by now", () => {
  for (const id of [5, 0, 7, 2]) {
    client.post(id, id, ADDRESS, false);
  }
  const lost = [worker.take(), worker.take()];
  expect(lost).toEqual([5, 0]);
  expect(worker.queuedCount).toBe(2);
  for (const id of lost) {
    worker.putBack(id);
  }
  expect(worker.queuedCount).toBe(4);
  client.raise(0);
  client.post(3, 3, ADDRESS, true);
  expect(takeAll()).toEqual([0, 3, 5, 7, 2]);
});

test("ends come back with their results, each once, and the id is free again", () => {
  client.post(1, 1, ADDRESS, false);
  client.post(4, 4, ADDRESS, false);
  worker.finish(worker.take(), 0);
  worker.finish(worker.take(), -74);
  const ends = new CompletionList(REQUESTS);
  expect(client.hasDone).toBe(true);
  client.takeDone(ends);
  expect(listed(ends)).toEqual([
    [1, 0],
    [4, -74],
  ]);
  expect(client.hasDone).toBe(false);
  client.takeDone(ends);
  expect(ends.count).toBe(2);
  client.post(1, 9, ADDRESS, false);
  expect(worker.take()).toBe(1);
});

test("a request under way is not posted again", () => {
  client.post(1, 1, ADDRESS, false);
  expect(() => client.post(1, 2, ADDRESS, false)).toThrow("an id is under way once");
});

test("the client's eventfd is readable from an end until the ends were taken", () => {
  client.post(1, 1, ADDRESS, false);
  worker.finish(worker.take(), 0);
  client.takeDone(new CompletionList(REQUESTS));
  expect(drainEvent(shared.doneFd)).toBe(0);
  client.post(1, 1, ADDRESS, false);
  worker.finish(worker.take(), 0);
  expect(drainEvent(shared.doneFd)).toBe(1);
});

test("a signal that comes after its end was taken does not stay", () => {
  client.post(1, 1, ADDRESS, false);
  worker.finish(worker.take(), 0);
  const ends = new CompletionList(REQUESTS);
  client.takeDone(ends);
  signalEvent(shared.doneFd); // as late as it may come: nothing was done since
  client.takeDone(ends);
  expect(drainEvent(shared.doneFd)).toBe(0);
});

test("workers are woken by the client: those that poll, and those that wait", async () => {
  const { generation } = worker;
  const isAwake = worker.work(generation).then(() => true);
  client.post(0, 0, ADDRESS, false);
  client.wakeWorkers();
  expect(await isAwake).toBe(true);
  expect(drainEvent(shared.workerFds[0] ?? -1)).toBe(1);
});

test("a worker that looked before something was queued does not sleep", async () => {
  const { generation } = worker;
  client.post(0, 0, ADDRESS, false);
  client.wakeWorkers();
  await worker.work(generation);
  expect(worker.take()).toBe(0);
});

test("a client that waits wakes when something is done, also when that was before", async () => {
  client.post(0, 0, ADDRESS, false);
  const isDone = client.nextDone().then(() => true);
  worker.finish(worker.take(), 0);
  expect(await isDone).toBe(true);
  await client.nextDone();
  client.takeDone(new CompletionList(REQUESTS));
  expect(client.hasDone).toBe(false);
});

test("a stopped board gives nothing out any more, and takes the ends of what was taken", () => {
  client.post(0, 0, ADDRESS, false);
  client.post(1, 1, ADDRESS, false);
  const taken = worker.take();
  client.stop();
  expect(worker.isStopped).toBe(true);
  expect(worker.take()).toBe(-1);
  worker.finish(taken, -125);
  const ends = new CompletionList(REQUESTS);
  client.takeDone(ends);
  expect(listed(ends)).toEqual([[0, -125]]);
});

test("retries and trouble of workers are seen by the client", () => {
  worker.noteRetry();
  worker.setTroubled(true);
  expect([client.retries, client.isTroubled]).toEqual([1, true]);
  worker.setTroubled(false);
  expect(client.isTroubled).toBe(false);
});

// --- internal ---

function takeAll(): number[] {
  const ids: number[] = [];
  for (let id = worker.take(); id >= 0; id = worker.take()) {
    ids.push(id);
  }
  return ids;
}

function listed(ends: CompletionList): number[][] {
  return Array.from({ length: ends.count }, (_, i) => [ends.id(i), ends.result(i)]);
}
