import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { GUEST_A } from "../../tests/support/guest-arena.ts";
import { importLogged, type LoggedModules } from "../../tests/support/logged-stores.ts";
import { PackedArena } from "../../tests/support/packed-arena.ts";
import { SeededRandom } from "../../tests/support/random.ts";
import { rounds } from "../../tests/support/requires.ts";
import { Arena } from "../ffi/arena.ts";
import { PACKED_FIELD, packedRegionBytes, REGION_FIELD } from "../formats/inflight-region.ts";
import { BlockChain } from "./block-chain.ts";
import type { PackedRing } from "./packed-ring.ts";
import type { RingNotes } from "./split-ring.ts";

const ENTRIES = 7;
/** A front end whose back end was killed does not know better. */
const STALE = 0x8000;
const WRITE = 2;
const SEEDS = rounds(3, 60);

/** A region in memory, with the bytes to look at. */
class Region implements Disposable {
  readonly notes: RingNotes;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly #arena: Arena;

  constructor(entries = ENTRIES) {
    this.#arena = new Arena(packedRegionBytes(entries));
    const { address, view } = this.#arena.bytes(packedRegionBytes(entries));
    this.notes = { address, entries };
    this.bytes = view;
    this.view = new DataView(view.buffer, view.byteOffset, view.length);
  }

  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
  }
}

/** A read of as many bytes as its id, so that its descriptors tell which one it is. */
function offer(arena: PackedArena, id: number): void {
  const data = { address: GUEST_A + 64, length: id, flags: WRITE };
  const status = { address: GUEST_A + 32, length: 1, flags: WRITE };
  const chain = [{ address: GUEST_A, length: 16, flags: 0 }, data, status];
  arena.offer(id, id % 2 === 0 ? chain : [{ address: GUEST_A, length: 16, flags: 0 }, data]);
}

interface Taken {
  readonly id: number;
  readonly held: number;
}

/** Takes up to `count` chains, each of which must be the one that was offered under its id. */
function take(arena: PackedArena, ring: PackedRing, count = Number.POSITIVE_INFINITY): Taken[] {
  const chain = new BlockChain(arena.guest.memory);
  const taken: Taken[] = [];
  while (taken.length < count && ring.waiting() > 0) {
    expect(chain.read(ring, ring.peek())).toBe(true);
    const id = chain.ticket & 0xffff;
    expect(chain.dataBytes).toBe(id % 2 === 0 ? id : id - 1); // an odd one has its status behind its data
    taken.push({ id, held: ring.take(chain.ticket) });
  }
  return taken;
}

function ids(taken: readonly Taken[]): readonly number[] {
  return taken.map(({ id }) => id);
}

function reapAll(arena: PackedArena): number[] {
  const found: number[] = [];
  for (let used = arena.reap(); used !== undefined; used = arena.reap()) {
    found.push(used.id);
  }
  return found;
}

let arena: PackedArena;
let region: Region;

beforeEach(() => {
  arena = new PackedArena({ entries: ENTRIES });
  region = new Region();
});

afterEach(() => {
  arena[Symbol.dispose]();
  region[Symbol.dispose]();
});

/** The ring as the next back end finds it. */
function nextLife(position = STALE): PackedRing {
  const ring = arena.restart(position);
  expect(ring.resume(region.notes)).toBeUndefined();
  return ring;
}

