import { afterEach, beforeEach, expect, test } from "bun:test";
import { openDescriptors } from "../../tests/support/open-descriptors.ts";
import {
  MEMORY_BYTES,
  QUEUES,
  ringAddress,
  SessionFrontEnd,
  USER,
} from "../../tests/support/session-front-end.ts";
import { socketPair } from "../../tests/support/socket-pair.ts";
import { closeDescriptor } from "../ffi/socket.ts";
import {
  bitMask,
  decodeConfigPart,
  decodeVringState,
  encodeConfigPart,
  encodeU64,
  encodeVringAddress,
  encodeVringState,
  PROTOCOL_FEATURE,
  REQUEST,
} from "../formats/vhost-user.ts";
import { decodeBlockConfig, FEATURE } from "../formats/virtio-blk.ts";
import { QueueCommand } from "./queue-mailbox.ts";

const WRITEBACK_OFFSET = 32;

let front: SessionFrontEnd;
let openAtStart: number;

beforeEach(() => {
  openAtStart = openDescriptors();
  front = new SessionFrontEnd();
});

afterEach(() => {
  front.close();
  expect(openDescriptors()).toBeLessThanOrEqual(openAtStart);
});

test("features: those of a disk, and the protocol's bit", () => {
  const word = front.ask64(REQUEST.GET_FEATURES);
  expect(word & 0x1_7000_1e46n).toBe(0x1_7000_1e46n);
  expect(front.ask64(REQUEST.GET_PROTOCOL_FEATURES) & 0x8209n).toBe(0x8209n);
});

test("features: one that was not offered is a mistake", () => {
  expect(front.refusal(REQUEST.SET_FEATURES, encodeU64(1n << 40n))).toContain("0x10000000000");
  expect(front.refusal(REQUEST.SET_PROTOCOL_FEATURES, encodeU64(1n << 63n))).toContain("offered");
});

test("owner: twice is a mistake, but not after a reset", () => {
  front.send(REQUEST.SET_OWNER);
  expect(front.refusal(REQUEST.SET_OWNER)).toContain("twice");
  front.send(REQUEST.RESET_OWNER);
  front.send(REQUEST.SET_OWNER);
});

test("back channel: only where it was negotiated, and only a socket; the last one counts", () => {
  const request = REQUEST.SET_BACKEND_REQ_FD;
  front.negotiate();
  expect(front.refusal(request, new Uint8Array(0), 1)).toContain("not negotiated");
  front.send(REQUEST.SET_PROTOCOL_FEATURES, encodeU64(bitMask(PROTOCOL_FEATURE.BACKEND_REQ)));
  expect(front.refusal(request, new Uint8Array(0), 1)).toContain("no socket");
  expect(front.refusal(request, new Uint8Array(0), 0)).toContain("0 descriptors");
  expect(front.session.backChannel).toBeUndefined();
  const open = openDescriptors();
  for (let i = 0; i < 3; i++) {
    const { own, given } = socketPair();
    closeDescriptor(own);
    expect(front.handle(request, new Uint8Array(0), [given])).toBeUndefined();
  }
  expect(openDescriptors()).toBe(open + 1);
});

test("config: the capacity is that of the moment", () => {
  front.sectors = 2 ** 33;
  expect(decodeBlockConfig(front.config(0, 60)).capacitySectors).toBe(2 ** 33);
});

test("limits: queues and memory slots", () => {
  expect(front.ask64(REQUEST.GET_QUEUE_NUM)).toBe(2n);
  expect(front.ask64(REQUEST.GET_MAX_MEM_SLOTS)).toBe(509n);
});

test("requests that were not negotiated or do not exist are mistakes", () => {
  for (const request of [REQUEST.SET_LOG_BASE, REQUEST.GET_INFLIGHT_FD, 0, 77, 0xffff_ffff]) {
    expect(front.refusal(request, encodeU64(0n))).toContain("not negotiated");
  }
});

test("payloads of another size than the request has are mistakes", () => {
  for (const request of [REQUEST.SET_FEATURES, REQUEST.SET_VRING_NUM, REQUEST.SET_VRING_ADDR]) {
    expect(front.refusal(request, new Uint8Array(7))).toContain("bytes instead of");
  }
});

