/**
 * Random descriptor tables against the running executable: whatever a chain is, it is used once, and
 * the backend serves on. A failure prints the seed; `UBIBLK_FUZZ_SEED=N` runs it again.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { FEATURE } from "../../src/formats/virtio-blk.ts";
import {
  at,
  DATA,
  ENTRIES,
  HEADERS,
  type HostileClient,
  MEMORY_BYTES,
  NOWHERE,
  TABLES,
} from "../support/hostile-client.ts";
import { type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";
import { rounds } from "../support/requires.ts";

const ROUNDS = rounds(150, 3000);
const HEADS = 32;
const FIRST_SEED = Number(process.env.UBIBLK_FUZZ_SEED ?? Date.now() % 2 ** 31);

let disk: HostileDisk;

beforeAll(async () => {
  disk = await serveHostileDisk({ isEncrypted: true });
});

afterAll(async () => {
  expect(await disk.close()).toBe(0);
});

test(`random chains from seed ${FIRST_SEED} are each used once`, () => {
  for (let round = 0; round < ROUNDS; round++) {
    const below = numbers(FIRST_SEED + round);
    using client = disk.attach([FEATURE.RING_INDIRECT_DESC]);
    scribble(client, below);
    const heads = Array.from({ length: HEADS }, () => below(ENTRIES));
    client.offer(...heads);
    client.kick();
    const used = heads.map(() => client.waitUsed().id);
    expect({ seed: FIRST_SEED + round, used: used.sort() }).toEqual({
      seed: FIRST_SEED + round,
      used: heads.sort(),
    });
  }
  expect(disk.isServing()).toBe(true);
}, 240_000);

/** Fills the descriptor table, the indirect tables and the headers with what might be requests. */
function scribble(client: HostileClient, below: (count: number) => number): void {
  const addresses = [at(HEADERS), at(DATA), at(TABLES), at(MEMORY_BYTES - 64), NOWHERE, 0];
  const lengths = [0, 1, 8, 16, 48, 512, 4096, 65536, 2 ** 31, 2 ** 32 - 1];
  const types = [0, 1, 4, 8, 11, 13, 0xdead];
  const descriptor = () => ({
    address: (addresses[below(addresses.length)] ?? 0) + below(64) * 16,
    length: lengths[below(lengths.length)] ?? 0,
    // NEXT and WRITE as often as not, INDIRECT seldom, a bit without meaning now and then.
    flags: below(4) | (below(6) === 0 ? 4 : 0) | (below(20) === 0 ? 0x80 : 0),
    next: below(ENTRIES + 4),
  });
  for (let i = 0; i < ENTRIES; i++) {
    client.setDescriptor(i, descriptor());
    client.setIndirect(TABLES, i, { ...descriptor(), next: below(8) });
    client.header(i, types[below(types.length)] ?? 0, below(2 ** 18));
  }
}

/** Seeded whole numbers (a linear congruence: quality does not matter here). */
function numbers(seed: number): (count: number) => number {
  let state = seed;
  return (count) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return Math.floor(((state >>> 0) / 2 ** 32) * count);
  };
}
