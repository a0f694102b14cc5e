import { expect, test } from "bun:test";
import { Operation } from "../disk/request-table.ts";
import { STRIPE_FLAG } from "../formats/metadata.ts";
import { Intent, IntentRing } from "./intent-ring.ts";
import { RequestGate, Verdict } from "./request-gate.ts";
import { Phase, phaseOf, StripeState } from "./stripe-state.ts";

const { read, write, discard } = Operation;
const SIZE = 64;
const STRIPES = 40;
/** The last stripe has one sector. */
const DISK_SECTORS = (STRIPES - 1) * SIZE + 1;

test("ready stripes: requests go to the base and tell nobody", () => {
  const { gate, intents } = started({ flags: 0 });
  expect(gate.admitTransfer(0, read, 0, 3 * SIZE)).toBe(Verdict.base);
  expect(gate.admitTransfer(1, write, 10, 1)).toBe(Verdict.base);
  expect(intents()).toEqual([]);
});

test("a request of no sectors waits for nothing", () => {
  const { gate } = started({});
  expect(gate.admitTransfer(0, read, 0, 0)).toBe(Verdict.base);
});

test("a read of a stripe that is there passes one that waits for another stripe", () => {
  const { gate, state } = started({});
  ready(state, 5);
  expect(gate.admitTransfer(0, read, 4 * SIZE, 1)).toBe(Verdict.parked);
  expect(gate.admitTransfer(1, read, 5 * SIZE, 1)).toBe(Verdict.base);
});

test("several requests for one stripe ask for it once, and are released together in order", () => {
  const { gate, state, intents, announce, released } = started({});
  for (const slot of [0, 1, 2]) {
    expect(gate.admitTransfer(slot, read, 4 * SIZE, 1)).toBe(Verdict.parked);
  }
  gate.advance();
  expect(intents()).toEqual([[Intent.fetch, 4, 1]]);
  state.take(4, Phase.fetching);
  state.setPhase(4, Phase.buffered);
  expect(announce()).toEqual([0]);
  expect(released()).toEqual([
    [0, Verdict.buffer],
    [1, Verdict.buffer],
    [2, Verdict.buffer],
  ]);
});

test("a read of several stripes asks for those behind as well, and waits for the last", () => {
  const { gate, state, intents, announce, released } = started({});
  expect(gate.admitTransfer(0, read, SIZE - 1, 3 * SIZE)).toBe(Verdict.parked);
  expect(intents()).toEqual([
    [Intent.fetch, 0, 1],
    [Intent.fetch, 1, 3],
  ]);
  for (const stripe of [0, 1, 3]) {
    ready(state, stripe);
  }
  announce();
  expect(released()).toEqual([]);
  ready(state, 2);
  announce();
  expect(released()).toEqual([[0, Verdict.base]]);
});

test("data on the base lets reads go and keeps writes until it is durable", () => {
  const { gate, state, announce, released } = started({});
  gate.admitTransfer(0, write, 4 * SIZE, 1);
  state.take(4, Phase.fetching);
  state.setPhase(4, Phase.onBase);
  announce();
  expect(gate.admitTransfer(1, read, 4 * SIZE, 1)).toBe(Verdict.base);
  expect(released()).toEqual([]);
  state.setPhase(4, Phase.ready);
  announce();
  expect(released()).toEqual([[0, Verdict.base]]);
});

test("what waits for a stripe that fails, fails; a later request asks again", () => {
  const { gate, state, intents, announce, released } = started({});
  gate.admitTransfer(0, write, 4 * SIZE, 1);
  gate.admitTransfer(1, read, 4 * SIZE, 1);
  intents();
  state.take(4, Phase.fetching);
  state.fail(4, Phase.failed);
  announce();
  expect(released()).toEqual([
    [0, Verdict.failed],
    [1, Verdict.failed],
  ]);
  expect(gate.admitTransfer(0, read, 4 * SIZE, 1)).toBe(Verdict.parked);
  expect(intents()).toEqual([[Intent.fetch, 4, 1]]);
});