test.each([
  { name: "at 0", offset: 0, size: 60, from: 0 },
  { name: "at 8, as the specification says", offset: 8, size: 8, from: 8 },
  { name: "at 0x100, as some front ends say", offset: 0x100, size: 60, from: 0 },
  { name: "at 0x108", offset: 0x108, size: 8, from: 8 },
])("config: read $name", ({ offset, size, from }) => {
  const whole = front.config(0, 60);
  expect(front.config(offset, size)).toEqual(whole.subarray(from, from + size));
  expect(decodeBlockConfig(whole).capacitySectors).toBe(8);
});

test("config: what lies behind the last field is zero", () => {
  expect(front.config(0, 76).subarray(60)).toEqual(new Uint8Array(16));
  expect(front.config(60, 4)).toEqual(new Uint8Array(4));
  expect(front.config(0x80, 16)).toEqual(new Uint8Array(16));
});

test("config: the reply repeats offset, size and flags", () => {
  const bytes = new Uint8Array(4);
  const reply = front.ask(REQUEST.GET_CONFIG, encodeConfigPart({ offset: 0x104, flags: 1, bytes }));
  expect(decodeConfigPart(reply)).toMatchObject({ offset: 0x104, flags: 1 });
  expect(reply.length).toBe(16);
});

test("config: reads without a size or beyond the space are mistakes", () => {
  const part = (offset: number, length: number) =>
    encodeConfigPart({ offset, flags: 0, bytes: new Uint8Array(length) });
  expect(front.refusal(REQUEST.GET_CONFIG, part(0, 0))).toContain("config space");
  expect(front.refusal(REQUEST.GET_CONFIG, part(0xfff, 2))).toContain("config space");
  expect(front.refusal(REQUEST.GET_CONFIG, part(0xffff_ffff, 1))).toContain("config space");
});

test("config: the writeback byte can be turned off and on, and reads back", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setConfig(WRITEBACK_OFFSET, [0]);
  expect(front.config(WRITEBACK_OFFSET, 1)).toEqual(Uint8Array.of(0));
  expect(front.mailbox(0).last(QueueCommand.setWriteThrough)).toEqual([1]);
  expect(front.mailbox(1).last(QueueCommand.setWriteThrough)).toEqual([1]);
  front.setConfig(0x100 + WRITEBACK_OFFSET, [1]);
  expect(front.config(WRITEBACK_OFFSET, 1)).toEqual(Uint8Array.of(1));
  expect(front.mailbox(0).last(QueueCommand.setWriteThrough)).toEqual([0]);
});

test("config: turning the cache off makes durable what was written before, once", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setConfig(WRITEBACK_OFFSET, [1]);
  expect(front.syncCount).toBe(0);
  front.setConfig(WRITEBACK_OFFSET, [0]);
  front.setConfig(WRITEBACK_OFFSET, [0]);
  expect(front.syncCount).toBe(1);
  front.setConfig(WRITEBACK_OFFSET, [1]);
  front.canSync = false;
  expect(() => front.setConfig(WRITEBACK_OFFSET, [0])).toThrow("durable");
});

test("config: a write elsewhere changes nothing", () => {
  const before = front.config(0, 60);
  front.setConfig(0, Array(32).fill(0xff));
  front.setConfig(33, [0xff]);
  expect(front.config(0, 60)).toEqual(before);
});

test("config: a driver without FLUSH has its writes durable, writeback or not", () => {
  front.negotiate();
  front.setUpRing(0);
  expect(front.mailbox(0).started()?.isWriteThrough).toBe(1);
});

test("config: a driver with FLUSH has its writes cached", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  expect(front.mailbox(0).started()?.isWriteThrough).toBe(0);
});

test("rings: one that does not exist is a mistake, in every request", () => {
  const state = encodeVringState({ index: QUEUES, value: 1 });
  const { SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE } = REQUEST;
  for (const request of [SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE]) {
    expect(front.refusal(request, state)).toContain("does not exist");
  }
  expect(front.refusal(REQUEST.SET_VRING_KICK, encodeU64(2n))).toContain("does not exist");
});

