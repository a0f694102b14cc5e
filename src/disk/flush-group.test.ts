import { expect, test } from "bun:test";
import fc from "fast-check";
import { SeededRandom } from "../../tests/support/random.ts";
import { rounds } from "../../tests/support/requires.ts";
import { FlushGroup } from "./flush-group.ts";

// Shared words (see the module's drawing).
const RUNNING = 0;
const STARTED = 1;
const WAITS = 6;
const DONE = 2;
const TELLING = 3;

test("flush group: a flush alone starts a sync and is answered by its end", () => {
  const disk = new Disk(1);
  disk.request(0, 5);
  disk.advance(0);
  expect(disk.running).toBe(0);
  expect(disk.answers).toEqual([]);
  disk.endSync(true);
  expect(disk.answers).toEqual([{ queue: 0, slot: 5, isOk: true }]);
});

test("flush group: all flushes of a batch share one sync", () => {
  const disk = new Disk(1);
  disk.request(0, 1);
  disk.request(0, 2);
  disk.request(0, 3);
  disk.advance(0);
  disk.endSync(true);
  expect(disk.syncsStarted).toBe(1);
  expect(disk.answers.map(({ slot }) => slot)).toEqual([1, 2, 3]);
});

test("flush group: a flush that arrives during a sync waits for the next one", () => {
  const disk = new Disk(1);
  disk.request(0, 1);
  disk.advance(0);
  disk.request(0, 2);
  disk.advance(0);
  disk.endSync(true);
  expect(disk.answers.map(({ slot }) => slot)).toEqual([1]);
  expect(disk.syncsStarted).toBe(2);
  disk.endSync(true);
  expect(disk.answers.map(({ slot }) => slot)).toEqual([1, 2]);
});

test("flush group: another queue's flush is woken when the sync it waited for ends", () => {
  const disk = new Disk(2);
  disk.request(0, 1);
  disk.advance(0);
  disk.request(1, 9);
  disk.advance(1);
  disk.endSync(true);
  expect(disk.wakes).toEqual([1]);
  disk.advance(1);
  expect(disk.running).toBe(1);
  disk.endSync(true);
  expect(disk.answers).toContainEqual({ queue: 1, slot: 9, isOk: true });
});

test("flush group: a flush that another queue answers while a sync ends with a failure does not hide that from who waits for it", () => {
  const disk = new Disk(2);
  disk.request(0, 1);
  disk.request(1, 2);
  disk.advance(0);
  disk.endSync(true);
  disk.request(0, 3);
  disk.request(1, 4);
  disk.advance(0);
  disk.whileFailing = () => disk.advance(1); // answers 2, whose sync is the one before
  disk.endSync(false);
  disk.advance(1);
  expect(disk.answers).toEqual([
    { queue: 0, slot: 1, isOk: true },
    { queue: 1, slot: 2, isOk: false },
    { queue: 0, slot: 3, isOk: false },
    { queue: 1, slot: 4, isOk: false },
  ]);
});

test("flush group: a failed sync is reported once, before another one can begin", () => {
  const disk = new Disk(2);
  disk.request(0, 1);
  disk.advance(0);
  disk.request(1, 2);
  disk.advance(1);
  disk.endSync(false);
  disk.advance(1);
  disk.endSync(true);
  expect(disk.failuresNoted).toEqual([1]);
});

test("flush group: a thread without a queue starts a sync of its own and wakes who waits for it", () => {
  const { shared, woken, outsider } = alone();
  const syncs: string[] = [];
  const sync = () => {
    new Int32Array(shared)[WAITS] = 1; // queue 0 came meanwhile
    syncs.push("sync");
    return true;
  };
  expect(FlushGroup.syncAndWait({ ...outsider, sync })).toBe(true);
  expect(syncs).toEqual(["sync"]);
  expect(woken).toEqual([0]);
  expect(new Int32Array(shared)[RUNNING]).toBe(0);
});

test("flush group: a thread without a queue is told of a failure, and so is whoever notes it", () => {
  const { failures, outsider } = alone();
  expect(FlushGroup.syncAndWait({ ...outsider, sync: () => false })).toBe(false);
  expect(failures).toEqual(["failed"]);
});

test("flush group: a thread without a queue does not take for durable what an untold failure lost", () => {
  const { outsider } = alone();
  expect(FlushGroup.syncAndWait({ ...outsider, sync: () => false })).toBe(false);
  expect(FlushGroup.syncAndWait({ ...outsider, sync: () => true })).toBe(false);
});

test("flush group: a thread without a queue begins no sync while another one runs, and gives up", () => {
  const { shared, outsider } = alone();
  new Int32Array(shared)[RUNNING] = 1;
  const sync = () => {
    throw new Error("another sync runs");
  };
  expect(FlushGroup.syncAndWait({ ...outsider, sync, timeoutMs: 5 })).toBe(false);
});