test("without copy-on-read a read of one stripe goes to the source, one of two fetches", () => {
  const { gate, intents } = started({ isCopyOnRead: false, directStripes: STRIPES });
  expect(gate.admitTransfer(0, read, 4 * SIZE, 1)).toBe(Verdict.source);
  expect(intents()).toEqual([]);
  expect(gate.admitTransfer(1, read, 5 * SIZE - 1, 2)).toBe(Verdict.parked);
});

test("with copy-on-read a read goes to the source and has its stripe fetched, asked for once", () => {
  const { gate, intents } = started({ directStripes: STRIPES });
  expect(gate.admitTransfer(0, read, 4 * SIZE, 1)).toBe(Verdict.source);
  expect(gate.admitTransfer(1, read, 4 * SIZE + 8, 1)).toBe(Verdict.source);
  expect(intents()).toEqual([[Intent.touched, 4, 1]]);
});

test("a stripe that is being fetched is read from the source, a claimed one is waited for", () => {
  const { gate, state, intents } = started({ directStripes: STRIPES });
  state.take(4, Phase.fetching);
  expect(gate.admitTransfer(0, read, 4 * SIZE, 1)).toBe(Verdict.source);
  state.take(5, Phase.claimed);
  expect(gate.admitTransfer(1, read, 5 * SIZE, 1)).toBe(Verdict.parked);
  expect(intents()).toEqual([]);
});

test("a stripe that failed since it was asked for is asked for again", () => {
  const { gate, state, intents } = started({ directStripes: STRIPES });
  gate.admitTransfer(0, read, 4 * SIZE, 1);
  intents();
  state.failUntaken(4);
  expect(gate.admitTransfer(0, read, 4 * SIZE, 1)).toBe(Verdict.source);
  expect(intents()).toEqual([[Intent.touched, 4, 1]]);
});

test("a stripe that the source does not hold wholly is fetched", () => {
  const { gate } = started({ directStripes: 4 });
  expect(gate.admitTransfer(0, read, 3 * SIZE, 1)).toBe(Verdict.source);
  expect(gate.admitTransfer(1, read, 4 * SIZE, 1)).toBe(Verdict.parked);
});

test("a read that the source failed waits for the fetch, also in the buffer, and goes to the base", () => {
  const { gate, state, intents, announce, released } = started({
    isCopyOnRead: false,
    directStripes: STRIPES,
  });
  gate.admitTransfer(0, read, 4 * SIZE, 1);
  expect(gate.admitElsewhere(0)).toBe(Verdict.parked);
  expect(intents()).toEqual([[Intent.fetch, 4, 1]]);
  state.take(4, Phase.fetching);
  state.setPhase(4, Phase.buffered);
  announce();
  expect(released()).toEqual([]);
  state.setPhase(4, Phase.onBase);
  announce();
  expect(released()).toEqual([[0, Verdict.base]]);
});

test("tracked: the first write waits for WRITTEN, with the fetch or alone", () => {
  const { gate, state, intents, announce, released } = started({ isWrittenTracked: true });
  ready(state, 5);
  gate.admitTransfer(0, write, 4 * SIZE, 1);
  gate.admitTransfer(1, write, 5 * SIZE, 1);
  expect(intents()).toEqual([
    [Intent.fetch | Intent.written, 4, 1],
    [Intent.written, 5, 1],
  ]);
  expect(gate.admitTransfer(2, read, 5 * SIZE, 1)).toBe(Verdict.base);
  state.setWritten(5);
  announce();
  expect(released()).toEqual([[1, Verdict.base]]);
});

test("a WRITTEN that cannot be stored fails the write and leaves the stripe", () => {
  const { gate, state, announce, released } = started({ isWrittenTracked: true, flags: 0 });
  gate.admitTransfer(0, write, 5 * SIZE, 1);
  state.fail(5, Phase.ready);
  announce();
  expect(released()).toEqual([[0, Verdict.failed]]);
  expect(gate.admitTransfer(0, read, 5 * SIZE, 1)).toBe(Verdict.base);
});

