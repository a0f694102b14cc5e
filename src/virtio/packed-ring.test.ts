import { expect, test } from "bun:test";
import fc from "fast-check";
import { GUEST_A } from "../../tests/support/guest-arena.ts";
import { PackedArena } from "../../tests/support/packed-arena.ts";
import { BlockChain, NO_TICKET } from "./block-chain.ts";
import { DirtyLog } from "./dirty-log.ts";
import { GuestMemory } from "./guest-memory.ts";
import { openRing } from "./ring.ts";

const NO_LOG = new DirtyLog(new GuestMemory());
const ENTRIES = 7; // a packed ring may have any size
const AT = 2;
const NONE = 1;
const WRITE = 2;
const READABLE = { address: GUEST_A, length: 16, flags: 0 };
const WRITABLE = { address: GUEST_A + 64, length: 1, flags: WRITE };

/** Takes the next chain; its ticket. */
function take(arena: PackedArena): number {
  const chain = new BlockChain(arena.guest.memory);
  chain.read(arena.ring, arena.ring.peek());
  arena.ring.take(chain.ticket);
  return chain.ticket;
}

/** A chain of `count` descriptors. */
function chainOf(count: number) {
  return Array.from({ length: count }, (_, i) => (i + 1 < count ? READABLE : WRITABLE));
}

test("packed ring: a fresh one holds no chain", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  expect(arena.ring.waiting()).toBe(0);
});

test("packed ring: a chain is taken as a whole, by the id in its last descriptor", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  arena.offer(41, chainOf(3));
  expect(arena.ring.waiting()).toBe(1);
  expect(take(arena)).toBe(41 + 3 * 0x1_0000);
  expect(arena.ring.waiting()).toBe(0);
  expect(arena.ring.nextAvailable).toBe(0x8003);
});

test("packed ring: over the ring's end the lap changes, for both sides", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  for (let round = 0; round < 40; round++) {
    const id = (round * 3001) & 0xffff;
    arena.offer(id, chainOf(1 + (round % 5)));
    expect(arena.ring.waiting()).toBe(1);
    const ticket = take(arena);
    arena.ring.push(ticket, round);
    arena.ring.publish();
    expect(arena.ring.waiting()).toBe(0);
    expect(arena.reap()).toMatchObject({ id, length: round });
    expect(arena.reap()).toBeUndefined();
  }
});

test("packed ring: a driver that fills the ring sees every chain answered, in any order", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  for (const round of [0, 1, 2, 3]) {
    const tickets = Array.from({ length: ENTRIES }, (_, i) => {
      arena.offer(round * 100 + i, chainOf(1));
      return take(arena);
    });
    expect(arena.ring.longest).toBe(0);
    expect(arena.ring.waiting()).toBe(0);
    for (const ticket of tickets.toReversed()) {
      arena.ring.push(ticket, 1);
    }
    arena.ring.publish();
    const ids = tickets.map(() => arena.reap()?.id);
    expect(ids).toEqual(tickets.map((ticket) => ticket & 0xffff).toReversed());
  }
});

test("packed ring: a batch is shown at once, whatever of it was stored before", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  const tickets = [1, 2, 3].map((id) => {
    arena.offer(id, chainOf(2));
    return take(arena);
  });
  for (const ticket of tickets) {
    arena.ring.push(ticket, 1);
    expect(arena.reap()).toBeUndefined();
  }
  arena.ring.publish();
  expect([arena.reap()?.id, arena.reap()?.id, arena.reap()?.id]).toEqual([1, 2, 3]);
});

test("packed ring: a used descriptor tells whether anything was written", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  for (const length of [0, 513]) {
    arena.offer(5, chainOf(1));
    arena.ring.push(take(arena), length);
    arena.ring.publish();
    expect(arena.reap()).toMatchObject({ length, flags: 0x8080 | (length > 0 ? WRITE : 0) });
  }
});

test("packed ring: nothing pushed is nothing to call for", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  expect(arena.ring.publish()).toBe(false);
});

test("packed ring: without event indexes the driver's flags decide about calls, ours about kicks", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  const answer = () => {
    arena.offer(1, chainOf(1));
    arena.ring.push(take(arena), 1);
    return arena.ring.publish();
  };
  expect(answer()).toBe(true);
  arena.setDriverEvents(0, NONE);
  expect(answer()).toBe(false);
  arena.setDriverEvents(0, AT); // has no meaning there
  expect(answer()).toBe(true);
  arena.ring.disableKicks();
  expect(arena.deviceEvents.flags).toBe(NONE);
  arena.ring.enableKicks();
  expect(arena.deviceEvents.flags).toBe(0);
});

