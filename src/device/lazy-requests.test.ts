import { expect, test } from "bun:test";
import { type Finished, Operation, Outcome, SECTOR } from "../../tests/support/executor-world.ts";
import { LazyWorld, STRIPE_SECTORS, STRIPES } from "../../tests/support/lazy-world.ts";
import { Wait } from "../disk/slot-waits.ts";
import { Intent } from "../stripes/intent-ring.ts";
import { Phase, phaseOf } from "../stripes/stripe-state.ts";

const { read, write, discard, flush } = Operation;
const EIO = -5;
const PUNCH_HOLE = 2;
const STRIPE_BYTES = STRIPE_SECTORS * SECTOR;
/** The first sector of a stripe that no source has. */
const READY = 6 * STRIPE_SECTORS;

test("stripes that are there: requests go to the base and tell nobody", () => {
  using lazy = new LazyWorld({ isEnciphered: true });
  const data = pattern(4096);
  lazy.world.admit({ operation: write, sector: READY, segments: [4096], data });
  lazy.world.admit({ operation: flush, sector: 0, segments: [] });
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.ok, Outcome.ok]);
  lazy.world.admit({ operation: read, sector: READY, segments: [4096] });
  expect(lazy.world.drain()[0]?.data).toEqual(data);
  expect(lazy.intents()).toEqual([]);
  expect(lazy.wakes).toBe(0);
});

test.each([
  { name: "plain", isEnciphered: false, segments: [4096] },
  { name: "enciphered", isEnciphered: true, segments: [4096] },
  { name: "plain, odd segments", isEnciphered: false, segments: [1, 700, 2300, 1095] },
  { name: "enciphered, odd segments", isEnciphered: true, segments: [1, 700, 2300, 1095] },
])("a read waits for its stripe and is answered from the fetch buffer: $name", (kind) => {
  using lazy = new LazyWorld({ isEnciphered: kind.isEnciphered });
  lazy.world.admit({ operation: read, sector: 70, segments: kind.segments, gapBytes: 3 });
  expect(lazy.world.turn()).toEqual([]);
  expect(lazy.intents()).toEqual([[Intent.fetch, 1, 1]]);
  expect(lazy.wakes).toBe(1);
  const [finished] = lazy.load(1);
  expect(finished?.outcome).toBe(Outcome.ok);
  expect(finished?.data).toEqual(lazy.source.slice(70 * SECTOR, 78 * SECTOR));
  expect(lazy.world.engine.underWay).toEqual([]);
});

test("what a request waits for is told: its stripe, until its data is there", () => {
  using lazy = new LazyWorld({ isEnciphered: true });
  const slot = lazy.world.admit({ operation: read, sector: 70, segments: [4096] });
  const other = lazy.world.admit({
    operation: discard,
    sector: 0,
    segments: [16],
    ranges: [{ sector: 100, sectorCount: 8, flags: 0 }],
  });
  lazy.world.turn();
  const { waits } = lazy.world;
  expect([waits.wait(slot), waits.stripe(slot)]).toEqual([Wait.stripe, 1]);
  expect([waits.wait(other), waits.stripe(other)]).toEqual([Wait.stripe, 1]);
  expect(lazy.load(1)).toHaveLength(1);
  expect(waits.wait(slot)).toBe(Wait.none);
  expect(waits.wait(other)).toBe(Wait.stripe); // a write needs the stripe on the disk, and noted there
});

test("what a read of the image waits for is told", () => {
  using lazy = new LazyWorld({ isEnciphered: true, hasImage: true, isCopyOnRead: false });
  const slot = lazy.world.admit({ operation: read, sector: 70, segments: [4096] });
  lazy.world.turn();
  expect(lazy.world.waits.wait(slot)).toBe(Wait.image);
  expect(outcomes(lazy.finishImage(0))).toEqual([Outcome.ok]);
});