test("a write of whole stripes claims them, and is answered when they are durable", () => {
  const { gate, state, intents, announce, released } = started({});
  expect(gate.admitTransfer(0, write, 4 * SIZE, 2 * SIZE)).toBe(Verdict.base);
  expect(gate.isClaiming(0)).toBe(true);
  expect(gate.admitTransfer(1, read, 4 * SIZE, 1)).toBe(Verdict.parked);
  expect(intents()).toEqual([]);
  expect(gate.ended(0, true)).toBe(Verdict.parked);
  expect(intents()).toEqual([[Intent.changed, 4, 2]]);
  state.setPhase(4, Phase.ready);
  announce();
  expect(released()).toEqual([[1, Verdict.base]]);
  state.setPhase(5, Phase.ready);
  announce();
  expect(released()).toEqual([[0, Verdict.done]]);
});

test("the short last stripe is whole when all of it is written", () => {
  const { gate } = started({});
  expect(gate.admitTransfer(0, write, DISK_SECTORS - 1, 1)).toBe(Verdict.base);
  expect(gate.isClaiming(0)).toBe(true);
});

test("a write claims nothing before the stripes at its ends are there", () => {
  const { gate, state, intents, announce, released } = started({});
  expect(gate.admitTransfer(0, write, 4 * SIZE + 1, 2 * SIZE)).toBe(Verdict.parked);
  expect(intents()).toEqual([[Intent.fetch, 4, 1]]);
  expect(phaseOf(state.load(5))).toBe(Phase.unfetched);
  ready(state, 4);
  announce();
  expect(intents()).toEqual([[Intent.fetch, 6, 1]]);
  ready(state, 6);
  announce();
  expect(released()).toEqual([[0, Verdict.base]]);
  expect(phaseOf(state.load(5))).toBe(Phase.claimed);
});

test("tracked: a stripe that comes between the look at it and its claim is not written before WRITTEN", () => {
  const { gate, state, intents, announce, released } = started({
    isWrittenTracked: true,
    whenClaiming: (state) => ready(state, 5),
  });
  expect(gate.admitTransfer(0, write, 4 * SIZE, 2 * SIZE)).toBe(Verdict.parked);
  expect(intents()).toEqual([[Intent.written, 5, 1]]);
  state.setWritten(5);
  announce();
  expect(released()).toEqual([[0, Verdict.base]]);
});

test("a read of several stripes looks again at one that was on the base and had to be fetched anew", () => {
  const { gate, state, intents, announce, released } = started({});
  ready(state, 3);
  state.take(4, Phase.fetching);
  state.setPhase(4, Phase.onBase);
  expect(gate.admitTransfer(0, read, 3 * SIZE, 3 * SIZE)).toBe(Verdict.parked);
  state.setPhase(4, Phase.unfetched); // a sync failed: what the base has there is not certain
  ready(state, 5);
  intents();
  announce();
  expect(released()).toEqual([]);
  expect(intents()).toEqual([
    [Intent.fetch, 4, 1],
    [Intent.fetch, 5, 1],
  ]);
  ready(state, 4);
  announce();
  expect(released()).toEqual([[0, Verdict.base]]);
});

test("a claimed write that fails gives its stripes up, and wakes who waits for them", () => {
  const { gate, state, announce, released } = started({});
  gate.admitTransfer(0, write, 4 * SIZE, SIZE);
  gate.admitTransfer(1, write, 4 * SIZE, SIZE);
  expect(gate.ended(0, false)).toBe(Verdict.failed);
  announce();
  expect(released()).toEqual([[1, Verdict.base]]);
  expect(phaseOf(state.load(4))).toBe(Phase.claimed);
});

test("a claim that is lost fails its request and leaves the stripe in the source", () => {
  const { gate, state, announce, released } = started({});
  gate.admitTransfer(0, write, 4 * SIZE, 2 * SIZE);
  gate.ended(0, true);
  state.fail(4, Phase.lost);
  state.setPhase(5, Phase.ready);
  announce();
  expect(released()).toEqual([[0, Verdict.failed]]);
  expect(phaseOf(state.load(4))).toBe(Phase.unfetched);
});

