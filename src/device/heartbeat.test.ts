import { afterEach, expect, test } from "bun:test";
import { createEvent, drainEvent } from "../ffi/event.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import { Heartbeat, Pulse } from "./heartbeat.ts";

const fds: number[] = [];
afterEach(() => {
  for (const fd of fds.splice(0)) {
    closeDescriptor(fd);
  }
});

const beating = (...names: readonly string[]) => {
  const heartbeat = new Heartbeat();
  const threads = names.map((name) => {
    const wakeFd = createEvent();
    fds.push(wakeFd);
    return { wakeFd, pulse: new Pulse(heartbeat.add(name, wakeFd)) };
  });
  return { heartbeat, threads };
};

test("nobody is silent before anybody was asked", () => {
  expect(beating("a", "b").heartbeat.silent()).toEqual([]);
});

test("a question wakes every thread, and who has not answered is silent", () => {
  const { heartbeat, threads } = beating("a", "b");
  heartbeat.ask();
  expect(threads.map(({ wakeFd }) => drainEvent(wakeFd))).toEqual([1, 1]);
  threads[1]?.pulse.answer();
  expect(heartbeat.silent()).toEqual(["a"]);
  threads[0]?.pulse.answer();
  expect(heartbeat.silent()).toEqual([]);
});

test("an answer to one question is none to the next", () => {
  const { heartbeat, threads } = beating("a");
  heartbeat.ask();
  threads[0]?.pulse.answer();
  heartbeat.ask();
  expect(heartbeat.silent()).toEqual(["a"]);
});

test("who is excused is not silent until the excuse ends", () => {
  const { heartbeat, threads } = beating("a");
  threads[0]?.pulse.excuse(60_000);
  heartbeat.ask();
  expect(heartbeat.silent()).toEqual([]);
  threads[0]?.pulse.excuse(0);
  expect(heartbeat.silent()).toEqual(["a"]);
});

test("a thread that is added later owes no answer to an earlier question", () => {
  const { heartbeat } = beating();
  heartbeat.ask();
  const wakeFd = createEvent();
  fds.push(wakeFd);
  heartbeat.add("late", wakeFd);
  expect(heartbeat.silent()).toEqual([]);
});