describe("requests of a packed ring in flight", () => {
  test("a new region, or one that was forgotten, leaves the ring where the front end says, if that can be", () => {
    const ring = nextLife();
    offer(arena, 4);
    for (const { held } of take(arena, ring)) {
      ring.push(held, 1);
    }
    ring.publish();
    expect(reapAll(arena)).toEqual([4]);
    region.view.setUint16(REGION_FIELD.version, 0, true);
    expect(arena.restart(STALE).resume(region.notes)).toContain("only that one knew how far");
    expect(arena.restart(STALE).resume(region.notes)).toContain("only that one knew how far");
    const { nextAvailable } = ring;
    expect(nextLife(nextAvailable).nextAvailable).toBe(nextAvailable);
  });

  test("are those that were taken and not answered, in the order in which they were taken", () => {
    const ring = nextLife();
    offer(arena, 9);
    offer(arena, 4);
    offer(arena, 7);
    const [, second] = take(arena, ring);
    ring.push(second?.held ?? 0, 1);
    ring.publish();
    expect(reapAll(arena)).toEqual([4]);
    const next = nextLife();
    expect(next.againCount).toBe(2);
    expect(ids(take(arena, next))).toEqual([9, 7]);
    expect(next.againCount).toBe(0);
    expect(next.nextAvailable).toBe(0); // seven descriptors: a lap later
  });

  test("stand before those that nobody has taken yet", () => {
    offer(arena, 2);
    offer(arena, 3);
    take(arena, nextLife(), 1);
    expect(ids(take(arena, nextLife()))).toEqual([2, 3]);
  });

  test("are read from the copy when used descriptors lie where they were", () => {
    const ring = nextLife();
    offer(arena, 2);
    offer(arena, 5);
    offer(arena, 3);
    const [, second, third] = take(arena, ring);
    ring.push(second?.held ?? 0, 1);
    ring.push(third?.held ?? 0, 1);
    ring.publish();
    expect(reapAll(arena)).toEqual([5, 3]);
    expect(ids(take(arena, nextLife()))).toEqual([2]);
  });

  test("may all have one id", () => {
    const ring = nextLife();
    for (let round = 0; round < 3; round++) {
      offer(arena, 9);
    }
    const taken = take(arena, ring);
    ring.push(taken[1]?.held ?? 0, 1);
    ring.publish();
    expect(ids(take(arena, nextLife()))).toEqual([9, 9]);
  });

  test("the region has the layout of the protocol", () => {
    const ring = nextLife();
    offer(arena, 6);
    offer(arena, 9);
    const [first] = take(arena, ring);
    ring.push(first?.held ?? 0, 1);
    ring.publish();
    const { view } = region;
    expect(view.getBigUint64(0, true)).toBe(0n);
    expect([8, 10].map((offset) => view.getUint16(offset, true))).toEqual([1, ENTRIES]);
    // Entries 0 to 2 came back behind the free list's head; 3 and 4 are in flight.
    expect([12, 14].map((offset) => view.getUint16(offset, true))).toEqual([0, 0]);
    expect([16, 18].map((offset) => view.getUint16(offset, true))).toEqual([3, 3]);
    expect([20, 21].map((offset) => view.getUint8(offset))).toEqual([1, 1]);
    const entry = 32 + 3 * 32;
    expect(view.getUint8(entry)).toBe(1);
    expect([2, 4, 6].map((offset) => view.getUint16(entry + offset, true))).toEqual([4, 4, 2]);
    expect(view.getBigUint64(entry + 8, true)).toBe(1n);
    const last = entry + 32;
    expect([16, 18].map((offset) => view.getUint16(last + offset, true))).toEqual([
      9,
      0x80 | WRITE,
    ]);
    expect(view.getUint32(last + 20, true)).toBe(9);
    expect(view.getBigUint64(last + 24, true)).toBe(BigInt(GUEST_A + 64));
  });

  test("a new region keeps its features, which are not the ring's", () => {
    region.view.setBigUint64(0, 1n, true);
    nextLife();
    expect(region.view.getBigUint64(0, true)).toBe(1n);
  });

  test("a region for more entries than the ring has serves as well", () => {
    using large = new Region(64);
    const ring = arena.restart(STALE);
    expect(ring.resume(large.notes)).toBeUndefined();
    offer(arena, 2);
    take(arena, ring);
    const next = arena.restart(STALE);
    expect(next.resume(large.notes)).toBeUndefined();
    expect(ids(take(arena, next))).toEqual([2]);
  });
});

