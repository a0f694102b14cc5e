import { expect, test } from "bun:test";
import { QueueMeeting } from "./queue-meeting.ts";

test("whoever comes last goes on at once, and so does the only one", () => {
  const shared = new SharedArrayBuffer(QueueMeeting.SHARED_BYTES);
  Atomics.store(new Int32Array(shared), 0, 2); // two others have come
  new QueueMeeting(shared, 3).come(0);
  new QueueMeeting(new SharedArrayBuffer(QueueMeeting.SHARED_BYTES), 1).come(0);
});

test("queues meet again", () => {
  const shared = new SharedArrayBuffer(QueueMeeting.SHARED_BYTES);
  const word = new Int32Array(shared);
  const meeting = new QueueMeeting(shared, 2);
  Atomics.store(word, 0, 1); // the other has come
  meeting.come(0);
  expect(() => meeting.come(5)).toThrow("another queue was not ready in time");
  const again = new QueueMeeting(shared, 2);
  Atomics.store(word, 0, 2); // the other has come twice
  again.come(0);
  again.come(0);
});

test("who waits for one that does not come gives up in time", () => {
  const meeting = new QueueMeeting(new SharedArrayBuffer(QueueMeeting.SHARED_BYTES), 2);
  expect(() => meeting.come(5)).toThrow("another queue was not ready in time");
});

test("where one has given up, nobody passes who comes later", () => {
  const shared = new SharedArrayBuffer(QueueMeeting.SHARED_BYTES);
  expect(() => new QueueMeeting(shared, 2).come(0)).toThrow("another queue was not ready");
  expect(() => new QueueMeeting(shared, 2).come(60_000)).toThrow("another queue was not ready");
});

test("where one has failed, nobody waits for it", () => {
  const shared = new SharedArrayBuffer(QueueMeeting.SHARED_BYTES);
  new QueueMeeting(shared, 2).fail();
  expect(() => new QueueMeeting(shared, 2).come(60_000)).toThrow("or has failed");
});