test("flush group: a failed sync fails all that waited for it, or came before its end, and none that came later", () => {
  const disk = new Disk(1);
  disk.request(0, 1);
  disk.request(0, 2);
  disk.advance(0);
  disk.request(0, 3);
  disk.endSync(false);
  disk.endSync(true);
  expect(disk.answers).toEqual([
    { queue: 0, slot: 1, isOk: false },
    { queue: 0, slot: 2, isOk: false },
    { queue: 0, slot: 3, isOk: false }, // of data that the failed sync may have taken along
  ]);
  disk.request(0, 4);
  disk.advance(0);
  disk.endSync(true);
  expect(disk.answers).toContainEqual({ queue: 0, slot: 4, isOk: true });
});

test("flush group: a flush whose own sync succeeded is failed when a later one failed before its answer", () => {
  // The kernel tells a lost write once, to whoever syncs next: the later failure may be this one's.
  const disk = new Disk(2);
  disk.request(0, 1);
  disk.request(1, 2);
  disk.advance(0);
  disk.endSync(true);
  disk.request(0, 3);
  disk.advance(0);
  disk.endSync(false);
  disk.advance(1);
  expect(disk.answers).toContainEqual({ queue: 1, slot: 2, isOk: false });
});

test("flush group: a failure that no flush was told of fails the next flush, of whatever queue, and none after it", () => {
  const disk = new Disk(2);
  disk.request(0, 1, false); // one durable write, or stripes
  disk.advance(0);
  disk.endSync(false);
  disk.request(1, 2);
  disk.advance(1);
  disk.endSync(true);
  disk.request(0, 3);
  disk.advance(0);
  disk.endSync(true);
  expect(disk.answers).toEqual([
    { queue: 0, slot: 1, isOk: false },
    { queue: 1, slot: 2, isOk: false },
    { queue: 0, slot: 3, isOk: true },
  ]);
});

test("flush group: a durable write is not failed for what was lost before it", () => {
  const disk = new Disk(1);
  disk.request(0, 1, false);
  disk.advance(0);
  disk.endSync(false);
  disk.request(0, 2, false);
  disk.advance(0);
  disk.endSync(true);
  expect(disk.answers.map(({ isOk }) => isOk)).toEqual([false, true]);
});

test("flush group: a failure is told to all flushes that waited for the sync that one of them is told of", () => {
  const disk = new Disk(2);
  disk.request(0, 1, false);
  disk.advance(0);
  disk.endSync(false);
  disk.request(0, 2);
  disk.request(1, 3);
  disk.advance(0);
  disk.endSync(true);
  disk.advance(1);
  expect(disk.answers.map(({ isOk }) => isOk)).toEqual([false, false, false]);
});

test.each([
  { name: "2^31", start: 0x7fff_fffe },
  { name: "2^32", start: -2 },
])("flush group: numbers run over $name", ({ start }) => {
  const disk = new Disk(1);
  disk.setNumbers({ started: start, done: start, telling: start - 1 });
  for (let slot = 0; slot < 6; slot++) {
    disk.request(0, slot);
    disk.advance(0);
    disk.endSync(slot !== 2);
  }
  expect(disk.answers.map(({ isOk }) => isOk)).toEqual([true, true, false, true, true, true]);
});

test("flush group: a failure of two thousand million syncs ago does not come back", () => {
  const disk = new Disk(1);
  const failed = 100;
  // Long after it, and shortly before the number would look like a later one.
  const late = (failed + 2 ** 30 + 1) | 0;
  disk.setNumbers({ started: late, done: late, telling: failed });
  disk.request(0, 0);
  disk.advance(0);
  disk.endSync(true);
  const later = (failed + 2 ** 31 - 2 ** 29) | 0;
  disk.setNumbers({ started: later, done: later });
  disk.request(0, 1);
  disk.advance(0);
  disk.endSync(true);
  const behind = (failed + 2 ** 31 + 10) | 0;
  disk.setNumbers({ started: behind, done: behind });
  disk.request(0, 2);
  disk.advance(0);
  disk.endSync(true);
  expect(disk.answers.map(({ isOk }) => isOk)).toEqual([true, true, true]);
});

test("flush group: whatever the order of events, no flush is lost or answered by an older sync", () => {
  fc.assert(
    fc.property(fc.noShrink(fc.integer()), (seed) => {
      const random = new SeededRandom(seed);
      const queues = random.between(1, 4);
      const disk = new Disk(queues);
      const start = random.pick([0, 0x7fff_fff0, -16]);
      disk.setNumbers({ started: start, done: start, telling: start - 1 });
      for (let step = 0; step < 300; step++) {
        disk.step(random);
      }
      disk.settle();
      expect(disk.waitingCount).toBe(0);
      expect(disk.running).toBe(-1);
    }),
    { numRuns: rounds(150, 5000), includeErrorInReport: true },
  );
});

// --- internal ---

interface Waiting {
  readonly queue: number;
  readonly slot: number;
  /** Syncs that had started when it arrived. */
  readonly arrivedAt: number;
  /** Syncs that had failed by then. */
  readonly failures: number;
  readonly isFlush: boolean;
}

