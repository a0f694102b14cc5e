/**
 * Indirect tables around the number of entries that are copied at once, in any order of links, against the running
 * executable: requests of a page and around it, whose data lies anywhere and in any pieces, move what they should.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { FEATURE, REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import {
  at,
  DATA,
  type Descriptor,
  type HostileClient,
  INDIRECT,
  NEXT,
  TABLES,
  WRITE,
} from "../support/hostile-client.ts";
import { type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";
import { SeededRandom } from "../support/random.ts";

const { IN, OUT } = REQUEST_TYPE;
/** Where what is read comes; what is written lies in the first half. */
const READ_AT = DATA + 0x70000;
const SECTORS_MAX = 64;

describe.each([
  { kind: "plain, io_uring", isEncrypted: false, tuning: "" },
  { kind: "plain, sync", isEncrypted: false, tuning: 'io_engine = "sync"' },
  { kind: "encrypted, io_uring", isEncrypted: true, tuning: "" },
])("$kind", ({ isEncrypted, tuning }) => {
  let disk: HostileDisk;

  beforeAll(async () => {
    disk = await serveHostileDisk({ isEncrypted, tuning });
  });

  afterAll(async () => {
    expect(await disk.close()).toBe(0);
  });

  test.each([3, 4, 15, 16, 17, 18, 33, 64, 256])(
    "tables of %d entries, linked in any order",
    (entries) => {
      const random = new SeededRandom(entries);
      using client = disk.attach([FEATURE.RING_INDIRECT_DESC]);
      for (let round = 0; round < 40; round += 1) {
        const length = random.pick([512, 3584, 4096, 4096, 4608, 8192, 32_768]);
        const sector = random.between(0, SECTORS_MAX);
        const from = DATA + random.pick([0, 1, 2, 511, 512, 4095]);
        const to = READ_AT + random.pick([0, 1, 3, 512, 1024, 4095]);
        crypto.getRandomValues(client.bytes.subarray(from, from + length));
        client.bytes.fill(0x33, to - 1, to + length + 1);
        transfer(client, random, { type: OUT, sector, offset: from, length, entries });
        transfer(client, random, { type: IN, sector, offset: to, length, entries });
        const written = client.bytes.subarray(from, from + length);
        expect(Buffer.compare(written, client.bytes.subarray(to, to + length))).toBe(0);
        expect([client.bytes[to - 1], client.bytes[to + length]]).toEqual([0x33, 0x33]);
      }
    },
  );

  test("a table at the very end of memory, and one that crosses it", () => {
    using client = disk.attach([FEATURE.RING_INDIRECT_DESC]);
    const random = new SeededRandom(1);
    const end = client.bytes.length;
    for (const entries of [3, 16, 17, 64]) {
      const table = end - entries * 16;
      transfer(client, random, {
        type: OUT,
        sector: 1,
        offset: DATA,
        length: 4096,
        entries,
        table,
      });
      client.submit([{ address: at(table), length: entries * 16 + 16, flags: INDIRECT }]);
      expect(client.isServed()).toBe(true);
    }
  });
});

// --- internal ---

/** One request by an indirect table of `entries`, all used when the data has so many bytes. */
function transfer(
  client: HostileClient,
  random: SeededRandom,
  request: {
    readonly type: number;
    readonly sector: number;
    readonly offset: number;
    readonly length: number;
    readonly entries: number;
    readonly table?: number;
  },
): void {
  const { type, sector, offset, length, entries, table = TABLES } = request;
  const direction = type === IN ? WRITE : 0;
  const cuts = Array.from({ length: entries - 3 }, () => random.between(0, length));
  const edges = [0, ...cuts.sort((one, other) => one - other), length];
  const data = edges.slice(1).map((edge, i) => ({
    address: at(offset + (edges[i] ?? 0)),
    length: edge - (edges[i] ?? 0),
    flags: direction,
  }));
  const chain: Descriptor[] = [client.header(0, type, sector), ...data, client.statusByte(0)];
  // The first entry is where a chain begins; all others lie where they may.
  const places = [
    0,
    ...shuffled(
      Array.from({ length: entries - 1 }, (_, i) => i + 1),
      random,
    ),
  ];
  chain.forEach((descriptor, i) => {
    const next = places[i + 1];
    const link = next === undefined ? 0 : NEXT;
    client.setIndirect(table, places[i] ?? 0, {
      ...descriptor,
      flags: descriptor.flags | link,
      next: next ?? 0,
    });
  });
  client.submit([{ address: at(table), length: entries * 16, flags: INDIRECT }]);
  expect(client.status(0)).toBe(STATUS.OK);
}

function shuffled(values: readonly number[], random: SeededRandom): number[] {
  return values
    .map((value) => ({ value, key: random.below(2 ** 30) }))
    .sort((one, other) => one.key - other.key)
    .map(({ value }) => value);
}
