import { expect, test } from "bun:test";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { FakeSource } from "../sources/fake-source.ts";
import { Fetcher } from "./fetcher.ts";
import { Phase, phaseOf, StripeState } from "./stripe-state.ts";

const STRIPES = 200;
const STRIPE_SECTORS = 64;
const STRIPE_BYTES = STRIPE_SECTORS * 512;
/** The last stripe has one sector. */
const DISK_SECTORS = (STRIPES - 1) * STRIPE_SECTORS + 1;
const EIO = -5;

test("one fetch is one read of the source and one write of the base", () => {
  const { fetcher, source, log, phase } = started({});
  fetcher.demand(7);
  fetcher.advance(0, true);
  expect(source.underWay).toMatchObject([{ stripe: 7, offsetBytes: 0, lengthBytes: STRIPE_BYTES }]);
  source.finish(0);
  fetcher.advance(0, true);
  expect(phase(7)).toBe(Phase.buffered);
  fetcher.baseWritten(0, 0);
  expect(log).toEqual([`write 0 at ${7 * STRIPE_BYTES}: ${STRIPE_BYTES}`, "loaded 7"]);
  expect(phase(7)).toBe(Phase.onBase);
});

test("a stripe asked for twice, or under way, is fetched once", () => {
  const { fetcher, source } = started({});
  fetcher.demand(7);
  fetcher.demand(7);
  fetcher.advance(0, true);
  fetcher.demand(7);
  fetcher.advance(0, true);
  expect(source.underWay.length).toBe(1);
});

test("a demand outlives the claim of a queue that was faster by a moment and gives it up", () => {
  const { fetcher, source, state } = started({});
  const take = state.take.bind(state);
  state.take = (stripe, phase) => {
    state.take = take;
    return take(stripe, Phase.claimed) && take(stripe, phase);
  };
  fetcher.demand(7);
  fetcher.advance(0, true);
  expect(source.underWay).toEqual([]);
  state.setPhase(7, Phase.unfetched);
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([7]);
  expect(fetcher.isIdle).toBe(false);
});

test("the last stripe of the disk is as short as the disk is", () => {
  const { fetcher, source, log } = started({});
  fetcher.demand(STRIPES - 1);
  fetcher.advance(0, true);
  expect(source.underWay[0]?.lengthBytes).toBe(512);
  source.finish(0);
  fetcher.advance(0, true);
  expect(log).toEqual([`write 0 at ${(STRIPES - 1) * STRIPE_BYTES}: 512`]);
});

test("stripes that guests read from the source come when they pause, one now and then while they go on", () => {
  const { fetcher, source } = started({});
  for (const stripe of [7, 90, 30]) {
    fetcher.touched(stripe);
    fetcher.advance(0, true);
  }
  fetcher.touched(60);
  fetcher.advance(1, true);
  expect(stripesOf(source)).toEqual([]);
  expect(fetcher.dueMs).toBe(3); // 2 ms after the last one was told
  fetcher.advance(3, true);
  expect(stripesOf(source)).toEqual([7, 90]);
});

test("guests that go on and on reading from the source do not keep stripes from being fetched", () => {
  const { fetcher, source } = started({});
  let begun = 0;
  for (let ms = 0; ms < 1000; ms++) {
    fetcher.touched(ms % STRIPES);
    fetcher.advance(ms, true);
    begun += source.underWay.length;
    if (source.underWay.length > 0) {
      endFirst(fetcher, source, ms);
    }
  }
  expect(begun).toBe(49);
});

test("a demand for a stripe that was read from the source begins at once", () => {
  const { fetcher, source } = started({});
  fetcher.touched(7);
  fetcher.touched(90);
  fetcher.demand(90);
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([90]);
});

test("the background leaves buffers to demand, and begins nothing while demand waits", () => {
  const { fetcher, source } = started({ order: true });
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([0, 1]);
  for (const stripe of [100, 110, 122]) {
    fetcher.demand(stripe);
  }
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([0, 1, 100]);
  for (const next of [110, 122]) {
    endFirst(fetcher, source);
    fetcher.advance(0, true);
    expect(stripesOf(source)).toContain(next);
  }
  expect(stripesOf(source)).toEqual([100, 110, 122]);
});

test("failures: three retries with pauses that double, then the stripe is given up", () => {
  const { fetcher, source, log, phase } = started({});
  fetcher.demand(7);
  fetcher.advance(0, true);
  let nowMs = 0;
  for (const pauseMs of [100, 200, 400]) {
    source.finish(0, EIO);
    fetcher.advance(nowMs, true);
    expect(fetcher.dueMs).toBe(nowMs + pauseMs);
    fetcher.demand(7); // does not shorten the pause
    fetcher.advance(nowMs + pauseMs - 1, true);
    expect(source.underWay.length).toBe(0);
    nowMs += pauseMs;
    fetcher.advance(nowMs, true);
  }
  source.finish(0, EIO);
  fetcher.advance(nowMs, true);
  expect(log).toEqual(["gave up 7: -5"]);
  expect(phase(7)).toBe(Phase.failed);
  fetcher.demand(7); // a later request tries again
  fetcher.advance(nowMs, true);
  expect(source.underWay.length).toBe(1);
});

