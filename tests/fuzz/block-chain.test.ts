/**
 * Random and hostile chains against a plain model of the rules: the same verdict, the same bytes, and
 * nothing is read outside the guest's memory (pages that belong to nobody lie around it).
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { BlockChain, NO_TICKET } from "../../src/virtio/block-chain.ts";
import {
  chainModel,
  INDIRECT,
  placeHeader,
  randomDescriptor,
  readChain,
  TABLE,
  TABLE_ENTRIES,
} from "../support/chain-model.ts";
import { FUZZ_SEED } from "../support/fuzz-seed.ts";
import { GUEST_A, GuestArena, type TestDescriptor } from "../support/guest-arena.ts";
import { PackedArena } from "../support/packed-arena.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";

const ENTRIES = 8;
const NEXT = 1;
const RUNS = rounds(20_000, 500_000);

test("random chains: verdict, header, data bytes and status place are the model's", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  const chain = new BlockChain(guest.memory);
  fc.assert(
    fc.property(fc.noShrink(fc.integer()), (seed) => {
      const random = new SeededRandom(seed);
      const tables = build(guest, random);
      const head = random.below(ENTRIES);
      const expected = chainModel(guest, follow(tables, head));
      expect(readChain(chain, guest.ring, head)).toEqual(expected);
    }),
    { numRuns: RUNS, includeErrorInReport: true, seed: FUZZ_SEED },
  );
});

test("random chains of a packed ring: the same, and the ticket names id and length", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  const chain = new BlockChain(arena.guest.memory);
  fc.assert(
    fc.property(fc.noShrink(fc.integer()), (seed) => {
      const random = new SeededRandom(seed);
      const place = placeHeader(arena.guest, random);
      const one = (_: unknown, i: number) => {
        const descriptor = randomDescriptor(random, i, place, ENTRIES);
        return { ...descriptor, flags: descriptor.flags & ~NEXT };
      };
      const offered = Array.from({ length: random.between(1, ENTRIES) }, one);
      // In a table all is data, whatever the flags say: a length of 4 GiB would be too much for the model, byte by byte.
      const table = Array.from({ length: TABLE_ENTRIES }, one).map((descriptor) => ({
        ...descriptor,
        length: Math.min(descriptor.length, 4096),
      }));
      table.forEach((descriptor, i) => {
        // NEXT and INDIRECT have no meaning in a table.
        const noise = random.pick([0, NEXT, INDIRECT]);
        arena.setIndirect(TABLE, i, { ...descriptor, flags: descriptor.flags | noise });
      });
      const id = random.below(0x1_0000);
      arena.offer(id, offered);
      const expected = chainModel(arena.guest, unpacked(offered, table));
      expect(readChain(chain, arena.ring, arena.ring.peek())).toEqual(expected);
      expect(chain.ticket).toBe(id + offered.length * 0x1_0000);
      arena.ring.take(chain.ticket);
      arena.ring.push(chain.ticket, 0);
      arena.ring.publish();
      expect(arena.reap()?.id).toBe(id);
    }),
    { numRuns: RUNS, includeErrorInReport: true, seed: FUZZ_SEED },
  );
});

test("packed rings of random bytes: every chain ends in a verdict, and moves the ring or ends it", () => {
  using arena = new PackedArena({ entries: ENTRIES });
  const chain = new BlockChain(arena.guest.memory);
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 128, maxLength: 128 }), (bytes) => {
      arena.descriptorBytes.set(bytes);
      const ring = arena.restart(0x8000);
      for (let i = 0; i <= ENTRIES && ring.waiting() === 1; i++) {
        expect(i).toBeLessThan(ENTRIES + 1);
        chain.read(ring, ring.peek());
        if (chain.ticket === NO_TICKET) {
          return;
        }
        ring.take(chain.ticket);
        expect(ring.longest).toBeWithin(0, ENTRIES);
      }
    }),
    { numRuns: RUNS / 10, includeErrorInReport: true, seed: FUZZ_SEED },
  );
});

test("rings of random bytes: every head ends in a verdict", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  const chain = new BlockChain(guest.memory);
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 128, maxLength: 128 }), (bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      for (let i = 0; i < ENTRIES; i++) {
        guest.setDescriptor(i, {
          address: GUEST_A + (view.getUint32(i * 16, true) % 0x5000),
          length: view.getUint32(i * 16 + 8, true) >>> (view.getUint8(i * 16 + 7) % 32),
          flags: view.getUint16(i * 16 + 12, true),
          next: view.getUint16(i * 16 + 14, true) % (ENTRIES + 2),
        });
      }
      for (let head = 0; head <= ENTRIES; head++) {
        expect(typeof chain.read(guest.ring, head)).toBe("boolean");
      }
    }),
    { numRuns: RUNS / 10, includeErrorInReport: true, seed: FUZZ_SEED },
  );
});

// --- internal ---

interface Tables {
  readonly ring: readonly TestDescriptor[];
  readonly indirect: readonly TestDescriptor[];
}

/** Fills the ring and the indirect table: mostly well-formed chains with something wrong here and there. */
function build(guest: GuestArena, random: SeededRandom): Tables {
  const place = placeHeader(guest, random);
  const ring = Array.from({ length: ENTRIES }, (_, i) =>
    randomDescriptor(random, i, place, ENTRIES),
  );
  const indirect = Array.from({ length: TABLE_ENTRIES }, (_, i) =>
    randomDescriptor(random, i, place, TABLE_ENTRIES),
  );
  ring.forEach((descriptor, i) => {
    guest.setDescriptor(i, descriptor);
  });
  indirect.forEach((descriptor, i) => {
    guest.setIndirect(TABLE, i, descriptor);
  });
  return { ring, indirect };
}

/** The descriptors that a chain of a packed ring means: those of the table, where it is one, and alone. */
function unpacked(
  offered: readonly TestDescriptor[],
  table: readonly TestDescriptor[],
): readonly TestDescriptor[] | undefined {
  const indirect = offered.find(({ flags }) => (flags & INDIRECT) !== 0);
  if (indirect === undefined) {
    return offered;
  }
  const entries = indirect.length / 16;
  const isTable = Number.isInteger(entries) && entries > 0 && entries <= TABLE_ENTRIES;
  return isTable && indirect.address === TABLE && offered.length === 1
    ? table.slice(0, entries)
    : undefined;
}

/** The chain's descriptors in order, or undefined when it breaks off. */
function follow(tables: Tables, head: number): readonly TestDescriptor[] | undefined {
  const found: TestDescriptor[] = [];
  let table = tables.ring;
  let index = head;
  for (let left = table.length; left > 0; left--) {
    const descriptor = table[index];
    if (descriptor === undefined) {
      return undefined;
    }
    if ((descriptor.flags & INDIRECT) !== 0) {
      const entries = descriptor.length / 16;
      const isTable = Number.isInteger(entries) && entries > 0 && entries <= TABLE_ENTRIES;
      // Other places hold zeros: a descriptor without a length that leads nowhere.
      if (table !== tables.ring || !isTable || descriptor.address !== TABLE) {
        return undefined;
      }
      table = tables.indirect.slice(0, entries);
      left = entries + 1;
      index = 0;
      continue;
    }
    found.push(descriptor);
    if ((descriptor.flags & NEXT) === 0) {
      return found;
    }
    index = descriptor.next ?? 0;
  }
  return undefined;
}