test.each([0, 3, 65_536, 32_769, 0xffff_ffff])("rings: a size of %d is a mistake", (value) => {
  const state = encodeVringState({ index: 0, value });
  expect(front.refusal(REQUEST.SET_VRING_NUM, state)).toContain("power of two up to 32768");
});

test("rings: sizes up to 32768 are accepted", () => {
  for (const value of [1, 2, 256, 1024, 32_768]) {
    front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index: 0, value }));
  }
});

test("rings: a base beyond 65535 is a mistake", () => {
  const state = encodeVringState({ index: 0, value: 0x1_0000 });
  expect(front.refusal(REQUEST.SET_VRING_BASE, state)).toContain("not an index");
});

test.each([
  { name: "descriptors not on 16", wrong: { descriptors: USER + 8 }, message: "aligned to 16" },
  { name: "available ring not on 2", wrong: { available: USER + 0x1001 }, message: "aligned to 2" },
  { name: "used ring not on 4", wrong: { used: USER + 0x2002 }, message: "aligned to 4" },
  { name: "used ring outside", wrong: { used: USER + MEMORY_BYTES }, message: "outside" },
  { name: "used ring over the end", wrong: { used: USER + MEMORY_BYTES - 8 }, message: "outside" },
])("rings: addresses with $name are a mistake", ({ wrong, message }) => {
  front.shareMemory();
  front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index: 0, value: 256 }));
  const address = encodeVringAddress({ ...ringAddress(0), ...wrong });
  expect(front.refusal(REQUEST.SET_VRING_ADDR, address)).toContain(message);
});

test("rings: addresses before any memory are a mistake", () => {
  front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index: 0, value: 256 }));
  const address = encodeVringAddress(ringAddress(0));
  expect(front.refusal(REQUEST.SET_VRING_ADDR, address)).toContain("outside the shared memory");
});

test("rings: one starts when it has everything, whatever came last", () => {
  front.negotiate(FEATURE.BLK_FLUSH, FEATURE.RING_EVENT_IDX);
  front.shareMemory();
  front.send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 1, value: 1 }));
  front.sendEvent(REQUEST.SET_VRING_KICK, 1);
  front.send(REQUEST.SET_VRING_BASE, encodeVringState({ index: 1, value: 7 }));
  front.send(REQUEST.SET_VRING_ADDR, encodeVringAddress(ringAddress(1)));
  expect(front.mailbox(1).started()).toBeUndefined();
  front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index: 1, value: 128 }));
  const start = front.mailbox(1).started();
  expect(start).toMatchObject({ entries: 128, nextAvailable: 7, hasEventIndex: 1, callFd: -1 });
  expect(front.mailbox(0).started()).toBeUndefined();
});

test("packed rings: positions, areas and sizes are of their own kind", () => {
  const index = 0;
  front.negotiate(FEATURE.RING_PACKED);
  front.shareMemory();
  front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index, value: 100 }));
  front.send(REQUEST.SET_VRING_BASE, encodeVringState({ index, value: 0x8007_8007 }));
  front.send(REQUEST.SET_VRING_ADDR, encodeVringAddress(ringAddress(index)));
  front.sendEvent(REQUEST.SET_VRING_KICK, index);
  front.send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index, value: 1 }));
  const started = front.mailbox(index).started();
  expect(started).toMatchObject({ entries: 100, nextAvailable: 0x8007, isPacked: 1 });
  front.mailbox(index).nextAvailable = 0x0063;
  const base = front.ask(REQUEST.GET_VRING_BASE, encodeVringState({ index, value: 0 }));
  expect(decodeVringState(base).value).toBe(0x0063_0063);
});

test("packed rings: one that nobody gave a base begins in its first lap", () => {
  const index = 0;
  front.negotiate(FEATURE.RING_PACKED);
  front.shareMemory();
  const base = front.ask(REQUEST.GET_VRING_BASE, encodeVringState({ index, value: 0 }));
  expect(decodeVringState(base).value).toBe(0x8000_8000);
});

