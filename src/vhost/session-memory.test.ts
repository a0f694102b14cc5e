import { afterEach, beforeEach, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { GUEST, SessionFrontEnd, USER } from "../../tests/support/session-front-end.ts";
import { encodeMemoryRegion, encodeMemoryTable, REQUEST } from "../formats/vhost-user.ts";
import { FEATURE } from "../formats/virtio-blk.ts";
import { RETIRED_MAX } from "./memory-tables.ts";
import { QueueCommand } from "./queue-mailbox.ts";

let front: SessionFrontEnd;

beforeEach(() => {
  front = new SessionFrontEnd();
});

afterEach(() => front.close());

test("memory: as many descriptors as regions", () => {
  const table = encodeMemoryTable([front.region]);
  expect(front.refusal(REQUEST.SET_MEM_TABLE, table)).toContain("1 regions with 0 descriptors");
  expect(front.refusal(REQUEST.SET_MEM_TABLE, table, 2)).toContain("1 regions with 2 descriptors");
  expect(front.refusal(REQUEST.ADD_MEM_REG, encodeMemoryRegion(front.region), 2)).toContain(
    "2 descriptors instead of one",
  );
});

test("memory: regions are added and removed one by one", () => {
  front.sendWithMemory(REQUEST.ADD_MEM_REG, encodeMemoryRegion(front.region));
  expect(front.memory.count).toBe(1);
  front.send(REQUEST.REM_MEM_REG, encodeMemoryRegion(front.region));
  expect(front.memory.count).toBe(0);
  expect(front.refusal(REQUEST.REM_MEM_REG, encodeMemoryRegion(front.region))).toContain("no such");
});

test("memory: a running ring goes on while memory comes and goes beside its own", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.mailbox(0).commands.length = 0;
  const more = { ...front.region, guestAddress: GUEST * 4, userAddress: USER + 2 ** 32 };
  front.sendWithMemory(REQUEST.ADD_MEM_REG, encodeMemoryRegion(more));
  front.send(REQUEST.REM_MEM_REG, encodeMemoryRegion(more));
  const order = front.mailbox(0).commands.map(({ command }) => command);
  expect(order).toEqual([QueueCommand.reloadMemory, QueueCommand.reloadMemory]);
});

test("memory: a ring that lies in another file by the new table stops before it, and starts behind it", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.mailbox(0).commands.length = 0;
  front.shareMemory();
  const order = front.mailbox(0).commands.map(({ command }) => command);
  expect(order).toEqual([QueueCommand.stop, QueueCommand.reloadMemory, QueueCommand.start]);
});

test("memory: a region taken away is unmapped when the last request that uses it has ended", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  const more = { ...front.region, guestAddress: GUEST * 4, userAddress: USER + 2 ** 32 };
  front.sendWithMemory(REQUEST.ADD_MEM_REG, encodeMemoryRegion(more));
  front.mailbox(1).usedTable = front.memory.table;
  front.send(REQUEST.REM_MEM_REG, encodeMemoryRegion(more));
  const mappings = sharedMappings();
  front.session.releaseMemory();
  expect(sharedMappings()).toBe(mappings);
  front.mailbox(1).usedTable = undefined;
  front.session.releaseMemory();
  expect(sharedMappings()).toBe(mappings - 1);
});

test("memory: a running ring whose region is taken away rests until it is back", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.mailbox(0).commands.length = 0;
  const commands = () => front.mailbox(0).commands.map(({ command }) => command);
  front.send(REQUEST.REM_MEM_REG, encodeMemoryRegion(front.region));
  expect(commands()).toEqual([QueueCommand.stop, QueueCommand.reloadMemory]);
  front.sendWithMemory(REQUEST.ADD_MEM_REG, encodeMemoryRegion(front.region));
  expect(commands().slice(2)).toEqual([QueueCommand.reloadMemory, QueueCommand.start]);
});

test("memory: a front end that took away as much as it may under a request leaves all behind it", () => {
  front.negotiate(FEATURE.BLK_FLUSH);
  front.setUpRing(0);
  front.mailbox(0).usedTable = front.memory.table;
  const more = { ...front.region, guestAddress: GUEST * 4, userAddress: USER + 2 ** 32 };
  for (let i = 0; i < RETIRED_MAX; i++) {
    front.sendWithMemory(REQUEST.ADD_MEM_REG, encodeMemoryRegion(more));
    front.send(REQUEST.REM_MEM_REG, encodeMemoryRegion(more));
  }
  front.mailbox(0).usedTable = undefined; // the request has ended
  front.session.end(1000);
  expect(front.memory.count).toBe(0);
});

// --- internal ---

function sharedMappings(): number {
  return readFileSync("/proc/self/maps", "utf8").split("/memfd:ubiblk-shared").length - 1;
}