test("a fetch buffer stays as the base will have it, whatever is read from it", () => {
  using lazy = new LazyWorld({ isEnciphered: true, segmentsPerSlot: 16 });
  lazy.world.admit({ operation: read, sector: 64, segments: [1, STRIPE_BYTES - 1] });
  lazy.world.turn();
  lazy.load(1);
  const sealed = lazy.buffer.slice();
  lazy.world.admit({ operation: read, sector: 64, segments: [STRIPE_BYTES - 3, 3] });
  expect(lazy.world.turn()[0]?.data).toEqual(lazy.stripeOfSource(1));
  expect(lazy.buffer).toEqual(sealed);
  expect(lazy.state.isPinned(0)).toBe(false);
});

test("a fetch buffer whose data does not decipher is an error of the request", () => {
  using lazy = new LazyWorld({ isEnciphered: true });
  lazy.world.admit({ operation: read, sector: 64, segments: [4096] });
  lazy.world.turn();
  lazy.world.cipher.broken.add(66);
  expect(outcomes(lazy.load(1))).toEqual([Outcome.ioError]);
  expect(lazy.state.isPinned(0)).toBe(false);
});

test("a fetch buffer that is gone: the read waits for the base, and does not look again and again", () => {
  using lazy = new LazyWorld({ isEnciphered: true });
  lazy.world.admit({ operation: read, sector: 64, segments: [4096] });
  lazy.world.turn();
  lazy.load(1);
  lazy.state.recallBuffer(0);
  lazy.world.admit({ operation: read, sector: 64, segments: [4096] });
  expect(lazy.world.turn()).toEqual([]);
  expect(lazy.store(1)).toEqual([]);
  expect(lazy.world.finishWork(0)[0]?.data).toEqual(lazy.source.slice(64 * SECTOR, 72 * SECTOR));
});

test("a read that waits keeps nobody: one of another stripe is answered", () => {
  using lazy = new LazyWorld({ isEnciphered: false });
  lazy.world.admit({ operation: read, sector: 0, segments: [4096] });
  lazy.world.admit({ operation: read, sector: READY, segments: [4096] });
  expect(lazy.world.drain().map(({ request }) => request.sector)).toEqual([READY]);
  expect(lazy.world.requests.inFlight).toBe(1);
});

test("a stripe that cannot be fetched fails what waits for it", () => {
  using lazy = new LazyWorld({ isEnciphered: false });
  lazy.world.admit({ operation: write, sector: 3, segments: [512], data: pattern(512) });
  lazy.world.turn();
  lazy.state.failUntaken(0);
  lazy.state.announce(() => {});
  expect(outcomes(lazy.world.turn())).toEqual([Outcome.ioError]);
});

test("an image is read for exactly the sectors that are asked for, and the stripe is fetched as well", () => {
  using lazy = new LazyWorld({ isEnciphered: true, hasImage: true });
  lazy.world.admit({ operation: read, sector: 130, segments: [1, 1535], gapBytes: 1 });
  lazy.world.turn();
  expect(lazy.image.underWay).toMatchObject([{ kind: "read", offset: 130 * SECTOR, bytes: 1536 }]);
  expect(lazy.intents()).toEqual([[Intent.touched, 2, 1]]);
  expect(lazy.wakes).toBe(1);
  expect(lazy.finishImage(0)[0]?.data).toEqual(lazy.source.slice(130 * SECTOR, 133 * SECTOR));
  expect(lazy.world.engine.underWay).toEqual([]);
});

test("without copy-on-read an image's stripe is read and not fetched", () => {
  using lazy = new LazyWorld({ isEnciphered: false, hasImage: true, isCopyOnRead: false });
  lazy.world.admit({ operation: read, sector: 64, segments: [STRIPE_BYTES] });
  lazy.world.turn();
  expect(lazy.finishImage(0)[0]?.data).toEqual(lazy.stripeOfSource(1));
  expect(lazy.intents()).toEqual([]);
});

test("the image's short last stripe is fetched, and has zeros behind the image's end", () => {
  using lazy = new LazyWorld({ isEnciphered: false, hasImage: true, isCopyOnRead: false });
  const sector = 5 * STRIPE_SECTORS;
  lazy.world.admit({ operation: read, sector, segments: [STRIPE_BYTES] });
  lazy.world.turn();
  expect(lazy.image.underWay).toEqual([]);
  expect(lazy.intents()).toEqual([[Intent.fetch, 5, 1]]);
  expect(lazy.load(5)[0]?.data).toEqual(lazy.stripeOfSource(5));
});

