/**
 * Random and hostile chains against a plain model of the rules: the same verdict, the same bytes, and
 * nothing is read outside the guest's memory (pages that belong to nobody lie around it).
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { BlockChain } from "../../src/virtio/block-chain.ts";
import {
  GUEST_A,
  GUEST_B,
  GUEST_END,
  GuestArena,
  type TestDescriptor,
} from "../support/guest-arena.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";

const ENTRIES = 8;
const TABLE_ENTRIES = 6;
const TABLE = GUEST_A + 0x400;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const RUNS = rounds(20_000, 500_000);
const TYPES = [0, 0, 1, 1, 4, 8, 11, 13, 2, 0xffffffff] as const;
const READS: readonly number[] = [0, 8];
const WRITES: readonly number[] = [1, 11, 13];

test("random chains: verdict, header, data bytes and status place are the model's", () => {
  using guest = new GuestArena({ entries: ENTRIES });
  const chain = new BlockChain(guest.memory);
  fc.assert(
    fc.property(fc.noShrink(fc.integer()), (seed) => {
      const random = new SeededRandom(seed);
      const tables = build(guest, random);
      const head = random.below(ENTRIES);
      const expected = model(guest, tables, head);
      expect(actual(chain, guest, head)).toEqual(expected);
    }),
    { numRuns: RUNS, includeErrorInReport: true },
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
    { numRuns: RUNS / 10, includeErrorInReport: true },
  );
});

// --- internal ---

interface Tables {
  readonly ring: readonly TestDescriptor[];
  readonly indirect: readonly TestDescriptor[];
}

interface Verdict {
  readonly isRequest: boolean;
  readonly status: number;
  readonly type?: number;
  readonly sector?: number;
  /** Host address of every byte of data, -1 outside guest memory. */
  readonly data?: readonly number[];
}

/** Fills the ring and the indirect table: mostly well-formed chains with something wrong here and there. */
function build(guest: GuestArena, random: SeededRandom): Tables {
  const header = new Uint8Array(16);
  const view = new DataView(header.buffer);
  const place = random.pick([GUEST_A, GUEST_B - 5, GUEST_B + 8]);
  view.setUint32(0, random.pick(TYPES), true);
  view.setUint32(8, random.below(1000), true);
  guest.write(place, header);
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

function randomDescriptor(
  random: SeededRandom,
  index: number,
  header: number,
  entries: number,
): TestDescriptor {
  const next = random.oneIn(8) ? random.below(entries + 2) : index + 1;
  if (random.oneIn(12)) {
    const length = random.pick([16, 32, TABLE_ENTRIES * 16, 0, 24, 0xffff_fff0]);
    return { address: random.oneIn(8) ? GUEST_END - 16 : TABLE, length, flags: INDIRECT, next };
  }
  const isHeader = index === 0 || random.oneIn(6);
  const link = random.oneIn(3) ? 0 : NEXT;
  if (isHeader) {
    const length = random.pick([16, 16, 16, 15, 20, 5]);
    return { address: header, length, flags: (random.oneIn(12) ? WRITE : 0) | link, next };
  }
  const address = random.pick([
    GUEST_A + 0x600,
    GUEST_B - random.below(40),
    GUEST_END - random.below(40),
    GUEST_A - random.below(3),
    0xffff_ffff_0000,
  ]);
  const length = random.pick([1, 1, 0, 2, 16, 33, 512, 513]);
  return { address, length, flags: (random.oneIn(3) ? 0 : WRITE) | link, next };
}

function actual(chain: BlockChain, guest: GuestArena, head: number): Verdict {
  const isRequest = chain.read(guest.ring, head);
  if (!isRequest) {
    return { isRequest, status: chain.statusAddress };
  }
  const data: number[] = [];
  for (let i = chain.dataStart; i < chain.dataStart + chain.dataCount; i++) {
    const address = chain.address[i] ?? 0;
    for (let byte = 0; byte < (chain.length[i] ?? 0); byte++) {
      data.push(address === -1 ? -1 : address + byte);
    }
  }
  expect(chain.dataBytes).toBe(data.length);
  expect(chain.isDataMapped).toBe(!data.includes(-1));
  const { type, sector, statusAddress } = chain;
  return { isRequest, status: statusAddress, type, sector, data };
}

/** The rules, byte by byte. */
function model(guest: GuestArena, tables: Tables, head: number): Verdict {
  const bad = { isRequest: false, status: 0 };
  const descriptors = follow(tables, head);
  const last = descriptors?.at(-1);
  if (descriptors === undefined || last === undefined) {
    return bad;
  }
  const isWritable = descriptors.map(({ flags }) => (flags & WRITE) !== 0);
  if (isWritable.some((writable, i) => writable && isWritable[i + 1] === false)) {
    return bad;
  }
  // An address beyond the regions' reach stays there: a descriptor that begins outside is outside.
  const hosts = (descriptor: TestDescriptor) => {
    const isOutside = guest.hostOf(descriptor.address) === -1;
    return Array.from({ length: descriptor.length }, (_, i) =>
      isOutside ? -1 : guest.hostOf(descriptor.address + i),
    );
  };
  const readable = descriptors.filter((_, i) => !isWritable[i]).flatMap(hosts);
  const writable = descriptors.filter((_, i) => isWritable[i]);
  const header = readable.slice(0, 16);
  const hasHeader = header.length === 16 && !header.includes(-1);
  const type = hasHeader ? numberAt(guest, header.slice(0, 4)) : 0;
  const sector = hasHeader
    ? numberAt(guest, header.slice(8, 12)) + numberAt(guest, header.slice(12, 16)) * 2 ** 32
    : 0;
  const isRead = hasHeader && READS.includes(type);
  if (!isWritable.at(-1) || last.length === 0) {
    return bad;
  }
  const body = writable.slice(0, -1).flatMap(hosts);
  const tail = hosts(last);
  const isShared = isRead && body.length === 0 && tail.length > 1;
  const status = Math.max(0, (isShared ? tail.at(-1) : tail[0]) ?? 0);
  const input = isShared ? tail.slice(0, -1) : body;
  const output = readable.slice(16);
  const isWrong =
    (isRead && output.length > 0) || (WRITES.includes(type) && input.length > 0) || !hasHeader;
  return isWrong
    ? { isRequest: false, status }
    : { isRequest: true, status, type, sector, data: isRead ? input : output };
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

/** A little-endian number from the bytes at host addresses. */
function numberAt(guest: GuestArena, hosts: readonly number[]): number {
  return hosts.reduce((sum, host, i) => sum + guest.byteAt(host) * 256 ** i, 0);
}