test("a discard of ranges that ascend claims whole stripes; ranges that meet in one fetch it", () => {
  const { gate } = started({});
  gate.begin(0, discard);
  gate.addRange(0, 4 * SIZE, SIZE);
  gate.addRange(0, 9 * SIZE, SIZE);
  expect(gate.admit(0)).toBe(Verdict.base);
  expect(gate.isClaiming(0)).toBe(true);
  gate.begin(1, discard);
  gate.addRange(1, 20 * SIZE, SIZE);
  gate.addRange(1, 20 * SIZE, SIZE);
  expect(gate.admit(1)).toBe(Verdict.parked);
});

test("a full ring: what could not be told is told later, fetches and claims", () => {
  const { gate, intents, announce, state, released } = started({ entries: 1 });
  gate.admitTransfer(0, read, 4 * SIZE, 1);
  gate.admitTransfer(1, read, 5 * SIZE, 1);
  gate.admitTransfer(2, read, 6 * SIZE, 1);
  gate.admitTransfer(3, write, 8 * SIZE, SIZE);
  expect(gate.ended(3, true)).toBe(Verdict.parked);
  const told = [...intents()];
  for (let i = 0; i < 3; i++) {
    state.noteNews();
    announce();
    told.push(...intents());
  }
  expect(told.sort((a, b) => (a[1] ?? 0) - (b[1] ?? 0))).toEqual([
    [Intent.fetch, 4, 1],
    [Intent.fetch, 5, 1],
    [Intent.fetch, 6, 1],
    [Intent.changed, 8, 1],
  ]);
  expect(released()).toEqual([]);
});

// --- internal ---

interface Start {
  readonly flags?: number;
  readonly entries?: number;
  readonly isCopyOnRead?: boolean;
  readonly directStripes?: number;
  readonly isWrittenTracked?: boolean;
  /** What others do when the gate has looked at the stripes of a request and is about to claim them. */
  readonly whenClaiming?: (state: StripeState) => void;
}

function started(options: Start) {
  const { flags = STRIPE_FLAG.HAS_SOURCE, entries = 16 } = options;
  const state = StripeState.create(new Uint8Array(STRIPES).fill(flags), { queues: 1, buffers: 1 });
  const shared = new SharedArrayBuffer(IntentRing.sharedBytes(entries));
  const ring = new IntentRing(shared);
  const own = new StripeState(state.shared);
  own.baseFailures = () => {
    options.whenClaiming?.(state);
    return state.baseFailures();
  };
  const gate = new RequestGate({
    state: own,
    ring: shared,
    queue: 0,
    slotsMax: 8,
    rangesMax: 2,
    stripeSectors: SIZE,
    diskSectors: DISK_SECTORS,
    directStripes: options.directStripes ?? 0,
    isCopyOnRead: options.isCopyOnRead ?? true,
    isWrittenTracked: options.isWrittenTracked ?? false,
    wakeStripeWorker: () => {},
    wakeQueue: () => {},
  });
  const released = () => {
    gate.advance();
    const slots = Array.from(gate.released.subarray(0, gate.releasedCount));
    gate.releasedCount = 0;
    return slots.map((slot) => [slot, gate.verdict[slot] ?? -1]);
  };
  /** As the stripe worker ends its turn, and the queue wakes. */
  const announce = () => {
    const woken: number[] = [];
    state.announce((queue) => woken.push(queue));
    gate.advance();
    return woken;
  };
  return { gate, state, released, announce, intents: () => drained(ring) };
}

function drained(ring: IntentRing): number[][] {
  const intents: number[][] = [];
  while (ring.waiting() > 0) {
    intents.push([ring.intent, ring.stripe, ring.count]);
    ring.shift(ring.count);
  }
  return intents;
}

function ready(state: StripeState, stripe: number): void {
  state.take(stripe, Phase.fetching);
  state.setPhase(stripe, Phase.ready);
}