test("an image that fails a read: the request waits for the fetch and its retries", () => {
  using lazy = new LazyWorld({ isEnciphered: false, hasImage: true, isCopyOnRead: false });
  lazy.imageFault = EIO;
  lazy.world.admit({ operation: read, sector: 64, segments: [4096] });
  lazy.world.turn();
  expect(lazy.finishImage(0)).toEqual([]);
  expect(lazy.intents()).toEqual([[Intent.fetch, 1, 1]]);
  expect(lazy.wakes).toBe(1);
  expect(lazy.load(1)).toEqual([]);
  lazy.store(1);
  expect(lazy.world.finishWork(0)[0]?.data).toEqual(lazy.source.slice(64 * SECTOR, 72 * SECTOR));
});

test("an image read that ends when all is fetched is not believed: the base is read", () => {
  using lazy = new LazyWorld({ isEnciphered: false, hasImage: true });
  lazy.world.admit({ operation: read, sector: 64, segments: [4096] });
  lazy.world.turn();
  lazy.load(1);
  lazy.store(1);
  lazy.phase(1, Phase.ready);
  lazy.endFetching();
  expect(lazy.finishImage(0)).toEqual([]);
  expect(lazy.world.engine.underWay).toMatchObject([{ kind: "read", offset: 64 * SECTOR }]);
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.ok]);
});

test("the image is let go when nothing is left to fetch, and not before its last read has ended", () => {
  using lazy = new LazyWorld({ isEnciphered: false, hasImage: true });
  lazy.world.admit({ operation: read, sector: 64, segments: [4096] });
  lazy.world.turn();
  lazy.load(1);
  lazy.store(1);
  lazy.phase(1, Phase.ready);
  lazy.endFetching();
  lazy.world.turn();
  expect(lazy.image.isDisposed).toBe(false);
  lazy.finishImage(0);
  expect(lazy.image.isDisposed).toBe(true);
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.ok]);
});

test("a write of a whole stripe is answered when the stripe is durable, not when it is written", () => {
  using lazy = new LazyWorld({ isEnciphered: true });
  const data = pattern(STRIPE_BYTES);
  lazy.world.admit({ operation: write, sector: 64, segments: [STRIPE_BYTES], data });
  expect(lazy.world.drain()).toEqual([]);
  expect(lazy.intents()).toEqual([[Intent.changed, 1, 1]]);
  expect(lazy.wakes).toBe(1);
  expect(outcomes(lazy.phase(1, Phase.ready))).toEqual([Outcome.ok]);
  expect(lazy.world.contents().subarray(STRIPE_BYTES, 2 * STRIPE_BYTES)).toEqual(data);
});

test("a write of a whole stripe that fails leaves the stripe in the source", () => {
  using lazy = new LazyWorld({ isEnciphered: true });
  lazy.world.fault = () => EIO;
  lazy.world.admit({ operation: write, sector: 64, segments: [STRIPE_BYTES] });
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.ioError]);
  expect(phaseOf(lazy.state.load(1))).toBe(Phase.unfetched);
});

test("a write whose stripe cannot be made durable is an error", () => {
  using lazy = new LazyWorld({ isEnciphered: true });
  lazy.world.admit({ operation: write, sector: 64, segments: [STRIPE_BYTES] });
  lazy.world.drain();
  lazy.state.fail(1, Phase.lost);
  lazy.state.announce(() => {});
  expect(outcomes(lazy.world.turn())).toEqual([Outcome.ioError]);
  expect(phaseOf(lazy.state.load(1))).toBe(Phase.unfetched);
});