describe("a region that does not fit is refused", () => {
  const entryAt = (entry: number) => 32 + entry * 32;

  beforeEach(() => {
    const ring = nextLife();
    offer(arena, 2);
    offer(arena, 5);
    take(arena, ring);
  });

  test.each([
    { what: "version 2", offset: 8, value: 2, why: "version is 2" },
    { what: "another size", offset: 10, value: 8, why: "kept for 8 entries" },
    { what: "a place outside the ring", offset: PACKED_FIELD.usedPlace, value: 7, why: "outside" },
    { what: "a free list that leaves the region", offset: 14, value: 99, why: "nothing" },
    { what: "a free list in circles", offset: entryAt(6) + 2, value: 5, why: "circles" },
    {
      what: "a free list that lost entries",
      offset: entryAt(5) + 2,
      value: 0xffff,
      why: "nothing",
    },
    { what: "a flag of 3", offset: entryAt(0), value: 3, why: "0 and 1" },
    { what: "a chain of no length", offset: entryAt(0) + 6, value: 0, why: "no chain" },
    { what: "a chain too long", offset: entryAt(0) + 6, value: 9, why: "no chain" },
    { what: "a chain that ends elsewhere", offset: entryAt(0) + 4, value: 1, why: "no chain" },
    { what: "a chain into another one", offset: entryAt(1) + 2, value: 3, why: "no chain" },
    { what: "a chain that goes on", offset: entryAt(2) + 18, value: 0x81, why: "no chain" },
    { what: "two counters alike", offset: entryAt(3) + 8, value: 0, why: "counter" },
  ])("$what", ({ offset, value, why }) => {
    region.view.setUint16(offset, value, true);
    region.view.setUint16(PACKED_FIELD.freeHead, region.view.getUint16(14, true), true);
    expect(arena.restart(STALE).resume(region.notes) ?? "accepted").toContain(why);
  });

  test.each([7, 99, 0xfffe])("but a free list may end with %d as well", (end) => {
    expect(region.view.getUint16(entryAt(6) + 2, true)).toBe(0xffff);
    region.view.setUint16(entryAt(6) + 2, end, true);
    expect(arena.restart(STALE).resume(region.notes)).toBeUndefined();
  });

  test("random bytes end in a verdict", () => {
    const good = region.bytes.slice();
    for (let seed = 0; seed < SEEDS * 300; seed++) {
      const random = new SeededRandom(seed);
      region.bytes.set(good);
      for (let i = 0; i < random.between(1, 6); i++) {
        region.bytes[random.between(8, region.bytes.length - 1)] = random.pick([
          0,
          1,
          random.below(8),
          random.below(256),
        ]);
      }
      const ring = arena.restart(STALE);
      if (ring.resume(region.notes) === undefined) {
        const chain = new BlockChain(arena.guest.memory);
        for (let i = 0; i < ENTRIES && ring.againCount > 0; i++) {
          chain.read(ring, ring.peek());
          ring.push(ring.take(chain.ticket), 0);
        }
        expect(ring.againCount).toBe(0);
        ring.publish();
      }
    }
  });
});

/**
 * The process is killed after any one of its stores, to the ring or to the region, in the middle of random work;
 * what the next one finds must be exactly what the driver still waits for. And that one is killed in its recovery.
 */
