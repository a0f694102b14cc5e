import { expect, spyOn, test } from "bun:test";
import { Operation } from "../disk/request-table.ts";
import { SlotWaits, Wait } from "../disk/slot-waits.ts";
import { log } from "../log.ts";
import { OverdueRequests } from "./overdue-requests.ts";
import { OverdueWatch } from "./overdue-watch.ts";
import { QueueStatistics } from "./queue-statistics.ts";

const SLOTS = 32;
const SECOND = 1e9;

/** A disk of one queue whose clock and heartbeat are made by hand, and what its watch told. */
class WatchedDisk implements Disposable {
  nowNs = 0;
  silent: readonly string[] = [];
  asked = 0;
  readonly lines: unknown[] = [];
  readonly queue: QueueStatistics;
  readonly waits = SlotWaits.unseen(SLOTS);
  readonly overdue: OverdueRequests;
  readonly watch: OverdueWatch;
  readonly #spies = (["info", "warn"] as const).map((level) =>
    spyOn(log, level).mockImplementation((message, fields) => {
      this.lines.push([level, message, fields]);
    }),
  );

  constructor() {
    this.queue = new QueueStatistics(
      new SharedArrayBuffer(QueueStatistics.sharedBytes(SLOTS)),
      SLOTS,
    );
    this.overdue = new OverdueRequests({
      thresholdMs: 30_000,
      queues: [this.queue],
      waits: [this.waits],
      progress: () => ({ step: "queued", failedTries: 3 }),
    });
    const ask = () => {
      this.asked += 1;
      return this.asked;
    };
    const heartbeat = { ask, silent: () => this.silent };
    this.watch = new OverdueWatch(this.overdue, heartbeat, () => this.nowNs);
  }

  lookAt(seconds: number): readonly unknown[] {
    this.nowNs = seconds * SECOND;
    this.watch.look();
    return this.lines.splice(0);
  }

  [Symbol.dispose](): void {
    this.watch[Symbol.dispose]();
    for (const spy of this.#spies) {
      spy.mockRestore();
    }
  }
}

test("a request that takes too long is told once, and once more when it has ended", () => {
  using disk = new WatchedDisk();
  disk.queue.begin(2, Operation.write, 64, 4096, 0);
  const place = { queue: 0, operation: "write", sector: 64, sectors: 8 };
  expect(disk.lookAt(30)).toEqual([]);
  expect(disk.lookAt(35)).toEqual([
    ["warn", "a request takes too long", { ...place, seconds: 35, waitsFor: "disk" }],
  ]);
  expect(disk.lookAt(40)).toEqual([]);
  disk.queue.end(2, true, 41 * SECOND);
  expect(disk.lookAt(45)).toEqual([
    ["info", "a request that took too long has ended", { ...place, seconds: 45 }],
  ]);
  expect(disk.lookAt(50)).toEqual([]);
});

test("the next request in the same slot is another one", () => {
  using disk = new WatchedDisk();
  disk.queue.begin(0, Operation.flush, 0, 0, 0);
  disk.lookAt(35);
  disk.queue.end(0, true, 36 * SECOND);
  disk.queue.begin(0, Operation.flush, 0, 0, 37 * SECOND);
  const place = { queue: 0, operation: "flush" };
  expect(disk.lookAt(70)).toEqual([
    ["warn", "a request takes too long", { ...place, seconds: 33, waitsFor: "flush" }],
    ["info", "a request that took too long has ended", { ...place, seconds: 70 }],
  ]);
});

test("a request that waits for a stripe: which one, and how often its fetch has failed", () => {
  using disk = new WatchedDisk();
  disk.queue.begin(1, Operation.read, 64, 512, 0);
  disk.waits.begin(1, Wait.stripe, 17);
  expect(JSON.stringify(disk.lookAt(31))).toContain("stripe 17: queued, 3 tries failed");
});

test("a disk that hangs with many requests: a few of them are told", () => {
  using disk = new WatchedDisk();
  for (let slot = 0; slot < SLOTS; slot++) {
    disk.queue.begin(slot, Operation.read, slot, 512, 0);
  }
  expect(disk.lookAt(31)).toHaveLength(8);
  expect(disk.lookAt(32)).toEqual([]);
});

test("threads that do not answer between two looks are told, and when they do again", () => {
  using disk = new WatchedDisk();
  disk.silent = ["queue 0", "stripe"];
  expect(disk.lookAt(5)).toEqual([]);
  expect(disk.lookAt(10)).toEqual([
    ["warn", "threads do not answer", { threads: "queue 0, stripe" }],
  ]);
  expect(disk.overdue.silentThreads).toEqual(["queue 0", "stripe"]);
  expect(disk.lookAt(15)).toEqual([]);
  disk.silent = ["queue 0"];
  expect(disk.lookAt(20)).toEqual([["info", "threads answer again", { threads: "stripe" }]]);
  disk.watch.expectEnds();
  expect(disk.overdue.silentThreads).toEqual([]);
  expect(disk.lookAt(25)).toEqual([]);
  expect(disk.asked).toBe(4);
});
