import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { REQUEST_TYPE, STATUS } from "../formats/virtio-blk.ts";
import { DriverQueue, STATUS_UNSET } from "./driver-queue.ts";
import { GuestMemory, layOutQueue, type QueueShape } from "./guest-memory.ts";
import type { Work } from "./work.ts";

const SHAPE: QueueShape = {
  entries: 8,
  depth: 2,
  segmentsMax: 2,
  dataBytesMax: 4096,
  isIndirect: false,
  isPacked: false,
};
const LAYOUT = layOutQueue(SHAPE);
const BASE = 4096;

let memory: GuestMemory;
let queue: DriverQueue;
let statuses: number[];

/** Starts reads of sector 9 in every free slot and gathers the status of what ended. */
const work: Work = {
  start: (target, slot) => {
    target.describe(slot, REQUEST_TYPE.IN, 9, 4096);
    return true;
  },
  finish: (_queue, _slot, status) => {
    statuses.push(status);
  },
  turn: () => {},
};

beforeEach(() => {
  memory = new GuestMemory(BASE + LAYOUT.totalBytes);
  queue = new DriverQueue({ index: 0, shape: SHAPE, memory, base: BASE, usesEventIndex: true });
  statuses = [];
});

afterEach(() => {
  queue[Symbol.dispose]();
  memory[Symbol.dispose]();
});

function view(offset: number, lengthBytes: number): DataView {
  return new DataView(memory.view(BASE + offset, lengthBytes));
}

/** The device says that it used these heads. */
function use(...heads: readonly number[]): void {
  const used = view(LAYOUT.used, 4 + 8 * SHAPE.entries);
  for (const head of heads) {
    const index = used.getUint16(2, true);
    used.setUint32(4 + (index % SHAPE.entries) * 8, head, true);
    used.setUint16(2, index + 1, true);
  }
}

describe("driver queue", () => {
  test("a read is a header, the data in segments, and a status byte", () => {
    expect(queue.fill(work, 0)).toBe(2);
    queue.publish();

    const table = view(LAYOUT.descriptors, 16 * SHAPE.entries);
    const chain = [4, 5, 6, 7].map((i) => ({
      address: Number(table.getBigUint64(i * 16, true)),
      length: table.getUint32(i * 16 + 8, true),
      flags: table.getUint16(i * 16 + 12, true),
      next: table.getUint16(i * 16 + 14, true),
    }));
    const guest = memory.guestAddress(BASE);
    const data = guest + LAYOUT.data + LAYOUT.slotBytes;
    expect(chain).toEqual([
      { address: guest + LAYOUT.headers + 16, length: 16, flags: 1, next: 5 },
      { address: data, length: 2048, flags: 3, next: 6 },
      { address: data + 2048, length: 2048, flags: 3, next: 7 },
      { address: guest + LAYOUT.statuses + 1, length: 1, flags: 2, next: 0 },
    ]);
    expect(view(LAYOUT.available, 8).getUint16(2, true)).toBe(2);
    expect(view(LAYOUT.headers, 16).getUint32(8, true)).toBe(9);
  });

  test("used requests end with their status and their slots are free again", () => {
    queue.fill(work, 0);
    queue.publish();
    view(LAYOUT.statuses, 2).setUint8(1, STATUS.IOERR);
    use(4);
    expect(queue.reap(work, 1)).toBe(1);
    expect(statuses).toEqual([STATUS.IOERR]);
    expect(queue.inFlight).toBe(1);
    use(0);
    queue.reap(work, 2);
    expect(statuses).toEqual([STATUS.IOERR, STATUS_UNSET]);
  });

  test("a used index that jumps is refused", () => {
    queue.fill(work, 0);
    queue.publish();
    view(LAYOUT.used, 4).setUint16(2, 3, true);
    expect(() => queue.reap(work, 1)).toThrow("used index jumped by 3 with 2 requests in flight");
  });

  test("an id that is no head, or no request in flight, is refused", () => {
    queue.fill(work, 0);
    queue.publish();
    use(1);
    expect(() => queue.reap(work, 1)).toThrow("id 1 in the used ring");
  });

  test("a request that ends twice is refused", () => {
    queue.fill(work, 0);
    queue.publish();
    use(4, 4);
    expect(() => queue.reap(work, 1)).toThrow("slot 1 ended, which is not in flight");
  });

  test("nothing is kicked when the device said that it looks by itself", () => {
    view(LAYOUT.used + 4 + 8 * SHAPE.entries, 2).setUint16(0, 5, true);
    queue.fill(work, 0);
    queue.publish();
    expect(queue.kicks).toBe(0);
  });
});