test("a retry that nobody waits for is one of the background: its pause, its rate, its count", () => {
  const { fetcher, source, state } = started({ order: true });
  fetcher.background.limit(STRIPE_BYTES);
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([0]);
  source.finish(0, EIO);
  fetcher.advance(0, true);
  fetcher.advance(500, true); // its own pause is over, the second of the rate is not
  expect(stripesOf(source)).toEqual([]);
  fetcher.background.pause();
  fetcher.advance(1_000, true);
  expect([stripesOf(source), fetcher.dueMs]).toEqual([[], Number.POSITIVE_INFINITY]);
  fetcher.background.resume();
  fetcher.advance(1_000, true);
  expect(stripesOf(source)).toEqual([0]); // before others
  expect([state.counter("demandFetches"), state.counter("backgroundFetches")]).toEqual([0, 2]);
});

test("a retry that nobody waits for comes also where there is no background", () => {
  const { fetcher, source } = started({});
  fetcher.touched(7);
  fetcher.advance(0, true);
  fetcher.advance(2, true);
  source.finish(0, EIO);
  fetcher.advance(3, true);
  expect(stripesOf(source)).toEqual([]);
  fetcher.advance(103, true);
  expect(stripesOf(source)).toEqual([7]);
});

test("a stripe that was asked for is tried again as a demand, though nobody asks anew and the background is paused", () => {
  const { fetcher, source } = started({ order: true });
  fetcher.background.pause();
  fetcher.demand(7);
  fetcher.advance(0, true);
  for (const nowMs of [100, 300]) {
    source.finish(0, EIO);
    fetcher.advance(nowMs - 100, true);
    fetcher.advance(nowMs + 100, true);
    expect(stripesOf(source)).toEqual([7]);
  }
});

test("a stripe that came is nobody's demand when it has to be fetched anew", () => {
  const { fetcher, source, phase } = started({});
  fetcher.background.pause();
  fetcher.demand(7);
  fetcher.advance(0, true);
  source.finish(0);
  fetcher.advance(0, true);
  fetcher.baseWritten(0, 0);
  fetcher.forget(7);
  fetcher.failed(7, EIO);
  expect(phase(7)).toBe(Phase.unfetched);
  fetcher.advance(1_000, true);
  expect(stripesOf(source)).toEqual([]);
});

test("a demand for a claimed stripe is kept until the claim is given up", () => {
  const { fetcher, source, state } = started({});
  state.take(7, Phase.claimed);
  fetcher.demand(7);
  fetcher.demand(8);
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([8]);
  state.setPhase(7, Phase.unfetched);
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([8, 7]);
});

test("a failed base write reads the source anew", () => {
  const { fetcher, source, phase } = started({});
  fetcher.demand(7);
  fetcher.advance(0, true);
  source.finish(0);
  fetcher.advance(0, true);
  fetcher.baseWritten(0, EIO);
  expect(phase(7)).toBe(Phase.unfetched);
  fetcher.advance(100, true);
  expect(source.underWay.length).toBe(1);
});

test("a stripe that the source does not have fails without a read", () => {
  const { fetcher, log, phase } = started({ sourceSectors: STRIPE_SECTORS });
  fetcher.demand(7);
  fetcher.advance(0, true);
  expect(log).toEqual(["gave up 7: -2"]);
  expect(phase(7)).toBe(Phase.failed);
});

test("zeros take no space, or are written where that is not to be had", () => {
  const { fetcher, source, log } = started({ isZero: true });
  fetcher.demand(7);
  fetcher.advance(0, true);
  source.finish(0);
  fetcher.advance(0, true);
  fetcher.baseWritten(0, -95);
  expect(log.map((line) => line.split(" ")[0])).toEqual(["zero", "write"]);
});

test("a buffer under a reader is not used again before the reader is done", () => {
  const { fetcher, source, state } = started({ buffers: 2 });
  fetcher.demand(7);
  fetcher.advance(0, true);
  source.finish(0);
  fetcher.advance(0, true);
  const buffer = state.pinBuffer(7);
  fetcher.baseWritten(buffer, 0);
  expect(state.pinBuffer(7)).toBe(-1);
  fetcher.demand(8);
  fetcher.demand(9);
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([8]);
  expect(fetcher.dueMs).toBe(1);
  state.unpinBuffer(buffer);
  fetcher.advance(1, true);
  expect(stripesOf(source)).toEqual([8, 9]);
});

test("the background keeps its rate, and its pause", () => {
  const { fetcher, source } = started({ order: true });
  fetcher.background.limit(STRIPE_BYTES * 10);
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([0]);
  expect(fetcher.dueMs).toBe(100);
  fetcher.background.pause();
  fetcher.advance(100, true);
  expect(stripesOf(source)).toEqual([0]);
  fetcher.background.resume();
  fetcher.advance(100, true);
  expect(stripesOf(source)).toEqual([0, 1]);
});