test.each([
  { value: 0x8005_8006, why: "requests under way" },
  { value: 0x8064_8064, why: "base 100 in a packed ring of 100" },
])("packed rings: base $value is refused", ({ value, why }) => {
  const index = 0;
  front.negotiate(FEATURE.RING_PACKED);
  front.shareMemory();
  front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index, value: 100 }));
  front.send(REQUEST.SET_VRING_ADDR, encodeVringAddress(ringAddress(index)));
  front.send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index, value: 1 }));
  front.sendEvent(REQUEST.SET_VRING_KICK, index);
  expect(front.refusal(REQUEST.SET_VRING_BASE, encodeVringState({ index, value }))).toContain(why);
});

test("packed rings: a driver that changes the kind of ring sets it up anew", () => {
  front.negotiate();
  front.setUpRing(0); // as the firmware does it
  front.negotiate(FEATURE.RING_PACKED);
  const { index, value } = { index: 0, value: 256 };
  const started = front.mailbox(0).started();
  front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index, value }));
  expect(front.mailbox(0).started()).toEqual(started ?? {}); // nothing since
  front.send(REQUEST.SET_VRING_ADDR, encodeVringAddress(ringAddress(index)));
  expect(front.mailbox(0).started()).toMatchObject({ nextAvailable: 0x8000, isPacked: 1 });
});

test.each(["descriptors", "available", "used"] as const)(
  "packed rings: %s that are not aligned are refused",
  (area) => {
    front.negotiate(FEATURE.RING_PACKED);
    front.shareMemory();
    front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index: 0, value: 3 }));
    const address = { ...ringAddress(0), [area]: ringAddress(0)[area] + 2 };
    expect(front.refusal(REQUEST.SET_VRING_ADDR, encodeVringAddress(address))).toContain("align");
  },
);

test("rings: without protocol features one starts without being enabled", () => {
  front.send(REQUEST.SET_FEATURES, encodeU64(bitMask(FEATURE.VERSION_1)));
  front.shareMemory();
  front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index: 0, value: 64 }));
  front.send(REQUEST.SET_VRING_ADDR, encodeVringAddress(ringAddress(0)));
  front.sendEvent(REQUEST.SET_VRING_KICK, 0);
  expect(front.mailbox(0).started()?.entries).toBe(64);
});

test("rings: GET_VRING_BASE stops the ring, answers its index and drops kick and call", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.sendEvent(REQUEST.SET_VRING_CALL, 0);
  const before = openDescriptors();
  front.mailbox(0).nextAvailable = 41;
  const reply = front.ask(REQUEST.GET_VRING_BASE, encodeVringState({ index: 0, value: 0 }));
  expect(decodeVringState(reply)).toEqual({ index: 0, value: 41 });
  expect(openDescriptors()).toBe(before - 2);
  front.sendEvent(REQUEST.SET_VRING_KICK, 0);
  expect(front.mailbox(0).started()?.nextAvailable).toBe(41);
});

test("rings: disabled and enabled again, one goes on where it stopped", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.mailbox(0).nextAvailable = 12;
  front.send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 0 }));
  expect(front.mailbox(0).commands.at(-1)?.command).toBe(QueueCommand.stop);
  front.send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 1 }));
  expect(front.mailbox(0).started()?.nextAvailable).toBe(12);
});

test("descriptors: a new kick or call closes the one before it", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  const { SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR } = REQUEST;
  for (const request of [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR]) {
    front.sendEvent(request, 0);
    const before = openDescriptors();
    front.sendEvent(request, 0);
    front.sendEvent(request, 0);
    expect(openDescriptors()).toBe(before);
  }
});

test("descriptors: call and error may be taken away, a kick may not", () => {
  const none = encodeU64(0x100n);
  front.sendEvent(REQUEST.SET_VRING_CALL, 0);
  front.sendEvent(REQUEST.SET_VRING_ERR, 0);
  const before = openDescriptors();
  front.send(REQUEST.SET_VRING_CALL, none);
  front.send(REQUEST.SET_VRING_ERR, none);
  expect(openDescriptors()).toBe(before - 2);
  expect(front.refusal(REQUEST.SET_VRING_KICK, none)).toContain("polling");
});

