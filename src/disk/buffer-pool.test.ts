import { expect, test } from "bun:test";
import fc from "fast-check";
import { SeededRandom } from "../../tests/support/random.ts";
import { AssertionError } from "../errors.ts";
import { viewOf } from "../ffi/memory.ts";
import { BufferPool, CHUNK_BYTES, UNIT_BYTES } from "./buffer-pool.ts";

const MIB = 2 ** 20;
const CHUNK_ORDER = 8;
const registerAll = () => true;

test("order: the smallest power of two of units that holds the bytes", () => {
  expect(BufferPool.orderOf(1)).toBe(0);
  expect(BufferPool.orderOf(4096)).toBe(0);
  expect(BufferPool.orderOf(4097)).toBe(1);
  expect(BufferPool.orderOf(3 * 4096)).toBe(2);
  expect(BufferPool.orderOf(CHUNK_BYTES)).toBe(CHUNK_ORDER);
  expect(() => BufferPool.orderOf(CHUNK_BYTES + 1)).toThrow(AssertionError);
});

test("pool: nothing is mapped before the first buffer is taken", () => {
  using pool = new BufferPool(8 * MIB, registerAll);
  expect(pool.sizeBytes).toBe(0);
  pool.take(0);
  expect(pool.sizeBytes).toBe(CHUNK_BYTES);
});

test("pool: a limit below one chunk still grants one", () => {
  using pool = new BufferPool(1, registerAll);
  expect(pool.take(CHUNK_ORDER)).toBe(0);
  expect(pool.take(0)).toBe(-1);
});

test("pool: at its limit it refuses, and grants again what comes back", () => {
  using pool = new BufferPool(2 * MIB, registerAll);
  const first = pool.take(CHUNK_ORDER);
  expect(pool.take(CHUNK_ORDER)).toBeGreaterThanOrEqual(0);
  expect(pool.take(0)).toBe(-1);
  pool.give(first, CHUNK_ORDER);
  expect(pool.take(0)).toBeGreaterThanOrEqual(0);
});

test("pool: a chunk is registered once, and a refusal is remembered", () => {
  const registered: number[] = [];
  using pool = new BufferPool(2 * MIB, (chunk, address, lengthBytes) => {
    registered.push(chunk);
    expect(lengthBytes).toBe(CHUNK_BYTES);
    expect(address % UNIT_BYTES).toBe(0);
    return chunk === 0;
  });
  const first = pool.take(CHUNK_ORDER);
  const second = pool.take(CHUNK_ORDER);
  pool.give(first, CHUNK_ORDER);
  pool.take(3);
  expect(registered).toEqual([0, 1]);
  expect(pool.registeredBufferOf(first)).toBe(0);
  expect(pool.registeredBufferOf(second)).toBe(-1);
});

test("pool: giving a buffer back twice is a programmer's error", () => {
  using pool = new BufferPool(MIB, registerAll);
  const unit = pool.take(2);
  pool.give(unit, 2);
  expect(() => pool.give(unit, 2)).toThrow(AssertionError);
});

test("pool: giving back a buffer that has become part of a larger one is an error, too", () => {
  using pool = new BufferPool(MIB, registerAll);
  const first = pool.take(0);
  const second = pool.take(0);
  pool.give(first, 0);
  pool.give(second, 0);
  expect(() => pool.give(second, 0)).toThrow(AssertionError);
});

test("pool: buffers are writable to their last byte", () => {
  using pool = new BufferPool(MIB, registerAll);
  const unit = pool.take(1);
  const view = new Uint8Array(viewOf(pool.addressOf(unit), BufferPool.bytesOf(1)));
  view.fill(7);
  expect(view.every((byte) => byte === 7)).toBe(true);
});

test("pool: random takes and gives never overlap, and all of it comes back as whole chunks", () => {
  fc.assert(
    fc.property(fc.noShrink(fc.integer()), (seed) => {
      const random = new SeededRandom(seed);
      const chunks = random.between(1, 3);
      using pool = new BufferPool(chunks * MIB, registerAll);
      const model = new PoolModel(pool);
      for (let step = 0; step < 400; step++) {
        if (random.below(5) < 3) {
          model.take(random.below(CHUNK_ORDER + 1));
        } else {
          model.giveAny(random);
        }
      }
      model.giveAll(random);
      for (let chunk = 0; chunk < chunks; chunk++) {
        expect(pool.take(CHUNK_ORDER)).toBeGreaterThanOrEqual(0);
      }
      expect(pool.take(0)).toBe(-1);
    }),
    { numRuns: 60, includeErrorInReport: true },
  );
});

test("pool: it refuses only when no free block is large enough", () => {
  using pool = new BufferPool(MIB, registerAll);
  const units = Array.from({ length: 256 }, () => pool.take(0));
  expect(new Set(units).size).toBe(256);
  // Every other unit is free: half of the chunk, but no two neighbours.
  for (const unit of units.filter((each) => each % 2 === 0)) {
    pool.give(unit, 0);
  }
  expect(pool.take(1)).toBe(-1);
  expect(pool.take(0)).toBeGreaterThanOrEqual(0);
});

// --- internal ---

/** What is taken, as a list of address ranges. */
class PoolModel {
  readonly #pool: BufferPool;
  readonly #taken: { unit: number; order: number; start: number; end: number }[] = [];

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  take(order: number): void {
    const unit = this.#pool.take(order);
    if (unit < 0) {
      return;
    }
    const start = this.#pool.addressOf(unit);
    const end = start + BufferPool.bytesOf(order);
    expect(unit % (1 << order)).toBe(0);
    expect(this.#taken.some((other) => start < other.end && other.start < end)).toBe(false);
    this.#taken.push({ unit, order, start, end });
  }

  giveAny(random: SeededRandom): void {
    const [buffer] = this.#taken.splice(random.below(this.#taken.length), 1);
    if (buffer !== undefined) {
      this.#pool.give(buffer.unit, buffer.order);
    }
  }

  giveAll(random: SeededRandom): void {
    while (this.#taken.length > 0) {
      this.giveAny(random);
    }
  }
}