test("a source that fails stripe after stripe pauses the background", () => {
  const { fetcher, source } = started({ order: true, retriesMax: 0 });
  for (let turn = 0; turn < 200; turn++) {
    while (source.underWay.length > 0) {
      source.finish(0, EIO);
    }
    fetcher.advance(turn, true);
  }
  expect(fetcher.background.isPaused).toBe(true);
  expect(source.underWay).toEqual([]);
});

test("demands that go upwards bring the next stripes, before the background's", () => {
  const { fetcher, source } = started({ order: true, buffers: 8, aheadMax: 4 });
  fetcher.background.pause();
  for (const stripe of [100, 101, 103]) {
    fetcher.demand(stripe);
  }
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([100, 101, 103, 102, 104, 105]);
  fetcher.background.resume();
  fetcher.advance(1, true);
  expect(stripesOf(source).slice(6)).toEqual([0]);
});

test("stripes that are not next to each other bring nothing but themselves", () => {
  const { fetcher, source } = started({ buffers: 8, aheadMax: 4 });
  for (const stripe of [100, 90, 80]) {
    fetcher.demand(stripe);
  }
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([100, 90, 80]);
});

test("the background leaves more buffers free while stripes are asked for", () => {
  const { fetcher, source } = started({ order: true, buffers: 8, reservedWhenAsked: 6 });
  fetcher.demand(100);
  fetcher.advance(0, true);
  expect(stripesOf(source)).toEqual([100, 0]);
  fetcher.advance(1_000, true);
  expect(stripesOf(source)).toEqual([100, 0, 1, 2, 3, 4, 5]);
});

test("stopped: nothing is begun, what comes from the source is dropped, what is being written goes on", () => {
  const { fetcher, source, log, phase } = started({ order: true });
  fetcher.advance(0, true);
  source.finish(0);
  fetcher.advance(1, true);
  fetcher.stop();
  fetcher.demand(50);
  source.finish(0);
  fetcher.advance(2, true);
  expect(fetcher.isWriting).toBe(true);
  expect(phase(1)).toBe(Phase.unfetched);
  fetcher.baseWritten(0, 0);
  fetcher.advance(3, true);
  expect(log.at(-1)).toBe("loaded 0");
  expect([fetcher.isWriting, fetcher.isIdle, stripesOf(source).length]).toEqual([false, true, 0]);
  expect(fetcher.dueMs).toBe(Number.POSITIVE_INFINITY);
});

test("a source is closed when nothing is left of it", () => {
  const { fetcher, source } = started({});
  fetcher.closeSource();
  expect(source.isDisposed).toBe(true);
  fetcher.advance(0, true);
  expect(fetcher.dueMs).toBe(Number.POSITIVE_INFINITY);
});

// --- internal ---

interface Start {
  readonly order?: boolean;
  readonly isZero?: boolean;
  readonly buffers?: number;
  readonly sourceSectors?: number;
  readonly retriesMax?: number;
  readonly aheadMax?: number;
  readonly reservedWhenAsked?: number;
}

/** Three buffers, of which the background leaves one to demand. */
function started(start: Start) {
  const { order, isZero = false, buffers = 3, sourceSectors, retriesMax = 3 } = start;
  const { aheadMax = 0, reservedWhenAsked = 1 } = start;
  const log: string[] = [];
  const flags = new Uint8Array(STRIPES).fill(STRIPE_FLAG.HAS_SOURCE);
  const state = StripeState.create(flags, { queues: 1, buffers });
  const source = new FakeSource({
    sectors: sourceSectors ?? DISK_SECTORS,
    stripeBytes: STRIPE_BYTES,
    requestsMax: buffers,
    byteAt: () => 1,
    store: () => {},
  });
  const fetcher: Fetcher = new Fetcher({
    state,
    source,
    stripeSectors: STRIPE_SECTORS,
    diskSectors: () => DISK_SECTORS,
    // The first one is used first.
    bufferAddresses: Array.from({ length: buffers }, (_, i) => (i + 1) * 2 ** 20),
    reservedBuffers: 1,
    reservedWhenAsked,
    aheadMax,
    order: order === true ? () => Array.from({ length: STRIPES }, (_, i) => i).values() : undefined,
    retry: { retriesMax, pauseMs: 100 },
    host: {
      isZero: () => isZero,
      seal: () => true,
      writeBase: (_buffer, offset, _address, bytes) => log.push(`write 0 at ${offset}: ${bytes}`),
      zeroBase: (_buffer, offset) => log.push(`zero ${offset}`),
      loaded: (stripe) => log.push(`loaded ${stripe}`),
      gaveUp: (stripe, result) => {
        log.push(`gave up ${stripe}: ${result}`);
        fetcher.background.failed(0);
      },
    },
  });
  return { fetcher, source, log, state, phase: (stripe: number) => phaseOf(state.load(stripe)) };
}

function stripesOf(source: FakeSource): readonly number[] {
  return source.underWay.map(({ stripe }) => stripe);
}

/** The oldest read of the source ends, and the write of the base with it. */
function endFirst(fetcher: Fetcher, source: FakeSource, nowMs = 0): void {
  const buffer = source.underWay[0]?.id ?? -1;
  source.finish(0);
  fetcher.advance(nowMs, true);
  fetcher.baseWritten(buffer, 0);
}
