import { expect, test } from "bun:test";
import { QueueMeeting } from "./queue-meeting.ts";

test("whoever comes last goes on at once, and so does the only one", () => {
  const shared = new SharedArrayBuffer(QueueMeeting.SHARED_BYTES);
  Atomics.store(new Int32Array(shared), 0, 2); // two others have come
  new QueueMeeting(shared, 3).come(0);
  new QueueMeeting(new SharedArrayBuffer(QueueMeeting.SHARED_BYTES), 1).come(0);
});

test("who waits for one that does not come gives up in time", () => {
  const meeting = new QueueMeeting(new SharedArrayBuffer(QueueMeeting.SHARED_BYTES), 2);
  expect(() => meeting.come(5)).toThrow("another queue was not ready in time");
});
