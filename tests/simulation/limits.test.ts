/**
 * Queues under the limits of their disk, in simulated time: every start is metered against what is promised. Queues
 * wake late, as threads do; the disk answers when it likes.
 */
import { expect, test } from "bun:test";
import { LIMITS, type Limit } from "../../src/config/limit-rules.ts";
import { burstOf, type LimitSettings, NO_LIMITS } from "../../src/device/limit-settings.ts";
import { QueueStatistics } from "../../src/device/queue-statistics.ts";
import { QueueThrottle } from "../../src/device/queue-throttle.ts";
import { TokenBuckets } from "../../src/device/token-buckets.ts";
import { Operation } from "../../src/disk/request-table.ts";
import { SeededRandom } from "../support/random.ts";

const SEEDS = 100;
const SECOND = 1e9;
const KIB = 1024;

test(`${SEEDS} random disks: never more than the limits and their bursts, and all that they give`, () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = new SeededRandom(seed);
    const world = new World(randomSettings(random), randomLoads(random), random);
    world.run(2 * SECOND);
    expect({ seed, ...world.verdict() }).toEqual({
      seed,
      tooMuch: [],
      isHeldBackForNothing: false,
    });
  }
});

test.each([
  { iops: 500, queues: 2 },
  { iops: 1000, queues: 4 },
  { iops: 50_000, queues: 2 },
  { iops: 50_000, queues: 8 },
  { iops: 100_000, queues: 4 },
])("$queues busy queues share $iops operations evenly", ({ iops, queues }) => {
  const loads = Array.from({ length: queues }, () => busy({ bytes: [4 * KIB], depth: 256 }));
  const world = new World(only("iops", iops), loads, new SeededRandom(7));
  world.run(5 * SECOND);
  const counts = world.queues.map((queue) => queue.started);
  const mean = counts.reduce((sum, count) => sum + count, 0) / queues;
  expect(mean * queues).toBeWithin(5 * iops * 0.98, 5 * iops * 1.04);
  expect(Math.min(...counts)).toBeGreaterThan(mean * 0.8);
});

test("one request at a time beside a queue of many: it waits for its turn, not for the others' end", () => {
  const loads = [busy({ bytes: [4 * KIB], depth: 256 }), busy({ bytes: [4 * KIB], depth: 1 })];
  const world = new World(only("iops", 1000), loads, new SeededRandom(3));
  world.run(5 * SECOND);
  expect(world.queues[1]?.started).toBeGreaterThan(5 * 1000 * 0.4);
  expect(world.queues[1]?.waitMaxNs).toBeLessThan(0.01 * SECOND);
});

test("large requests beside small ones: neither starves, though they are larger than the bucket", () => {
  const loads = [
    busy({ bytes: [4 * KIB], depth: 64 }),
    busy({ bytes: [4 * KIB], depth: 64 }),
    busy({ bytes: [2048 * KIB], depth: 4 }),
  ];
  const world = new World(only("bytes_per_second", 10_000 * KIB), loads, new SeededRandom(5));
  world.run(20 * SECOND);
  // One after another: a turn of all three takes as long as their bytes do.
  const turnNs = ((2048 + 8) / 10_000) * SECOND;
  expect(world.queues[2]?.started).toBeGreaterThan((20 * SECOND) / turnNs / 2);
  expect(world.queues.map((queue) => queue.waitMaxNs < 2.5 * turnNs)).toEqual([true, true, true]);
});

// --- internal ---

interface Load {
  readonly operations: Some;
  readonly bytes: Some;
  readonly depth: number;
  readonly latencyNs: number;
  /** Of the time that it has something to do. */
  readonly busyPart: number;
}

interface Start {
  readonly atNs: number;
  readonly isWrite: boolean;
  readonly bytes: number;
}

/** The longest that a thread takes to wake up. */
const LATE_MAX_NS = 400_000;
/** A load rests for so long in one piece. */
const PERIOD_NS = 0.5 * SECOND;