/** Several queues over one shared memory, driven by one thread: what happens next is the test's choice. */
/** A group of one queue, seen by a thread without one. */
function alone() {
  const shared = new SharedArrayBuffer(FlushGroup.sharedBytes(1));
  const woken: number[] = [];
  const failures: string[] = [];
  const outsider = {
    shared,
    queues: 1,
    timeoutMs: 10_000,
    wake: (queue: number) => woken.push(queue),
    noteFailure: () => failures.push("failed"),
  };
  return { shared, woken, failures, outsider };
}

class Disk {
  readonly answers: { queue: number; slot: number; isOk: boolean }[] = [];
  readonly wakes: number[] = [];
  /** At each report of a failure: whether the group still lets no other sync begin. */
  readonly failuresNoted: number[] = [];
  /** What others do between the failure of a sync and its end. */
  whileFailing: () => void = () => {};
  /** The queue whose sync runs, or -1. */
  running = -1;
  syncsStarted = 0;
  readonly #words: Int32Array;
  readonly #groups: readonly FlushGroup[];
  readonly #waiting: Waiting[] = [];
  /** Queues that will look: woken, or with something new. */
  readonly #awake = new Set<number>();
  /** By number of the sync: whether it failed. */
  readonly #failures = new Map<number, boolean>();
  #nextSlot = 0;
  /** A sync failed and no flush was answered with it; and how many had ended when the last one was. */
  #isUntold = false;
  #toldAt = 0;

  constructor(queues: number) {
    const shared = new SharedArrayBuffer(FlushGroup.sharedBytes(queues));
    this.#words = new Int32Array(shared);
    this.#groups = Array.from({ length: queues }, (_, queue) => {
      const host = {
        startSync: () => this.#start(queue),
        finish: (slot: number, isOk: boolean) => this.#answer(queue, slot, isOk),
        wake: (other: number) => {
          this.wakes.push(other);
          this.#awake.add(other);
        },
        noteFailure: () => {
          this.failuresNoted.push(this.#words[RUNNING] ?? -1);
          this.whileFailing();
        },
      };
      return new FlushGroup({ shared, queue, queues, slotsMax: 64, host });
    });
  }

  get #failureCount(): number {
    return [...this.#failures.values()].filter(Boolean).length;
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  setNumbers(numbers: { started: number; done: number; telling?: number }): void {
    this.#words[STARTED] = numbers.started;
    this.#words[DONE] = numbers.done;
    this.#words[TELLING] = numbers.telling ?? this.#words[TELLING] ?? 0;
  }

  request(queue: number, slot: number, isFlush = true): void {
    const failures = this.#failureCount;
    this.#waiting.push({ queue, slot, arrivedAt: this.syncsStarted, failures, isFlush });
    this.#groups[queue]?.request(slot, isFlush);
    this.#awake.add(queue);
  }

  advance(queue: number): void {
    this.#awake.delete(queue);
    this.#groups[queue]?.advance();
  }

  endSync(isOk: boolean): void {
    const queue = this.running;
    expect(queue).toBeGreaterThanOrEqual(0);
    this.running = -1;
    this.#failures.set(this.syncsStarted, !isOk);
    this.#isUntold ||= !isOk;
    this.#groups[queue]?.ended(isOk);
  }

  /** One thing that may happen. A queue that nobody woke does not look by itself. */
  step(random: SeededRandom): void {
    const queue = random.below(this.#groups.length);
    const choice = random.below(10);
    if (choice < 3 && this.#waiting.length < 60) {
      this.request(queue, this.#freeSlot(), !random.oneIn(3));
    } else if (choice < 7 && this.#awake.has(queue)) {
      this.advance(queue);
    } else if (this.running >= 0) {
      this.endSync(!random.oneIn(4));
    }
  }

  /** Runs until nothing is awake and no sync runs. */
  settle(): void {
    while (this.#awake.size > 0 || this.running >= 0) {
      for (const queue of [...this.#awake]) {
        this.advance(queue);
      }
      if (this.running >= 0) {
        this.endSync(true);
      }
    }
  }

  #start(queue: number): void {
    expect(this.running).toBe(-1);
    this.running = queue;
    this.syncsStarted += 1;
  }

  #answer(queue: number, slot: number, isOk: boolean): void {
    const index = this.#waiting.findIndex((each) => each.queue === queue && each.slot === slot);
    const [waiting] = this.#waiting.splice(index, index < 0 ? 0 : 1);
    this.answers.push({ queue, slot, isOk });
    const arrivedAt = waiting?.arrivedAt ?? Number.NaN;
    // A sync that started after the arrival has ended, and if any failed since the arrival, so did the flush.
    expect(this.#failures.has(arrivedAt + 1)).toBe(true);
    const anyFailed = this.#failureCount !== waiting?.failures;
    const isTold = this.#isUntold && waiting?.isFlush === true;
    if (anyFailed || isTold) {
      expect(isOk).toBe(false);
    } else if (!isOk && !this.#isUntold) {
      expect(arrivedAt).toBeLessThan(this.#toldAt); // it waited together with one that was told
    }
    if (isTold) {
      this.#isUntold = false;
      this.#toldAt = this.#failures.size;
    }
  }

  #freeSlot(): number {
    this.#nextSlot += 1;
    return this.#nextSlot;
  }
}
