import { expect, test } from "bun:test";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { FakeSource } from "../sources/fake-source.ts";
import { Intent, IntentRing } from "./intent-ring.ts";
import { StripeService } from "./stripe-service.ts";
import { Phase, phaseOf, StripeState, WRITTEN_BIT } from "./stripe-state.ts";
import { TouchOrder } from "./touch-order.ts";

const STRIPES = 64;
const STRIPE_SECTORS = 64;
const EIO = -5;
const { FETCHED, WRITTEN, HAS_SOURCE, CHANGED } = STRIPE_FLAG;

test("a stripe that is asked for becomes ready when it is durable, and its queue is woken", () => {
  const world = started();
  world.ring.push(Intent.fetch, 7, 1, 0);
  world.turn();
  world.source.finish(0);
  world.turn();
  world.service.fetcher.baseWritten(0, 0);
  world.state.want(0);
  world.turn();
  expect(world.asked).toEqual(["write 7", "flush base"]);
  expect(world.wakes).toBe(1);
  world.commit();
  expect(world.asked).toEqual(["write 7", "flush base", "sector 1", "flush metadata"]);
  expect(world.phase(7)).toBe(Phase.ready);
  expect(world.flags[7]).toBe(HAS_SOURCE | FETCHED);
});

test("stripes that were written while a round was under way share the next one", () => {
  const world = started();
  world.ring.push(Intent.fetch, 0, 3, 0);
  world.fetchFirst();
  expect(world.asked.filter((what) => what === "flush base").length).toBe(1);
  world.fetchFirst();
  world.fetchFirst();
  world.commit();
  world.turn();
  world.commit();
  expect(world.asked.filter((what) => what === "flush base").length).toBe(2);
  expect([0, 1, 2].map((stripe) => world.phase(stripe))).toEqual([0, 0, 0]);
});

test("WRITTEN of a stripe that is being fetched comes with FETCHED, in one round", () => {
  const world = started({ isWrittenTracked: true });
  world.ring.push(Intent.fetch | Intent.written, 7, 1, 0);
  world.fetchFirst();
  world.commit();
  expect(world.flags[7]).toBe(HAS_SOURCE | FETCHED | WRITTEN);
  expect(world.state.load(7) & WRITTEN_BIT).toBe(WRITTEN_BIT);
  expect(world.asked.filter((what) => what === "flush metadata").length).toBe(1);
});

test("a stripe whose retries are used up is listed, and forgotten when it is tried again and comes", () => {
  const world = started();
  world.ring.push(Intent.fetch, 7, 1, 0);
  world.turn();
  world.source.finish(0, EIO);
  world.turn();
  expect([...world.service.failedStripes]).toEqual([7]);
  expect(world.asked).toEqual([`stripe_fetch_failed 7: ${EIO}`]);
  world.service.retryFailed();
  expect(world.service.failedStripes.size).toBe(0);
  world.fetchFirst();
  world.commit();
  expect(world.phase(7)).toBe(Phase.ready);
});

test("a queue that found its ring full is woken when there is room, though no stripe has changed", () => {
  const world = started();
  const stripe = 7;
  world.state.take(stripe, Phase.fetching);
  world.state.setPhase(stripe, Phase.ready);
  world.turn();
  while (world.ring.push(Intent.fetch, stripe, 1, 0)) {
    // There already: nothing comes of it.
  }
  world.state.want(0);
  world.turn();
  expect(world.wakes).toBe(1);
  world.ring.push(Intent.fetch, stripe, 1, 0);
  world.state.want(0);
  world.turn();
  expect(world.wakes).toBe(1);
});

test("stopped: what is on the base becomes durable, what is read is dropped, then it is drained", () => {
  const world = started();
  world.ring.push(Intent.fetch, 0, 2, 0);
  world.turn();
  world.source.finish(0);
  world.turn();
  world.service.stop();
  world.source.finish(0);
  world.turn();
  expect(world.service.isDrained).toBe(false);
  world.service.fetcher.baseWritten(0, 0);
  world.turn();
  world.commit();
  expect(world.service.isDrained).toBe(true);
  expect([world.phase(0), world.phase(1)]).toEqual([Phase.ready, Phase.unfetched]);
});

test("what queues ask for is told, once a stripe and in its order; what they replace is not", () => {
  const world = started();
  world.ring.push(Intent.fetch, 9, 2, 0);
  world.ring.push(Intent.fetch, 3, 1, 0);
  world.ring.push(Intent.fetch, 9, 1, 0);
  world.state.take(20, Phase.claimed);
  world.ring.push(Intent.changed, 20, 1, world.state.baseFailures());
  world.turn();
  expect(world.touches.runs).toEqual([
    { first: 9, count: 2 },
    { first: 3, count: 1 },
  ]);
});

test.each([
  { what: "never before", flags: FETCHED, counted: 1 },
  { what: "before the last archive", flags: FETCHED | WRITTEN, counted: 0 },
])(
  "changes are tracked, a stripe that was written $what: CHANGED is durable before the write may go",
  ({ flags, counted }) => {
    const world = started({ isWrittenTracked: true, isChangeTracked: true, first: flags });
    const writtenBefore = world.state.counter("written");
    expect(world.state.load(0) & WRITTEN_BIT).toBe(0);
    world.ring.push(Intent.written, 0, 1, 0);
    world.turn();
    expect(world.state.load(0) & WRITTEN_BIT).toBe(0);
    world.service.commit.sectorWritten(0, true);
    world.service.commit.metadataFlushed(true);
    expect(world.flags[0]).toBe(FETCHED | WRITTEN | CHANGED);
    expect(world.state.load(0) & WRITTEN_BIT).toBe(WRITTEN_BIT);
    expect(world.state.counter("written")).toBe(writtenBefore + counted);
  },
);