function busy(known: Pick<Load, "bytes" | "depth">): Load {
  return { operations: [Operation.read], latencyNs: 80_000, busyPart: 1, ...known };
}

function only(name: string, perSecond: number): LimitSettings {
  return LIMITS.map(({ rate }) => ({
    perSecond: rate === name ? perSecond : undefined,
    burst: undefined,
  }));
}

function randomSettings(random: SeededRandom): LimitSettings {
  return NO_LIMITS.map((_, i): Limit => {
    if (random.oneIn(2)) {
      return { perSecond: undefined, burst: undefined };
    }
    const perSecond = random.between(20, 5000) * (i < 3 ? 1 : 16 * KIB);
    const burst = random.oneIn(2)
      ? undefined
      : Math.ceil(perSecond * (random.between(1, 2000) / 1000));
    return { perSecond, burst };
  });
}

type Some = readonly [number, ...number[]];

const { read, write, flush, discard } = Operation;
const OPERATIONS: readonly [Some, ...Some[]] = [
  [read],
  [write],
  [read, write],
  [read, write, flush, discard],
];
const BUSY_PARTS: Some = [1, 1, 0.5, 0.1];
const SIZES: readonly [Some, ...Some[]] = [[4 * KIB], [512, 4 * KIB, 64 * KIB], [1024 * KIB]];

function randomLoads(random: SeededRandom): readonly Load[] {
  return Array.from({ length: random.between(1, 6) }, () => ({
    operations: random.pick(OPERATIONS),
    bytes: random.pick(SIZES),
    depth: random.between(1, 32),
    latencyNs: random.between(500_000, 4_000_000),
    busyPart: random.pick(BUSY_PARTS),
  }));
}

/** One queue: as many requests under way as its load allows, and the next one at its head. */
class Queue {
  readonly throttle: QueueThrottle;
  readonly starts: Start[] = [];
  started = 0;
  waitMaxNs = 0;
  wakeNs = 0;
  readonly #load: Load;
  readonly #random: SeededRandom;
  readonly #ends: number[] = [];
  #next: { operation: number; bytes: number; sinceNs: number } | undefined;

  constructor(throttle: QueueThrottle, load: Load, random: SeededRandom) {
    this.throttle = throttle;
    this.#load = load;
    this.#random = random;
  }

  turn(nowNs: number): void {
    while ((this.#ends[0] ?? Number.POSITIVE_INFINITY) <= nowNs) {
      this.#ends.shift();
    }
    if (this.throttle.mayGo(nowNs)) {
      this.#startAll(nowNs);
    }
    const restEnd = this.#isBusy(nowNs) ? Number.POSITIVE_INFINITY : this.#busyFrom(nowNs);
    const end = this.#ends[0] ?? Number.POSITIVE_INFINITY;
    this.wakeNs =
      Math.min(end, restEnd, this.throttle.wakeNs(nowNs)) + this.#random.between(1, LATE_MAX_NS);
  }

  // --- internal ---

  #startAll(nowNs: number): void {
    const { depth, latencyNs } = this.#load;
    while (this.#ends.length < depth && (this.#next !== undefined || this.#isBusy(nowNs))) {
      this.#next ??= this.#someRequest(nowNs);
      const { operation, bytes, sinceNs } = this.#next;
      if (!this.throttle.mayStart(operation, bytes, nowNs)) {
        return;
      }
      this.throttle.started(operation, 0, nowNs);
      if (operation !== Operation.flush) {
        const isTransfer = operation === Operation.read || operation === Operation.write;
        const isWrite = operation !== Operation.read;
        this.starts.push({ atNs: nowNs, isWrite, bytes: isTransfer ? bytes : 0 });
      }
      this.started += 1;
      this.waitMaxNs = Math.max(this.waitMaxNs, nowNs - sinceNs);
      this.#ends.push(nowNs + latencyNs);
      this.#next = undefined;
    }
  }

