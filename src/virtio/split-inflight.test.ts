import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { GuestArena } from "../../tests/support/guest-arena.ts";
import { Arena } from "../ffi/arena.ts";
import { splitRegionBytes } from "../formats/inflight-region.ts";
import type { SplitRing } from "./split-ring.ts";

const ENTRIES = 8;
const USED_INDEX = 14;
const LAST_BATCH_HEAD = 12;
const VERSION = 8;
const DESC_NUM = 10;
const entryAt = (head: number) => 16 + head * 16;

let guest: GuestArena;
let arena: Arena;
let notes: { readonly address: number; readonly entries: number };
let region: DataView;

beforeEach(() => {
  guest = new GuestArena({ entries: ENTRIES });
  arena = new Arena(splitRegionBytes(ENTRIES));
  const bytes = arena.bytes(splitRegionBytes(ENTRIES));
  notes = { address: bytes.address, entries: ENTRIES };
  region = new DataView(bytes.view.buffer, bytes.view.byteOffset, bytes.view.length);
});

afterEach(() => {
  guest[Symbol.dispose]();
  arena[Symbol.dispose]();
});

/** The ring as the next back end finds it, told a base that is of no use. */
function nextLife(): SplitRing {
  const ring = guest.restart(0x1234);
  expect(ring.resume(notes)).toBeUndefined();
  return ring;
}

function firstLife(): SplitRing {
  expect(guest.ring.resume(notes)).toBeUndefined();
  return guest.ring;
}

/** Takes `count` chains. */
function take(ring: SplitRing, count: number): readonly number[] {
  return Array.from({ length: count }, () => {
    const head = ring.peek();
    ring.take(head);
    return head;
  });
}

function answer(ring: SplitRing, ...heads: readonly number[]): void {
  for (const head of heads) {
    ring.push(head, 1);
  }
  ring.publish();
}

describe("requests in flight", () => {
  test("are those that were taken and not answered, in the order in which they were taken", () => {
    const ring = firstLife();
    guest.offer(5, 1, 7, 2);
    take(ring, 4);
    answer(ring, 1);
    const next = nextLife();
    expect(next.againCount).toBe(3);
    expect(next.waiting()).toBe(3);
    expect(take(next, 3)).toEqual([5, 7, 2]);
    expect(next.waiting()).toBe(0);
    expect(next.nextAvailable).toBe(4);
  });

  test("stand before those that nobody has taken yet", () => {
    const ring = firstLife();
    guest.offer(3, 4);
    take(ring, 1);
    const next = nextLife();
    expect(next.waiting()).toBe(2);
    expect(take(next, 2)).toEqual([3, 4]);
  });

  test("keep their order over several lives that end before they do", () => {
    guest.offer(6, 0, 3);
    take(firstLife(), 2);
    take(nextLife(), 3);
    expect(take(nextLife(), 3)).toEqual([6, 0, 3]);
  });

  test("do not include what was pushed and not published twice", () => {
    const ring = firstLife();
    guest.offer(0, 1);
    take(ring, 2);
    ring.push(1, 1);
    expect(take(nextLife(), 2)).toEqual([0, 1]);
  });

  test("the region has the layout of the protocol", () => {
    const ring = firstLife();
    guest.offer(2, 6);
    take(ring, 2);
    answer(ring, 2);
    expect(region.getBigUint64(0, true)).toBe(0n);
    expect(region.getUint16(VERSION, true)).toBe(1);
    expect(region.getUint16(DESC_NUM, true)).toBe(ENTRIES);
    expect(region.getUint16(LAST_BATCH_HEAD, true)).toBe(2);
    expect(region.getUint16(USED_INDEX, true)).toBe(1);
    expect(region.getUint8(entryAt(2))).toBe(0);
    expect(region.getUint8(entryAt(6))).toBe(1);
    expect(region.getBigUint64(entryAt(2) + 8, true)).toBe(0n);
    expect(region.getBigUint64(entryAt(6) + 8, true)).toBe(1n);
  });

  test("a new region leaves the ring where the front end says", () => {
    const ring = guest.restart(3);
    expect(ring.resume(notes)).toBeUndefined();
    expect(ring.nextAvailable).toBe(3);
  });

  test("a new region keeps its features, which are not the ring's", () => {
    region.setBigUint64(0, 1n, true);
    firstLife();
    expect(region.getBigUint64(0, true)).toBe(1n);
    expect(region.getUint16(VERSION, true)).toBe(1);
  });
});

/** What a death between the used index of the ring and that of the region leaves behind. */
describe("a batch that was shown and not taken out", () => {
  test.each([0, 1, 2, 3])("is answered, with %i of its requests taken out", (cleared) => {
    const ring = firstLife();
    guest.offer(7, 1, 4, 2, 0);
    take(ring, 5);
    answer(ring, 2);
    const before = new Uint8Array(region.buffer, region.byteOffset, region.byteLength).slice();
    ring.push(4, 1);
    ring.push(7, 1);
    ring.push(0, 1);
    ring.publish();
    // As before the publication, but with the list of its batch.
    const bytes = new Uint8Array(region.buffer, region.byteOffset, region.byteLength);
    bytes.set(before);
    region.setUint16(LAST_BATCH_HEAD, 0, true);
    region.setUint16(entryAt(0) + 6, 7, true);
    region.setUint16(entryAt(7) + 6, 4, true);
    region.setUint16(entryAt(4) + 6, 2, true);
    for (const head of [4, 7, 0].slice(0, cleared)) {
      region.setUint8(entryAt(head), 0);
    }
    const next = nextLife();
    expect(take(next, next.waiting())).toEqual([1]);
    expect(next.nextAvailable).toBe(5);
    expect(region.getUint16(USED_INDEX, true)).toBe(4);
  });
});