test("changes are tracked: a stripe that is replaced, and one that is only fetched", () => {
  const world = started({ isWrittenTracked: true, isChangeTracked: true });
  world.state.take(20, Phase.claimed);
  world.ring.push(Intent.changed, 20, 1, world.state.baseFailures());
  world.turn();
  world.commit();
  expect(world.flags[20]).toBe(HAS_SOURCE | FETCHED | WRITTEN | CHANGED);
  world.ring.push(Intent.fetch, 7, 1, 0);
  world.fetchFirst();
  world.commit();
  expect(world.flags[7]).toBe(HAS_SOURCE | FETCHED);
});

test("a last stripe that is short is fetched before the disk grows, as far as the disk went", () => {
  const world = started({ isWrittenTracked: true, missingSectors: 24 });
  const last = STRIPES - 1;
  expect(world.service.readyToGrow()).toBe(false);
  world.turn();
  world.source.finish(0);
  world.turn();
  expect(world.service.readyToGrow()).toBe(false);
  world.service.fetcher.baseWritten(0, 0);
  world.turn();
  expect(world.service.readyToGrow()).toBe(false);
  world.commit();
  expect(world.service.readyToGrow()).toBe(true);
  expect(world.asked).toContain(`write ${last} (40 sectors)`);
});

test("a disk of whole stripes grows between rounds, whatever is fetched; new stripes are tracked", () => {
  const world = started({ isWrittenTracked: true });
  expect(world.service.readyToGrow()).toBe(true);
  world.ring.push(Intent.fetch, STRIPES - 1, 1, 0);
  world.turn();
  expect(world.service.readyToGrow()).toBe(true);
  const flags = new Uint8Array(2 * STRIPES);
  flags.set(world.service.commit.flags);
  world.service.grow(flags, 2 * STRIPES * STRIPE_SECTORS);
  world.ring.push(Intent.written, 2 * STRIPES - 1, 1, 0);
  world.fetchFirst();
  expect(world.asked).toContain(`write ${STRIPES - 1}`);
  expect(world.service.readyToGrow()).toBe(false);
  expect(world.phase(2 * STRIPES - 1)).toBe(Phase.ready);
  world.service.commit.sectorWritten(0, true);
  world.service.commit.metadataFlushed(true);
  expect(flags[2 * STRIPES - 1]).toBe(WRITTEN);
  expect(world.state.load(2 * STRIPES - 1)).toBe(WRITTEN_BIT);
});

// --- internal ---

/** One queue, two fetch buffers, and no second attempts. */
function started(
  options: {
    readonly isWrittenTracked?: boolean;
    readonly isChangeTracked?: boolean;
    /** Of the last stripe. */
    readonly missingSectors?: number;
    /** Flags of stripe 0. */
    readonly first?: number;
  } = {},
) {
  const { isWrittenTracked = false, isChangeTracked = false, missingSectors = 0 } = options;
  const asked: string[] = [];
  const flags = new Uint8Array(STRIPES).fill(HAS_SOURCE);
  flags[0] = options.first ?? HAS_SOURCE;
  const state = StripeState.create(flags, {
    queues: 1,
    buffers: 2,
    stripesMax: 2 * STRIPES,
    isChangeTracked,
  });
  const shared = new SharedArrayBuffer(IntentRing.sharedBytes(16));
  const source = new FakeSource({
    sectors: STRIPES * STRIPE_SECTORS,
    stripeBytes: STRIPE_SECTORS * 512,
    requestsMax: 2,
    byteAt: () => 1,
    store: () => {},
  });
  const touches = new TouchOrder(STRIPES);
  const world = { wakes: 0 };
  const service = new StripeService({
    state,
    rings: [shared],
    flags,
    source,
    stripeSectors: STRIPE_SECTORS,
    diskSectors: STRIPES * STRIPE_SECTORS - missingSectors,
    bufferAddresses: [2 ** 20, 2 ** 21],
    reservedBuffers: 1,
    sectorPlaces: [new Uint8Array(512)],
    isWrittenTracked,
    isChangeTracked,
    touches,
    retry: { retriesMax: 0, pauseMs: 100 },
    host: {
      isZero: () => false,
      seal: () => true,
      writeBase: (_buffer, offset, _address, bytes) => {
        const short = bytes === STRIPE_SECTORS * 512 ? "" : ` (${bytes / 512} sectors)`;
        asked.push(`write ${offset / (STRIPE_SECTORS * 512)}${short}`);
      },
      zeroBase: () => asked.push("zero"),
      flushBase: () => asked.push("flush base"),
      writeSector: (_place, sector) => asked.push(`sector ${sector}`),
      flushMetadata: () => asked.push("flush metadata"),
      wakeQueue: () => {
        world.wakes += 1;
      },
      report: (event, stripe, result) => asked.push(`${event} ${stripe}: ${result}`),
    },
  });
  const turn = () => service.turn(0);
  return Object.assign(world, {
    asked,
    flags,
    state,
    source,
    service,
    touches,
    turn,
    ring: new IntentRing(shared),
    phase: (stripe: number) => phaseOf(state.load(stripe)),
    /** The oldest read of the source ends, and the write that follows. */
    fetchFirst: () => {
      turn();
      const buffer = source.underWay[0]?.id ?? -1;
      source.finish(0);
      turn();
      service.fetcher.baseWritten(buffer, 0);
      turn();
    },
    /** The round under way ends, of stripes in one sector. */
    commit: () => {
      service.commit.baseFlushed(true);
      service.commit.sectorWritten(0, true);
      service.commit.metadataFlushed(true);
    },
  });
}