describe("killed behind every store", () => {
  let logged: LoggedModules;
  let afterStore: () => void = () => {};

  beforeAll(async () => {
    const names = ["packed-ring.ts", "packed-inflight.ts", "packed-recovery.ts"];
    const paths = names.map((name) => join(import.meta.dir, name));
    logged = await importLogged(paths, () => afterStore());
  });

  afterAll(() => logged[Symbol.dispose]());

  function loggedRing(): typeof PackedRing {
    const [module] = logged.modules;
    return (module as { PackedRing: typeof PackedRing }).PackedRing; // a copy of that very module
  }

  test("all stores of the sources are seen", () => {
    expect(logged.storeCount).toBeGreaterThan(30);
  });

  test("each request is done again or was answered, never both and never neither", () => {
    using work = new PackedArena({ entries: ENTRIES, Ring: loggedRing() });
    using found = new PackedArena({ entries: ENTRIES, Ring: loggedRing() });
    using foundRegion = new Region();
    using last = new PackedArena({ entries: ENTRIES });
    using lastRegion = new Region();
    let cuts = 0;
    let order: number[] = [];
    let isOdd = false;

    /** The life after this moment, and the one after each moment of its recovery. */
    const cut = () => {
      cuts += 1;
      const outer = afterStore;
      afterStore = () => {};
      found.become(work);
      foundRegion.bytes.set(region.bytes);
      isOdd = !isOdd;
      if (isOdd) {
        afterStore = () => {
          afterStore = () => {};
          finish(found, foundRegion);
          afterStore = inRecovery;
        };
        const inRecovery = afterStore;
        found.restart(STALE).resume(foundRegion.notes);
        afterStore = () => {};
      }
      finish(found, foundRegion);
      afterStore = outer;
    };

    const finish = (from: PackedArena, fromRegion: Region) => {
      last.become(from);
      lastRegion.bytes.set(fromRegion.bytes);
      reapAll(last); // what the driver sees as answered
      const waitedFor = last.waitedFor;
      const ring = last.restart(STALE);
      expect(ring.resume(lastRegion.notes)).toBeUndefined();
      const again = ring.againCount;
      const taken = take(last, ring);
      expect(ids(taken).toSorted()).toEqual(waitedFor.toSorted());
      const inOrder = order.filter((id) => waitedFor.includes(id));
      expect(ids(taken).slice(0, again)).toEqual(inOrder.slice(0, again));
      for (const { id, held } of taken.toReversed()) {
        ring.push(held, 1);
        ring.publish();
        expect(reapAll(last)).toEqual([id]); // nothing that the dead one pushed and did not show
      }
      expect(last.driverFree).toBe(ENTRIES);
      // What was left in order serves the life after.
      offer(last, 3);
      offer(last, 2);
      expect(ids(take(last, ring))).toEqual([3, 2]);
      const another = last.restart(STALE);
      expect(another.resume(lastRegion.notes)).toBeUndefined();
      expect(ids(take(last, another))).toEqual([3, 2]);
    };

    for (let seed = 0; seed < SEEDS; seed++) {
      const random = new SeededRandom(seed);
      afterStore = () => {};
      work.descriptorBytes.fill(0);
      using fresh = new PackedArena({ entries: ENTRIES });
      work.become(fresh);
      region.bytes.fill(0);
      const ring = work.restart(STALE);
      ring.resume(region.notes);
      order = [];
      let underWay: Taken[] = [];
      let id = 1;
      for (let step = 0; step < 40; step++) {
        afterStore = () => {};
        if (random.oneIn(2) && work.driverFree >= 3) {
          id = (id % 200) + 1;
          offer(work, id);
        }
        const [next] = random.oneIn(2) ? peekIds(work, ring) : [];
        if (next !== undefined) {
          order.push(next);
          afterStore = cut;
          underWay.push(...take(work, ring, 1));
        }
        if (random.oneIn(2) && underWay.length > 0) {
          const [one] = underWay.splice(random.below(underWay.length), 1);
          afterStore = cut;
          ring.push(one?.held ?? 0, 1);
        }
        if (random.oneIn(3)) {
          afterStore = cut;
          ring.publish();
          afterStore = () => {};
          for (const done of reapAll(work)) {
            order = order.filter((each) => each !== done);
          }
        }
      }
      underWay = [];
    }
    afterStore = () => {};
    expect(cuts).toBeGreaterThan(SEEDS * 100);
  }, 120_000);

  /** The id of the next chain, which is not taken. */
  function peekIds(from: PackedArena, ring: PackedRing): readonly number[] {
    if (ring.waiting() === 0) {
      return [];
    }
    const chain = new BlockChain(from.guest.memory);
    chain.read(ring, ring.peek());
    return [chain.ticket & 0xffff];
  }
});