  #someRequest(nowNs: number) {
    const { operations, bytes } = this.#load;
    return {
      operation: this.#random.pick(operations),
      bytes: this.#random.pick(bytes),
      sinceNs: nowNs,
    };
  }

  #isBusy(nowNs: number): boolean {
    return nowNs % PERIOD_NS < this.#load.busyPart * PERIOD_NS;
  }

  #busyFrom(nowNs: number): number {
    return (Math.floor(nowNs / PERIOD_NS) + 1) * PERIOD_NS;
  }
}

class World {
  readonly queues: readonly Queue[];
  readonly #settings: LimitSettings;
  readonly #loads: readonly Load[];
  #nowNs = 0;

  constructor(settings: LimitSettings, loads: readonly Load[], random: SeededRandom) {
    this.#settings = settings;
    this.#loads = loads;
    const shared = TokenBuckets.share(loads.length + 1);
    new TokenBuckets(shared, loads.length).set(settings, 0);
    this.queues = loads.map((load, queue) => {
      const statistics = new QueueStatistics(
        new SharedArrayBuffer(QueueStatistics.sharedBytes(1)),
        1,
      );
      return new Queue(new QueueThrottle(shared, queue, statistics), load, random);
    });
  }

  run(untilNs: number): void {
    for (;;) {
      const queue = this.queues.reduce((a, b) => (b.wakeNs < a.wakeNs ? b : a));
      if (queue.wakeNs >= untilNs) {
        this.#nowNs = untilNs;
        return;
      }
      queue.turn(queue.wakeNs);
    }
  }

  /** Limits that were exceeded, and whether busy queues got less than the tightest of them gives. */
  verdict() {
    const starts = this.queues.flatMap((queue) => queue.starts).toSorted((a, b) => a.atNs - b.atNs);
    const tooMuch = LIMITS.flatMap(({ rate }, bucket) => {
      const limit = this.#settings[bucket];
      const burst = limit === undefined ? undefined : burstOf(limit);
      if (limit?.perSecond === undefined || burst === undefined) {
        return [];
      }
      const costs = starts.map((start) => ({ atNs: start.atNs, cost: costOf(bucket, start) }));
      const most = mostAtOnce(costs, limit.perSecond / SECOND);
      const largest = Math.max(0, ...costs.map(({ cost }) => cost));
      // A request that took its tokens may start late, one of each queue.
      const allowed = Math.max(burst, largest) + this.queues.length * largest;
      return most > allowed * 1.000001 ? [{ rate, most, allowed }] : [];
    });
    return { tooMuch, isHeldBackForNothing: this.#isHeldBackForNothing(starts) };
  }

  // --- internal ---

  /** Always busy readers of one size under one limit: it must be reached. */
  #isHeldBackForNothing(starts: readonly Start[]): boolean {
    const set = this.#settings.flatMap(({ perSecond }, bucket) =>
      perSecond === undefined ? [] : [{ bucket, perSecond }],
    );
    const [only, ...others] = set;
    const isSaturated = this.#loads.every(
      ({ busyPart, depth, latencyNs, operations, bytes }) =>
        busyPart === 1 &&
        operations.length === 1 &&
        bytes.length === 1 &&
        (depth / (latencyNs + LATE_MAX_NS)) * SECOND > 2 * (only?.perSecond ?? 0),
    );
    if (only === undefined || others.length > 0 || only.bucket !== 0 || !isSaturated) {
      return false;
    }
    return starts.length < (this.#nowNs / SECOND) * only.perSecond * 0.98 - 1;
  }
}

function costOf(bucket: number, { isWrite, bytes }: Start): number {
  const isConcerned = bucket % 3 === 0 || isWrite === (bucket % 3 === 2);
  return isConcerned ? (bucket < 3 ? 1 : bytes) : 0;
}

/** The most by which any span of time exceeds what its rate gives. */
function mostAtOnce(
  costs: readonly { readonly atNs: number; readonly cost: number }[],
  rate: number,
): number {
  let excess = 0;
  let most = 0;
  let lastNs = 0;
  for (const { atNs, cost } of costs) {
    excess = Math.max(0, excess - (atNs - lastNs) * rate) + cost;
    lastNs = atNs;
    most = Math.max(most, excess);
  }
  return most;
}