test("descriptors: what is no eventfd is a mistake, and is closed", () => {
  const { SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR } = REQUEST;
  for (const request of [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR]) {
    expect(front.refusal(request, encodeU64(0n), 1)).toContain("not an eventfd");
  }
});

test("descriptors: none or two where one is wanted are mistakes", () => {
  expect(front.refusal(REQUEST.SET_VRING_KICK, encodeU64(0n), 0)).toContain("0 descriptors");
  expect(front.refusal(REQUEST.SET_VRING_CALL, encodeU64(0n), 2)).toContain("2 descriptors");
});

test("reset: the rings have stopped and start anew; the write cache stays as it was set", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.setConfig(WRITEBACK_OFFSET, [0]);
  front.send(REQUEST.RESET_DEVICE);
  expect(front.mailbox(0).commands.at(-1)?.command).toBe(QueueCommand.stop);
  expect(front.config(WRITEBACK_OFFSET, 1)).toEqual(Uint8Array.of(0));
  front.setUpRing(0);
  expect(front.mailbox(0).started()?.nextAvailable).toBe(0);
});

test("status: after a reset GET_VRING_BASE still tells where the ring stopped", () => {
  // QEMU 7.1 to 8.1 pause a guest in this order, and resume it from the answer.
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.mailbox(0).nextAvailable = 77;
  front.send(REQUEST.SET_STATUS, encodeU64(0n));
  const payload = encodeVringState({ index: 0, value: 0 });
  expect(decodeVringState(front.ask(REQUEST.GET_VRING_BASE, payload)).value).toBe(77);
});

test("status: after a reset a ring without SET_VRING_BASE starts at 0", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.mailbox(0).nextAvailable = 77;
  front.send(REQUEST.SET_STATUS, encodeU64(0n));
  front.send(REQUEST.SET_VRING_NUM, encodeVringState({ index: 0, value: 256 }));
  front.send(REQUEST.SET_VRING_ADDR, encodeVringAddress(ringAddress(0)));
  front.sendEvent(REQUEST.SET_VRING_KICK, 0);
  front.send(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 1 }));
  expect(front.mailbox(0).started()?.nextAvailable).toBe(0);
});

test("status: a reset does not turn a cache on that the guest believes to be off", () => {
  // QEMU keeps the byte that the guest wrote, over resets of the guest and over pauses.
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setConfig(WRITEBACK_OFFSET, [0]);
  front.send(REQUEST.SET_STATUS, encodeU64(0n));
  expect(front.config(WRITEBACK_OFFSET, 1)).toEqual(Uint8Array.of(0));
  front.setUpRing(0);
  expect(front.mailbox(0).started()?.isWriteThrough).toBe(1);
});

test("status: it reads back, and 0 resets", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.send(REQUEST.SET_STATUS, encodeU64(0x0fn));
  expect(front.ask64(REQUEST.GET_STATUS)).toBe(0x0fn);
  front.send(REQUEST.SET_STATUS, encodeU64(0n));
  expect(front.mailbox(0).commands.at(-1)?.command).toBe(QueueCommand.stop);
  expect(front.ask64(REQUEST.GET_STATUS)).toBe(0n);
});

test("end: rings stop, memory goes", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.session.end(1000);
  const order = front.mailbox(0).commands.map(({ command }) => command);
  expect(order.slice(-2)).toEqual([QueueCommand.stop, QueueCommand.reloadMemory]);
  expect(front.memory.count).toBe(0);
});

test("end: a queue that does not answer keeps the memory, and the other rings stop all the same", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.setUpRing(1);
  front.mailbox(0).isStuck = true;
  expect(() => front.session.end(1000)).toThrow("did not end its requests");
  expect(front.mailbox(1).commands.at(-1)?.command).toBe(QueueCommand.stop);
  expect(front.memory.count).toBe(1);
  front.mailbox(0).isStuck = false;
});