test("packed ring: with event indexes a kick is asked for at the next chain, of its lap", () => {
  using arena = new PackedArena({ entries: ENTRIES, hasEventIndex: true });
  arena.offer(1, chainOf(4));
  arena.ring.push(take(arena), 1);
  arena.ring.publish();
  arena.ring.enableKicks();
  expect(arena.deviceEvents).toEqual({ position: 0x8004, flags: AT });
  arena.offer(2, chainOf(5));
  arena.ring.push(take(arena), 1);
  arena.ring.publish();
  arena.ring.enableKicks();
  expect(arena.deviceEvents).toEqual({ position: 0x0002, flags: AT });
});

test("packed ring: with event indexes a call comes for the descriptor that the driver waits for", () => {
  using arena = new PackedArena({ entries: ENTRIES, hasEventIndex: true });
  const answer = (count: number) => {
    arena.offer(1, chainOf(count));
    arena.ring.push(take(arena), 1);
    return arena.ring.publish();
  };
  arena.setDriverEvents(0x8000 | 6, AT);
  expect(answer(2)).toBe(true); // the first one always
  expect(answer(3)).toBe(false); // 2 to 4
  expect(answer(3)).toBe(true); // 5 to 0 of the next lap
  arena.setDriverEvents(3, AT);
  expect(answer(2)).toBe(false); // 1 and 2
  expect(answer(1)).toBe(true);
  arena.setDriverEvents(0x8000 | 4, AT); // a lap ahead
  expect(answer(1)).toBe(false);
  arena.setDriverEvents(4, NONE);
  expect(answer(2)).toBe(false);
});

test("packed ring: it goes on at place and lap that it is given", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  arena.offer(1, chainOf(5));
  arena.ring.push(take(arena), 1);
  arena.ring.publish();
  expect(arena.reap()?.id).toBe(1);
  const ring = arena.restart(arena.ring.nextAvailable);
  arena.offer(2, chainOf(4));
  ring.push(take(arena), 7);
  ring.publish();
  expect(arena.reap()).toMatchObject({ id: 2, length: 7 });
});

test("packed ring: a chain that never ends, or that is longer than what is free, has no ticket", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  const chain = new BlockChain(arena.guest.memory);
  for (let place = 0; place < ENTRIES; place++) {
    arena.setFlags(place, 0x80 | 1);
  }
  expect(chain.read(arena.ring, 0)).toBe(false);
  expect(chain.ticket).toBe(NO_TICKET);

  using other = new PackedArena({ entries: ENTRIES });
  other.offer(1, chainOf(4));
  take(other);
  other.offer(2, chainOf(4)); // runs into the first one
  expect(chain.read(other.ring, other.ring.peek())).toBe(false);
  expect(chain.ticket).toBe(NO_TICKET);
});

test("packed ring: laps that a driver makes up never take more than the ring holds", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  for (let i = 0; i < ENTRIES; i++) {
    arena.offer(i, chainOf(1));
    take(arena);
  }
  arena.setFlags(0, 0x8000); // looks like the next lap, before anything was used
  expect(arena.ring.waiting()).toBe(1);
  expect(take(arena)).toBe(NO_TICKET);
});

test("packed ring: calls are those that the specification asks for, for any run of laps", () => {
  const step = fc.record({
    counts: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 2 }),
    ahead: fc.nat(2 * ENTRIES - 1),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      using arena = new PackedArena({ entries: ENTRIES, hasEventIndex: true });
      let used = 0; // descriptors since the beginning
      let isFirst = true;
      for (const { counts, ahead } of steps) {
        // Waits for the descriptor `ahead` of what was used: a lap is 7 descriptors, and the first one's bit is 1.
        const event = used + ahead;
        const lap = Math.floor(event / ENTRIES) % 2 === 0 ? 0x8000 : 0;
        arena.setDriverEvents(lap | (event % ENTRIES), AT);
        let moved = 0;
        counts.forEach((count, id) => {
          arena.offer(id, chainOf(count));
          arena.ring.push(take(arena), 1);
          moved += count;
        });
        expect(arena.ring.publish()).toBe(isFirst || ahead < moved);
        counts.forEach(() => {
          expect(arena.reap()).toBeDefined();
        });
        isFirst = false;
        used += moved;
      }
    }),
  );
});

test("packed ring: without notes it is left alone at a position that an earlier backend has left behind", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  const common = { isPacked: true, areas: arena.areas, hasEventIndex: false, notes: undefined };
  const open = (next: number) =>
    openRing({ ...common, next, isForeign: false, dirtyLog: NO_LOG }).fault;
  expect(open(0x8000)).toBeUndefined();
  arena.offer(1, chainOf(2));
  expect(open(0x8000)).toBeUndefined();
  arena.ring.push(take(arena), 1);
  arena.ring.publish();
  expect(open(0x8000)).toContain("reset the virtual machine");
  expect(open(arena.ring.nextAvailable)).toBeUndefined();
});
