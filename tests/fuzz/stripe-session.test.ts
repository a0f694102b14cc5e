/**
 * Sessions of the stripe server against a model: requests of all kinds in pieces of any size, reads that end in any
 * order, a client that takes any number of bytes at a time. What was sent is the answers, in order, byte by byte.
 */
import { expect, test } from "bun:test";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";
import { expectedAnswer, SessionWorld } from "../support/session-world.ts";

test("answers are those of the model, whatever the pieces and the order", () => {
  for (let seed = FUZZ_SEED; seed < FUZZ_SEED + rounds(60, 1000); seed++) {
    play(seed);
  }
});

test("random bytes never make a session do anything but answer or end", () => {
  for (let seed = FUZZ_SEED; seed < FUZZ_SEED + rounds(60, 1000); seed++) {
    const random = new SeededRandom(seed);
    using world = new SessionWorld();
    for (let nowMs = 0; nowMs < 300 && world.session.end === undefined; nowMs++) {
      const count = random.below(40);
      world.stream.incoming.push(...Array.from({ length: count }, () => random.below(256)));
      endSome(world, random, random.oneIn(30) ? -5 : 0);
      world.turn(nowMs);
    }
    world.stream.isOver = true;
    for (let nowMs = 300; nowMs < 10_000 && world.session.end === undefined; nowMs += 50) {
      endSome(world, random, 0);
      world.turn(nowMs);
    }
    expect(world.session.end, `seed ${seed}`).toBeDefined();
  }
});

// --- internal ---

function play(seed: number): void {
  const random = new SeededRandom(seed);
  using world = new SessionWorld();
  const requests = Array.from({ length: random.between(1, 80) }, () => anyRequest(random));
  const toCome = requests.flat();
  const expected = requests.flatMap(expectedAnswer);
  world.stream.room = 0;
  let turns = 0;
  while (world.stream.sent.length < expected.length) {
    world.stream.incoming.push(...toCome.splice(0, random.below(30)));
    world.stream.room = random.oneIn(3) ? 0 : random.below(3000);
    endSome(world, random, 0);
    world.turn(turns / 100);
    turns += 1;
    expect(turns, `seed ${seed}`).toBeLessThan(20_000);
    expect(world.session.end, `seed ${seed}`).toBeUndefined();
  }
  expect(world.stream.sent, `seed ${seed}`).toEqual([...expected]);
}

function anyRequest(random: SeededRandom): number[] {
  const opcode = random.pick([0x00, 0x01, 0x01, 0x01, 0x02, 0x10, 0x11, 0x11, 0x12, 0x77, 0xff]);
  if (opcode !== 0x01 && opcode !== 0x11) {
    return [opcode];
  }
  const high = random.oneIn(8) ? random.below(256) : 0;
  return [opcode, random.below(6), 0, 0, 0, 0, 0, 0, high];
}

/** Ends some of the reads under way, in any order. */
function endSome(world: SessionWorld, random: SeededRandom, result: number): void {
  for (const source of [world.disk, world.source]) {
    for (let count = random.below(4); count > 0 && source.underWay.length > 0; count--) {
      source.finish(random.below(source.underWay.length), result);
    }
  }
}
