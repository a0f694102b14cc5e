import { expect, test } from "bun:test";
import { Operation } from "../disk/request-table.ts";
import { SlotWaits, Wait } from "../disk/slot-waits.ts";
import type { StripeProgress } from "./disk-stripes.ts";
import { OverdueRequests } from "./overdue-requests.ts";
import { QueueStatistics } from "./queue-statistics.ts";

const SLOTS = 4;
const SECOND = 1e9;

function makeDisk(options: { readonly thresholdMs?: number; readonly progress?: StripeProgress }) {
  const queues = [0, 1].map(() => {
    const shared = new SharedArrayBuffer(QueueStatistics.sharedBytes(SLOTS));
    return new QueueStatistics(shared, SLOTS);
  });
  const waits = queues.map(() => SlotWaits.unseen(SLOTS));
  const { thresholdMs = 30_000, progress } = options;
  const overdue = new OverdueRequests({ thresholdMs, queues, waits, progress: () => progress });
  return { overdue, first: queues[0], second: queues[1], waits: waits[1] };
}

test("requests of all queues that take longer than the threshold, the oldest first", () => {
  const { overdue, first, second } = makeDisk({});
  first?.begin(0, Operation.write, 8, 4096, 10 * SECOND);
  first?.begin(1, Operation.read, 16, 512, 40 * SECOND);
  second?.begin(3, Operation.flush, 0, 0, 5 * SECOND);
  expect(overdue.find(40 * SECOND)).toMatchObject([{ queue: 1, slot: 3, operation: "flush" }]);
  expect(overdue.find(40.1 * SECOND)).toMatchObject([
    { queue: 1, slot: 3, operation: "flush", waitsFor: { kind: "flush" } },
    { queue: 0, slot: 0, operation: "write", sector: 8, waitsFor: { kind: "disk" } },
  ]);
  second?.end(3, true, 41 * SECOND);
  expect(overdue.find(41 * SECOND)).toHaveLength(1);
});

test("a threshold of 0: nothing takes too long", () => {
  const { overdue, first } = makeDisk({ thresholdMs: 0 });
  first?.begin(0, Operation.write, 8, 4096, 0);
  expect(overdue.find(1e6 * SECOND)).toEqual([]);
});

test.each([
  [Wait.buffer, { kind: "buffer" }],
  [Wait.sync, { kind: "flush" }],
  [Wait.image, { kind: "image" }],
  [Wait.stripe, { kind: "stripe", stripe: 17, step: "fetch", failedTries: 2 }],
  [Wait.none, { kind: "disk" }],
] as const)("a request that waits for %d says so", (wait, waitsFor) => {
  const { overdue, second, waits } = makeDisk({ progress: { step: "fetch", failedTries: 2 } });
  second?.begin(2, Operation.write, 8, 4096, 0);
  waits?.begin(2, wait, 17);
  expect(overdue.find(31 * SECOND)).toMatchObject([{ queue: 1, slot: 2, waitsFor }]);
});