test.each([
  { name: "freed", unsupportedModes: 0 },
  { name: "written where the file cannot free", unsupportedModes: PUNCH_HOLE },
])("a discard of a stripe in the source leaves zeros on a plain disk: $name", (kind) => {
  using lazy = new LazyWorld({ isEnciphered: false, unsupportedModes: kind.unsupportedModes });
  const ranges = [{ sector: 64, sectorCount: STRIPE_SECTORS, flags: 0 }];
  lazy.world.admit({ operation: discard, sector: 0, segments: [16], ranges });
  expect(lazy.world.drain()).toEqual([]);
  expect(lazy.intents()).toEqual([[Intent.changed, 1, 1]]);
  expect(outcomes(lazy.phase(1, Phase.ready))).toEqual([Outcome.ok]);
  const expected = new Uint8Array(STRIPES * STRIPE_BYTES).fill(0x5a);
  expected.fill(0, STRIPE_BYTES, 2 * STRIPE_BYTES);
  expect(lazy.world.contents()).toEqual(expected);
});

test("a discard that an enciphered disk cannot do says so, and the stripe stays in the source", () => {
  using lazy = new LazyWorld({ isEnciphered: true, unsupportedModes: PUNCH_HOLE });
  const ranges = [{ sector: 64, sectorCount: STRIPE_SECTORS, flags: 0 }];
  lazy.world.admit({ operation: discard, sector: 0, segments: [16], ranges });
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.unsupported]);
  expect(phaseOf(lazy.state.load(1))).toBe(Phase.unfetched);
});

test("a discard with one bad range claims nothing and changes nothing", () => {
  using lazy = new LazyWorld({ isEnciphered: false });
  const ranges = [
    { sector: 64, sectorCount: STRIPE_SECTORS, flags: 0 },
    { sector: STRIPES * STRIPE_SECTORS, sectorCount: 1, flags: 0 },
  ];
  lazy.world.admit({ operation: discard, sector: 0, segments: [32], ranges });
  expect(outcomes(lazy.world.turn())).toEqual([Outcome.ioError]);
  expect(phaseOf(lazy.state.load(1))).toBe(Phase.unfetched);
  expect(lazy.world.engine.underWay).toEqual([]);
});

test("ranges are those that were there when the request came, whatever the guest writes over them", () => {
  using lazy = new LazyWorld({ isEnciphered: false });
  const ranges = [{ sector: 70, sectorCount: 8, flags: 0 }];
  const slot = lazy.world.admit({ operation: discard, sector: 0, segments: [16], ranges });
  expect(lazy.world.turn()).toEqual([]);
  lazy.world.overwrite(slot, new Uint8Array(16).fill(0xff));
  lazy.load(1);
  lazy.store(1);
  lazy.phase(1, Phase.ready);
  expect(lazy.world.engine.underWay).toMatchObject([{ offset: 70 * SECTOR, bytes: 4096 }]);
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.ok]);
});

test("write-through: a sync makes writes durable while stripes are fetched, the write itself later", () => {
  using lazy = new LazyWorld({ isEnciphered: false });
  lazy.world.runner.setWriteThrough(true);
  lazy.world.admit({ operation: write, sector: READY, segments: [4096] });
  lazy.world.turn();
  expect(lazy.world.engine.underWay).toMatchObject([{ kind: "write", isWriteThrough: false }]);
  expect(lazy.world.finishWork(0)).toEqual([]);
  expect(lazy.world.engine.underWay).toMatchObject([{ kind: "sync" }]);
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.ok]);
  lazy.endFetching();
  lazy.world.runner.setWriteThrough(true);
  lazy.world.admit({ operation: write, sector: READY, segments: [4096] });
  lazy.world.turn();
  expect(lazy.world.engine.underWay).toMatchObject([{ kind: "write", isWriteThrough: true }]);
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.ok]);
});

test("tracked writes wait for WRITTEN also when nothing is left to fetch", () => {
  using lazy = new LazyWorld({ isEnciphered: false, isWrittenTracked: true });
  lazy.endFetching();
  lazy.world.turn();
  lazy.world.admit({ operation: write, sector: READY, segments: [4096] });
  expect(lazy.world.drain()).toEqual([]);
  expect(lazy.intents()).toEqual([[Intent.written, 6, 1]]);
  lazy.state.setWritten(6);
  lazy.state.announce(() => {});
  expect(outcomes(lazy.world.drain())).toEqual([Outcome.ok]);
});

// --- internal ---

function outcomes(finished: readonly Finished[]): readonly number[] {
  return finished.map(({ outcome }) => outcome);
}

function pattern(bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => (i * 7) & 0xff);
}
