import { expect, test } from "bun:test";
import { GUEST_A } from "../../tests/support/guest-arena.ts";
import { PackedArena } from "../../tests/support/packed-arena.ts";
import { SeededRandom } from "../../tests/support/random.ts";
import { BlockChain } from "./block-chain.ts";
import { isPositionOf } from "./packed-position.ts";

const ENTRIES = 7;
const LARGE = 64;
const READABLE = { address: GUEST_A, length: 16, flags: 0 };

/** Random work of driver and device, both of which keep to the rules; `look` sees the ring after every step. */
function work(
  { seed, entries, steps }: { seed: number; entries: number; steps: number },
  look: (arena: PackedArena, underWay: number) => void,
): void {
  const random = new SeededRandom(seed);
  using arena = new PackedArena({ entries });
  const chain = new BlockChain(arena.guest.memory);
  const { ring } = arena;
  const taken: number[] = [];
  for (let step = 0; step < steps; step++) {
    const count = random.between(1, 3);
    if (random.oneIn(2) && arena.driverFree >= count) {
      arena.offer(
        step,
        Array.from({ length: count }, () => READABLE),
      );
    }
    if (random.oneIn(2) && ring.waiting() > 0) {
      chain.read(ring, ring.peek());
      taken.push(ring.take(chain.ticket));
    }
    if (random.oneIn(2) && taken.length > 0) {
      const [ticket = 0] = taken.splice(random.below(taken.length), 1);
      ring.push(ticket, 0);
      ring.publish();
      arena.reap();
    }
    look(arena, taken.length);
  }
}

function words(arena: PackedArena): Int32Array {
  return new Int32Array(arena.descriptorBytes.buffer, arena.descriptorBytes.byteOffset);
}

test("packed position: where a ring was stopped, with nothing under way, is always one", () => {
  let looks = 0;
  for (let seed = 0; seed < 60; seed++) {
    work({ seed, entries: ENTRIES, steps: 60 }, (arena, underWay) => {
      if (underWay === 0) {
        looks += 1;
        expect(isPositionOf(words(arena), arena.ring.nextAvailable)).toBe(true);
      }
    });
  }
  expect(looks).toBeGreaterThan(300);
});

test("packed position: one of a lap that is over is none", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  const chain = new BlockChain(arena.guest.memory);
  for (let id = 0; id < 2 * ENTRIES; id++) {
    const before = arena.ring.nextAvailable;
    arena.offer(id, [READABLE]);
    expect(isPositionOf(words(arena), before)).toBe(true);
    chain.read(arena.ring, arena.ring.peek());
    arena.ring.push(arena.ring.take(chain.ticket), 0);
    arena.ring.publish();
    arena.reap();
    expect(isPositionOf(words(arena), before)).toBe(false);
  }
});

test("packed position: a driver that is writing a chain does not move it", () => {
  for (let before = 0; before < 2 * ENTRIES; before++) {
    using arena = new PackedArena({ entries: ENTRIES });
    const chain = new BlockChain(arena.guest.memory);
    for (let id = 0; id < before; id++) {
      arena.offer(id, [READABLE]);
      chain.read(arena.ring, arena.ring.peek());
      arena.ring.push(arena.ring.take(chain.ticket), 0);
      arena.ring.publish();
      arena.reap();
    }
    const first = arena.ring.peek();
    const old = words(arena)[first * 4 + 3] ?? 0;
    arena.offer(before, [READABLE, READABLE, READABLE]);
    words(arena)[first * 4 + 3] = old; // which it writes last
    expect(isPositionOf(words(arena), arena.ring.nextAvailable)).toBe(true);
  }
});

test("packed position: where a ring began is none once it has answered, in most cases", () => {
  let looks = 0;
  let believed = 0;
  for (let seed = 0; seed < 20; seed++) {
    work({ seed, entries: LARGE, steps: 400 }, (arena) => {
      if (arena.usedCount > 0) {
        looks += 1;
        believed += isPositionOf(words(arena), 0x8000) ? 1 : 0;
      }
    });
  }
  // What is left is a driver whose requests under way lie across the beginning of the ring.
  expect(believed / looks).toBeLessThan(0.3);
});
