/** Descriptors of the front end that may block whoever signals them, at any time: the thread of messages never does. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { writeSync } from "node:fs";
import { SessionFrontEnd } from "../../tests/support/session-front-end.ts";
import { createEvent, drainEvent } from "../ffi/event.ts";
import { createSharedMemory } from "../ffi/memory.ts";
import {
  bitMask,
  encodeInflight,
  encodeU64,
  encodeVringState,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../formats/vhost-user.ts";

/** What one more does not fit on. */
const FULL = encodeU64(0xffff_ffff_ffff_fffen);
const STOP = encodeVringState({ index: 0, value: 0 });

let frontEnd: SessionFrontEnd;

beforeEach(() => {
  frontEnd = new SessionFrontEnd();
  frontEnd.negotiate();
});

afterEach(() => frontEnd.close());

/** Passes an eventfd for ring 0, which stays readable here for as long as the session has it. */
function give(request: number, fd = createEvent()): number {
  expect(frontEnd.handle(request, encodeU64(0n), [fd])).toBeUndefined();
  return fd;
}

test("a ring that an earlier backend may have left is called by its queue", () => {
  frontEnd.send(
    REQUEST.SET_PROTOCOL_FEATURES,
    encodeU64(bitMask(PROTOCOL_FEATURE.CONFIG, PROTOCOL_FEATURE.INFLIGHT_SHMFD)),
  );
  const inflight = { mmapSizeBytes: 8192, mmapOffset: 0, queueCount: 1, queueSize: 256 };
  const memory = createSharedMemory(inflight.mmapSizeBytes);
  frontEnd.handle(REQUEST.SET_INFLIGHT_FD, encodeInflight(inflight), [memory]);
  const callFd = give(REQUEST.SET_VRING_CALL);
  frontEnd.setUpRing(0);
  expect(frontEnd.mailbox(0).started()).toMatchObject({ callFd });
  expect(drainEvent(callFd)).toBe(0);
});

test.each(["SET_VRING_CALL", "SET_VRING_ERR", "SET_LOG_FD"] as const)(
  "%s: a full descriptor holds no queue that is waited for",
  (name) => {
    frontEnd.setUpRing(0);
    const fd = give(REQUEST[name]);
    writeSync(fd, FULL);
    frontEnd.mailbox(0).isSlow = true;
    frontEnd.send(REQUEST.SET_VRING_ENABLE, STOP);
    expect(drainEvent(fd)).toBe(0);
  },
);

test.each(["SET_VRING_CALL", "SET_VRING_ERR"] as const)(
  "%s: nor does the one that it is being told of",
  (name) => {
    frontEnd.setUpRing(0);
    const fd = createEvent();
    writeSync(fd, FULL);
    frontEnd.mailbox(0).isSlow = true;
    give(REQUEST[name], fd);
    expect(drainEvent(fd)).toBe(0);
  },
);