test("in flight: whatever is taken, answered and ended, each request is answered exactly once", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("offer" as const), count: fc.nat(4) }),
    fc.record({ kind: fc.constant("take" as const), count: fc.nat(4) }),
    fc.record({ kind: fc.constant("push" as const), count: fc.nat(4) }),
    fc.record({ kind: fc.constant("publish" as const), count: fc.constant(0) }),
    fc.record({ kind: fc.constant("die" as const), count: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), fc.nat(0xffff), (steps, first) => {
      using world = new GuestArena({ entries: ENTRIES });
      new Uint8Array(region.buffer, region.byteOffset, region.byteLength).fill(0);
      world.available[1] = first;
      world.used[1] = first;
      let ring = world.restart(first);
      ring.resume(notes);
      const free = new Set(Array.from({ length: ENTRIES }, (_, i) => i));
      let taken: number[] = [];
      let seen = first;
      const reap = () => {
        for (; seen !== world.used[1]; seen = (seen + 1) & 0xffff) {
          const head = world.usedElements[(seen & (ENTRIES - 1)) * 2] ?? -1;
          expect(free.has(head)).toBe(false);
          free.add(head);
        }
      };
      for (const { kind, count } of steps) {
        for (let i = 0; i < count && kind === "offer"; i++) {
          const [head] = free;
          if (head !== undefined) {
            free.delete(head);
            world.offer(head);
          }
        }
        for (let i = 0; i < count && kind === "take" && ring.waiting() > 0; i++) {
          taken.push(...take(ring, 1));
        }
        for (let i = 0; i < count && kind === "push" && taken.length > 0; i++) {
          const [head = -1] = taken.splice((i * 7) % taken.length, 1);
          ring.push(head, 1);
        }
        if (kind === "publish") {
          ring.publish();
          reap();
        } else if (kind === "die") {
          ring = world.restart(world.used[1] ?? 0);
          expect(ring.resume(notes)).toBeUndefined();
          expect(ring.waiting()).toBe(ENTRIES - free.size);
          taken = [];
        }
      }
    }),
    { numRuns: 300 },
  );
});

describe("a region that does not belong to the ring is refused", () => {
  function refusal(): string {
    return guest.restart(0).resume(notes) ?? "accepted";
  }

  beforeEach(() => {
    const ring = firstLife();
    guest.offer(0, 1, 2);
    take(ring, 3);
    answer(ring, 1);
  });

  test("of another version, or for another size", () => {
    region.setUint16(VERSION, 2, true);
    expect(refusal()).toContain("version is 2");
    region.setUint16(VERSION, 1, true);
    region.setUint16(DESC_NUM, 16, true);
    expect(refusal()).toContain("for 16 entries");
  });

  test("with other flags than 0 and 1", () => {
    region.setUint8(entryAt(5), 0xff);
    expect(refusal()).toContain("other values");
  });

  test("with more requests than the ring waits for", () => {
    region.setUint8(entryAt(5), 1);
    expect(refusal()).toContain("3 requests in flight, the ring 2");
  });

  test("with equal counters", () => {
    region.setBigUint64(entryAt(2) + 8, 0n, true);
    expect(refusal()).toContain("same counter");
  });

  test("with a list of the last answers that goes in circles, or leads out", () => {
    region.setUint16(USED_INDEX, 0xfff0, true);
    region.setUint16(entryAt(1) + 6, 1, true);
    expect(refusal()).toContain("circles");
    region.setUint16(LAST_BATCH_HEAD, 8, true);
    expect(refusal()).toContain("circles");
  });

  test("with a request in flight that also waits to be taken", () => {
    guest.offer(3);
    region.setUint8(entryAt(2), 0);
    region.setUint8(entryAt(3), 1);
    region.setBigUint64(entryAt(3) + 8, 9n, true);
    expect(refusal()).toContain("waits to be taken");
  });

  test("but not one that is left from a ring that is all answered", () => {
    guest.used[1] = guest.available[1] ?? 0;
    const ring = nextLife();
    expect(ring.waiting()).toBe(0);
    expect(region.getUint8(entryAt(0))).toBe(0);
  });
});

test("in flight: any bytes in region and ring end in a refusal or in requests of the ring", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 192, maxLength: 192 }),
      fc.boolean(),
      fc.nat(0xffff),
      fc.nat(12),
      (bytes, isVersionKnown, used, ahead) => {
        using world = new GuestArena({ entries: ENTRIES });
        const view = new Uint8Array(region.buffer, region.byteOffset, region.byteLength);
        view.set(bytes.subarray(0, view.length));
        for (let head = 0; head < ENTRIES; head++) {
          view[entryAt(head)] = (view[entryAt(head)] ?? 0) & 1;
        }
        if (isVersionKnown) {
          region.setUint16(VERSION, 1, true);
          region.setUint16(DESC_NUM, ENTRIES, true);
        }
        world.used[1] = used;
        world.available[1] = used + ahead;
        const ring = world.restart(used);
        const fault = ring.resume(notes);
        expect(fault !== undefined || ring.againCount <= ENTRIES).toBe(true);
      },
    ),
    { numRuns: 500 },
  );
});
