import { expect, test } from "bun:test";
import { closeSync } from "node:fs";
import { FlushGroup } from "../disk/flush-group.ts";
import { createSharedMemory } from "../ffi/memory.ts";
import { beginSync } from "./disk-requests.ts";

test("a sync in two steps: one that fails in between counts, though a flush was told of it", () => {
  const flush = new SharedArrayBuffer(FlushGroup.sharedBytes(1));
  const host = { startSync: () => {}, finish: () => {}, wake: () => {}, noteFailure: () => {} };
  const queue = new FlushGroup({ shared: flush, queue: 0, queues: 1, slotsMax: 1, host });
  const fd = createSharedMemory(4096);
  const begin = () =>
    beginSync({ disk: { fd, stripes: undefined }, shared: { flush }, wakeFds: [-1] }, 1000);
  expect(begin()()).toBe(true);
  const end = begin();
  queue.request(0, true);
  queue.advance();
  queue.ended(false);
  expect(FlushGroup.hasUntold(flush)).toBe(false);
  expect(end()).toBe(false);
  expect(begin()()).toBe(true);
  closeSync(fd);
});
