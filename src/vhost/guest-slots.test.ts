import { expect, test } from "bun:test";
import { RequestTable } from "../disk/request-table.ts";
import { Arena } from "../ffi/arena.ts";
import { PAGE_SIZE } from "../ffi/memory.ts";
import { DEVICE_ID_BYTES, REQUEST_TYPE, STATUS } from "../formats/virtio-blk.ts";
import { BlockChain } from "../virtio/block-chain.ts";
import { DirtyLog } from "../virtio/dirty-log.ts";
import { GuestMemory } from "../virtio/guest-memory.ts";
import { GuestSlots } from "./guest-slots.ts";

const SLOTS = 4;

test("tables: without requests under way the one in force is the oldest", () => {
  const { slots } = world();
  slots.changeTable(3, 0);
  expect(slots.hasOld).toBe(false);
  expect(slots.oldestTable).toBe(3);
});

test("tables: a request keeps the table that was in force when it was taken, until it ends", () => {
  const { slots, take, end } = world();
  slots.changeTable(1, 0);
  const first = take();
  slots.changeTable(2, 0);
  const second = take();
  slots.changeTable(3, 0);
  expect(slots.oldestTable).toBe(1);
  expect(end(second)).toBe(false);
  expect(end(first)).toBe(true);
  expect(slots.oldestTable).toBe(3);
  expect(slots.hasOld).toBe(false);
});

test("tables: one that lasts through many changes is as old as at the first", () => {
  const { slots, take, end } = world();
  slots.changeTable(1, 0);
  const old = take();
  for (let table = 2; table < 10; table++) {
    slots.changeTable(table, 0);
    expect(end(take())).toBe(false);
    expect(slots.oldestTable).toBe(1);
  }
  expect(end(old)).toBe(true);
  expect(slots.oldestTable).toBe(9);
});

test("tables: a slot that is used again belongs to the table of its new request", () => {
  const { slots, take, end } = world();
  slots.changeTable(1, 0);
  const kept = Array.from({ length: SLOTS - 1 }, take);
  const slot = take();
  slots.changeTable(2, 0);
  end(slot);
  expect(take()).toBe(slot);
  kept.forEach(end);
  expect(slots.oldestTable).toBe(2);
  expect(slots.hasOld).toBe(false);
  expect(slots.endOld(slot)).toBe(false);
});

test("the disk's name is marked as dirty, also in a chain whose status has no place", () => {
  using arena = new Arena(2 * PAGE_SIZE);
  const log = arena.bytes(1);
  const data = arena.address + PAGE_SIZE;
  const regions = new GuestMemory();
  const table = new Float64Array(GuestMemory.sharedWords());
  // As loaded for a log: from addresses of this process to the guest's.
  GuestMemory.store(table, [{ guestAddress: data, hostAddress: 0, sizeBytes: PAGE_SIZE }]);
  regions.load(table);
  const dirtyLog = new DirtyLog(regions);
  const off = { usedAddress: -1, eventFd: -1 };
  dirtyLog.set({ address: log.address, sizeBytes: 1, isOn: 1, ...off });
  const slots = new GuestSlots(new RequestTable(SLOTS, 2), dirtyLog);
  const chain = new BlockChain(new GuestMemory());
  chain.type = REQUEST_TYPE.GET_ID;
  chain.dataCount = 1;
  chain.address[0] = data;
  chain.length[0] = DEVICE_ID_BYTES;
  expect(slots.answerChain(chain, STATUS.OK)).toBe(0);
  expect(log.view[0]).toBe(1);
});

// --- internal ---

function world() {
  const requests = new RequestTable(SLOTS, 2);
  const slots = new GuestSlots(requests, new DirtyLog(new GuestMemory()));
  return {
    slots,
    take: () => requests.take(1),
    /** As the queue worker does. */
    end: (slot: number) => {
      const isChanged = slots.hasOld && slots.endOld(slot);
      requests.give(slot);
      return isChanged;
    },
  };
}
