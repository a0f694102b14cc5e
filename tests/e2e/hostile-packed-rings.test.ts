/** Packed rings in a state that no driver leaves them in, against the running executable. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { encodeU64, REQUEST } from "../../src/formats/vhost-user.ts";
import { FEATURE, REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import { intoMemory } from "../support/hostile-chains.ts";
import {
  AVAILABLE,
  at,
  ENTRIES,
  HostileClient,
  INDIRECT,
  TABLES,
  USED,
  WRITE,
} from "../support/hostile-client.ts";
import { type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";

const { IN, FLUSH } = REQUEST_TYPE;
const PACKED = [FEATURE.RING_PACKED, FEATURE.RING_INDIRECT_DESC];
const IN_FLIGHT = 80;
const NEXT = 1;
const AVAILABLE_FIRST_LAP = 0x80;
const AVAILABLE_SECOND_LAP = 0x8000;
const ROUNDS = rounds(60, 3_000);

describe("hostile packed rings", () => {
  let disk: HostileDisk;

  beforeAll(async () => {
    disk = await serveHostileDisk({ isEncrypted: false, features: PACKED });
  });

  afterEach(() => {
    expect(disk.isServing()).toBe(true);
  });

  afterAll(async () => {
    expect(await disk.close()).toBe(0);
  });

  test("a chain without an end breaks the ring, and the error descriptor tells", () => {
    using client = disk.attach();
    for (let place = 0; place < ENTRIES; place++) {
      client.packedRing.setFlags(place, AVAILABLE_FIRST_LAP | NEXT);
    }
    client.kick();
    expect(client.isRingBroken()).toBe(true);
    expect(client.usedIndex()).toBe(0);
    client.stopRing();
    client.restartRing();
    expect(client.isServed()).toBe(true);
  });

  test("laps that the driver makes up end in answers or a broken ring, and a ring that stops", () => {
    using client = disk.attach();
    for (let place = 0; place < ENTRIES; place++) {
      client.packedRing.setFlags(place, AVAILABLE_FIRST_LAP);
    }
    client.kick();
    for (let turn = 0; turn < 20_000; turn++) {
      const place = turn % ENTRIES;
      client.packedRing.setFlags(place, turn % 3 ? AVAILABLE_SECOND_LAP : AVAILABLE_FIRST_LAP);
    }
    client.stopRing();
    client.restartRing();
    expect(client.isServed()).toBe(true);
  });

  test("one id on all chains is answered as often", () => {
    using client = disk.attach();
    client.setChain(0xffff, [client.header(0, FLUSH, 0), client.statusByte(0)]);
    const ids = Array.from({ length: 100 }, () => 0xffff);
    client.offer(...ids);
    client.kick();
    expect(ids.map(() => client.waitUsed().id)).toEqual(ids);
  });

  test("the ring scribbled over by the driver while its requests run is not believed", () => {
    using client = disk.attach();
    offerReads(client, 0, 65_536);
    client.kick();
    client.waitUsed(); // others are under way
    client.bytes.fill(0xff, 0, ENTRIES * 16);
    const base = client.stopRing();
    expect(base >>> 16).toBe(base & 0xffff);
    expect(base & 0x7fff).toBeWithin(1, IN_FLIGHT + 1);
    client.restartRing();
    expect(client.isServed()).toBe(true);
  });

  test.each([
    { events: 0xffff_ffff, name: "reserved flags" },
    { events: 0x0002_7fff, name: "a place beyond the ring" },
  ])("event areas with $name do no harm: the next kick is served", ({ events }) => {
    using client = disk.attach([FEATURE.RING_EVENT_IDX]);
    client.memory.setUint32(AVAILABLE, events, true);
    client.memory.setUint32(USED, events, true);
    client.setChain(0, [client.header(0, FLUSH, 0), client.statusByte(0)]);
    client.offer(0);
    client.kick();
    expect(client.waitUsed()).toEqual({ id: 0, length: 1, isCalled: true });
    client.memory.setUint32(AVAILABLE, 0, true);
    expect(client.isServed()).toBe(true);
  });

  test.each([1, 2, 3, 255])("a ring of %d entries is served, over many laps", (packedEntries) => {
    using client = HostileClient.attach(disk.files.socketPath, {
      features: PACKED,
      packedEntries,
    });
    client.setIndirect(TABLES, 0, client.header(0, IN, 0));
    client.setIndirect(TABLES, 1, intoMemory(512));
    client.setIndirect(TABLES, 2, client.statusByte(0));
    client.setDescriptor(7, { address: at(TABLES), length: 48, flags: INDIRECT });
    for (let i = 0; i < 600; i++) {
      client.offer(7);
      client.kick();
      expect(client.waitUsed()).toEqual({ id: 7, length: 513, isCalled: true });
    }
    expect(client.status(0)).toBe(STATUS.OK);
  });

  test("stopping a busy ring answers everything it took first", () => {
    using client = disk.attach();
    offerReads(client, 0, 65_536);
    client.kick();
    client.waitUsed(); // the others are under way
    const base = client.stopRing();
    expect((base & 0xffff) - 0x8000).toBe(client.usedIndex());
    expect(base >>> 16).toBe(base & 0xffff);
  });

  test("a change to the other kind of ring leaves nothing of the first one", () => {
    using client = disk.attach();
    expect(client.isServed()).toBe(true);
    client.command(REQUEST.SET_FEATURES, encodeU64(0x1_4000_0000n));
    client.packedRing.setFlags(0, AVAILABLE_FIRST_LAP);
    client.kick();
    client.negotiateAgain(PACKED);
    client.restartRing();
    expect(client.isServed()).toBe(true);
  });

  test("random chains are each used once", () => {
    for (let seed = 0; seed < ROUNDS; seed++) {
      const random = new SeededRandom(seed);
      using client = disk.attach();
      const ids: number[] = [];
      let free = ENTRIES;
      for (;;) {
        const chain = randomChain(client, random);
        free -= chain.length;
        if (free < 0) {
          break;
        }
        const id = (ids.length * 811 + seed) & 0xffff; // each once
        ids.push(id);
        client.setChain(id, chain);
        client.offer(id);
      }
      client.kick();
      const used = ids.map(() => client.waitUsed().id);
      expect({ seed, used: used.sort() }).toEqual({ seed, used: ids.sort() });
    }
  }, 240_000);

  test("rings of random bytes: the backend stops the ring when asked, and serves on", () => {
    for (let seed = 0; seed < ROUNDS; seed++) {
      const random = new SeededRandom(seed);
      using client = disk.attach();
      for (let place = 0; place < ENTRIES; place++) {
        const [descriptor] = randomChain(client, random);
        client.setChain(place, descriptor === undefined ? [] : [descriptor]);
        client.offer(place);
        const owner = random.oneIn(20) ? AVAILABLE_SECOND_LAP : AVAILABLE_FIRST_LAP;
        client.packedRing.setFlags(place, owner | random.below(8));
      }
      client.kick();
      client.stopRing();
      client.restartRing();
      expect({ seed, isServed: client.isServed() }).toEqual({ seed, isServed: true });
    }
  }, 240_000);
});

/** 80 reads through one indirect table, each one descriptor of the ring. */
function offerReads(client: HostileClient, sector: number, bytes: number): void {
  client.setIndirect(TABLES, 0, client.header(0, IN, sector));
  client.setIndirect(TABLES, 1, intoMemory(bytes));
  client.setIndirect(TABLES, 2, client.statusByte(0));
  for (let id = 0; id < IN_FLIGHT; id++) {
    client.setDescriptor(id, { address: at(TABLES), length: 48, flags: INDIRECT });
    client.offer(id);
  }
}

/** One to six descriptors of what might be a request. */
function randomChain(client: HostileClient, random: SeededRandom) {
  const count = random.between(1, 6);
  return Array.from({ length: count }, (_, i) => {
    if (i === 0 && !random.oneIn(4)) {
      return client.header(0, random.pick([0, 1, 4, 8, 11, 13, 0xdead]), random.below(2 ** 18));
    }
    if (i + 1 === count && !random.oneIn(4)) {
      return client.statusByte(0);
    }
    const address = random.pick([at(0x10000), at(TABLES), at(0xff_fff0), 0x77_0000_0000, 0]);
    const length = random.pick([0, 1, 16, 48, 512, 4096, 65_536, 2 ** 31, 2 ** 32 - 1]);
    const flags = random.pick([0, WRITE, WRITE, INDIRECT, 0x7f78]);
    return { address, length, flags };
  });
}
