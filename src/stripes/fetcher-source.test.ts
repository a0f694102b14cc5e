/** What the fetcher tells its source about who waits, and what happens when nobody is to wait any more. */
import { expect, test } from "bun:test";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { FakeSource } from "../sources/fake-source.ts";
import { Fetcher } from "./fetcher.ts";
import { Phase, phaseOf, StripeState } from "./stripe-state.ts";

const STRIPES = 16;
const STRIPE_SECTORS = 64;
const BUFFERS = 4;
const EIO = -5;
const ECANCELED = -125;

test("the source learns which requests somebody waits for", () => {
  const { fetcher, source } = started();
  fetcher.demand(9);
  fetcher.advance(0, true);
  fetcher.advance(1_000, true);
  expect(wishes(source)).toEqual([
    [9, true],
    [0, false],
    [1, false],
  ]);
});

test("a stripe of the background that a guest comes to want is raised, no other", () => {
  const { fetcher, source } = started();
  fetcher.advance(0, true);
  fetcher.demand(1);
  fetcher.advance(1, true);
  expect(wishes(source).slice(0, 3)).toEqual([
    [0, false],
    [1, true],
    [2, false],
  ]);
});

test("a demand for a stripe that has come, but was not taken yet, changes nothing", () => {
  const { fetcher, source, phase } = started();
  fetcher.advance(0, true);
  source.finish(0);
  fetcher.demand(0);
  fetcher.advance(1, true);
  expect(phase(0)).toBe(Phase.buffered);
});

test("giving up fails what waits for the source, what waits for a retry, and what comes later", () => {
  const { fetcher, source, log, phase } = started({ hasOrder: false });
  for (const stripe of [1, 2]) {
    fetcher.demand(stripe);
  }
  fetcher.advance(0, true);
  source.finish(0, EIO);
  fetcher.advance(0, true);
  fetcher.demand(1); // waits for its retry; 2 is under way
  fetcher.giveUp();
  fetcher.advance(1, true);
  expect(log).toEqual([`gave up 2: ${ECANCELED}`, `gave up 1: ${ECANCELED}`]);
  fetcher.demand(3);
  fetcher.advance(2, true);
  expect([1, 2, 3].map(phase)).toEqual([Phase.failed, Phase.failed, Phase.failed]);
  expect(source.underWay.length).toBe(1);
});

test("what comes from the source after giving up is dropped, and its buffer is free again", () => {
  const { fetcher, source, log, phase } = started({ hasOrder: false });
  fetcher.demand(2);
  fetcher.advance(0, true);
  fetcher.giveUp();
  expect(fetcher.isIdle).toBe(false);
  source.finish(0);
  fetcher.advance(1, true);
  expect(phase(2)).toBe(Phase.failed);
  expect(fetcher.isIdle).toBe(true);
  expect(log).toEqual([`gave up 2: ${ECANCELED}`]);
});

test("a stripe that is being written when the source is given up gets to the disk", () => {
  const { fetcher, source, log, phase } = started({ hasOrder: false });
  fetcher.demand(2);
  fetcher.advance(0, true);
  source.finish(0);
  fetcher.advance(0, true);
  fetcher.giveUp();
  fetcher.baseWritten(0, 0);
  expect(phase(2)).toBe(Phase.onBase);
  expect(log).toEqual(["loaded 2"]);
});

test("nothing is begun in the background after giving up", () => {
  const { fetcher, source } = started();
  fetcher.giveUp();
  fetcher.advance(0, true);
  expect(source.underWay).toEqual([]);
  expect(fetcher.dueMs).toBe(Number.POSITIVE_INFINITY);
});

// --- internal ---

function started({ hasOrder = true } = {}) {
  const log: string[] = [];
  const flags = new Uint8Array(STRIPES).fill(STRIPE_FLAG.HAS_SOURCE);
  const state = StripeState.create(flags, { queues: 1, buffers: BUFFERS });
  const source = new FakeSource({
    sectors: STRIPES * STRIPE_SECTORS,
    stripeBytes: STRIPE_SECTORS * 512,
    requestsMax: BUFFERS,
    byteAt: () => 1,
    store: () => {},
  });
  const fetcher: Fetcher = new Fetcher({
    state,
    source,
    stripeSectors: STRIPE_SECTORS,
    diskSectors: () => STRIPES * STRIPE_SECTORS,
    bufferAddresses: Array.from({ length: BUFFERS }, (_, i) => (i + 1) * 2 ** 20),
    reservedBuffers: 1,
    order: hasOrder ? () => Array.from({ length: STRIPES }, (_, i) => i).values() : undefined,
    host: {
      isZero: () => false,
      seal: () => true,
      writeBase: () => {},
      zeroBase: () => {},
      loaded: (stripe) => log.push(`loaded ${stripe}`),
      gaveUp: (stripe, result) => log.push(`gave up ${stripe}: ${result}`),
    },
  });
  return { fetcher, source, log, phase: (stripe: number) => phaseOf(state.load(stripe)) };
}

function wishes(source: FakeSource): readonly (readonly [number, boolean])[] {
  return source.underWay.map(({ stripe, isDemanded }) => [stripe, isDemanded] as const);
}
