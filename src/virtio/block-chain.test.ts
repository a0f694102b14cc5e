import { expect, test } from "bun:test";
import {
  GUEST_A,
  GUEST_B,
  GUEST_END,
  GuestArena,
  type TestDescriptor,
} from "../../tests/support/guest-arena.ts";
import { encodeRequestHeader, REQUEST_TYPE } from "../formats/virtio-blk.ts";
import { BlockChain } from "./block-chain.ts";

const ENTRIES = 16;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

// Places in guest memory.
const HEADER = GUEST_A;
const STATUS = GUEST_A + 0x100;
const TABLE = GUEST_A + 0x200;
const DATA = GUEST_A + 0x800;
/** The last byte of region A; region B follows at once. */
const SEAM = GUEST_B - 1;
const NOWHERE = 0x9000_0000;

const header = { address: HEADER, length: 16, flags: 0 };
const status = { address: STATUS, length: 1, flags: WRITE };

test("block chain: a read has its data segments in order and its status byte", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 77);
  const first = { address: DATA, length: 512, flags: WRITE };
  const second = { address: DATA + 0x400, length: 1024, flags: WRITE };
  expect(chains.read([header, first, second, status])).toBe(true);
  expect(chains.chain.type).toBe(REQUEST_TYPE.IN);
  expect(chains.chain.sector).toBe(77);
  expect(chains.data()).toEqual([
    [chains.hostOf(DATA), 512],
    [chains.hostOf(DATA + 0x400), 1024],
  ]);
  expect(chains.chain.dataBytes).toBe(1536);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(STATUS));
});

test("block chain: a write has its readable data", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.OUT, 1);
  expect(chains.read([header, { address: DATA, length: 512, flags: 0 }, status])).toBe(true);
  expect(chains.data()).toEqual([[chains.hostOf(DATA), 512]]);
});

test("block chain: a flush has header and status, whatever its sector says", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.FLUSH, 7);
  expect(chains.read([header, status])).toBe(true);
  expect(chains.chain.dataCount).toBe(0);
});

test("rule 1: a chain of one descriptor is bad", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.FLUSH, 0);
  expect(chains.read([header])).toBe(false);
  expect(chains.chain.statusAddress).toBe(0);
});

test("rule 2: a header that the device should write is bad, but the chain has a place for its status", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  expect(chains.read([{ ...header, flags: WRITE }, status])).toBe(false);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(STATUS));
});

test("rule 3: a header outside guest memory is bad, and so is one that leaves it", () => {
  using chains = new Chains();
  expect(chains.read([{ ...header, address: NOWHERE }, status])).toBe(false);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(STATUS));
  expect(chains.read([{ ...header, address: GUEST_END - 8 }, status])).toBe(false);
});

test("rule 3: fewer than 16 readable bytes hold no header", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  expect(chains.read([{ ...header, length: 15 }, status])).toBe(false);
});

test("rule 5: a read with data that is not writable is bad", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  expect(chains.read([header, { address: DATA, length: 512, flags: 0 }, status])).toBe(false);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(STATUS));
});

test("direction: a write, discard or write-zeroes with writable data is bad", () => {
  using chains = new Chains();
  for (const type of [REQUEST_TYPE.OUT, REQUEST_TYPE.DISCARD, REQUEST_TYPE.WRITE_ZEROES]) {
    chains.setHeader(type, 0);
    expect(chains.read([header, { address: DATA, length: 512, flags: WRITE }, status])).toBe(false);
  }
});

test("direction: something to read behind something to write is bad", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.OUT, 0);
  expect(chains.read([header, status, { address: DATA, length: 512, flags: 0 }, status])).toBe(
    false,
  );
});

test("rule 6: a status that is not writable or has no length is bad and gets none", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.FLUSH, 0);
  expect(chains.read([header, { ...status, flags: 0 }])).toBe(false);
  expect(chains.chain.statusAddress).toBe(0);
  expect(chains.read([header, { ...status, length: 0 }])).toBe(false);
  expect(chains.chain.statusAddress).toBe(0);
});

test("rule 6: a status outside guest memory leaves the request whole but without a place for it", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.FLUSH, 0);
  expect(chains.read([header, { ...status, address: NOWHERE }])).toBe(true);
  expect(chains.chain.statusAddress).toBe(0);
});

test("rule 7: a next index outside the table breaks the chain off", () => {
  using chains = new Chains();
  chains.guest.setDescriptor(0, { ...header, flags: NEXT, next: ENTRIES });
  expect(chains.readAt(0)).toBe(false);
});

test("rule 7: a head outside the table is no chain", () => {
  using chains = new Chains();
  expect(chains.readAt(ENTRIES)).toBe(false);
  expect(chains.readAt(0xffff)).toBe(false);
});

test("rule 7: a chain that bites its tail ends", () => {
  using chains = new Chains();
  chains.guest.setDescriptor(0, { ...header, flags: NEXT, next: 1 });
  chains.guest.setDescriptor(1, { ...header, flags: NEXT, next: 0 });
  expect(chains.readAt(0)).toBe(false);
});

test("rule 7: a descriptor that bites itself ends, even without a length", () => {
  using chains = new Chains();
  chains.guest.setDescriptor(3, { address: DATA, length: 0, flags: NEXT, next: 3 });
  expect(chains.readAt(3)).toBe(false);
});

test("rule 7: lengths of 2^32 together are refused, one byte less is not", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  const rest = 2 ** 32 - 1 - 16 - 1;
  const huge = { address: NOWHERE, length: rest, flags: WRITE };
  expect(chains.read([header, huge, status])).toBe(true);
  expect(chains.chain.isDataMapped).toBe(false);
  expect(chains.chain.dataBytes).toBe(rest);
  expect(chains.read([header, { ...huge, length: rest + 1 }, status])).toBe(false);
});

test("indirect: a whole request in one table", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 5);
  const data = { address: DATA, length: 512, flags: WRITE };
  expect(chains.readIndirect([header, data, status], 3 * 16)).toBe(true);
  expect(chains.data()).toEqual([[chains.hostOf(DATA), 512]]);
  expect(chains.chain.sector).toBe(5);
});

test("indirect: a header in the ring and the rest in a table", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.FLUSH, 0);
  chains.guest.setIndirect(TABLE, 0, status);
  chains.guest.setDescriptor(0, { ...header, flags: NEXT, next: 1 });
  chains.guest.setDescriptor(1, { address: TABLE, length: 16, flags: INDIRECT });
  expect(chains.readAt(0)).toBe(true);
});

test("indirect: a table with more entries than the ring", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  const data = Array.from({ length: 40 }, (_, i) => ({
    address: DATA + i * 8,
    length: 8,
    flags: WRITE,
  }));
  expect(chains.readIndirect([header, ...data, status], 42 * 16)).toBe(true);
  expect(chains.chain.dataCount).toBe(40);
});

test("indirect: sizes that are no table are refused", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.FLUSH, 0);
  for (const bytes of [0, 8, 15, 17, 33, 0xffff_fff0]) {
    expect(chains.readIndirect([header, status], bytes)).toBe(false);
  }
});

test("indirect: a table that leaves guest memory is refused", () => {
  using chains = new Chains();
  chains.guest.setDescriptor(0, { address: GUEST_END - 16, length: 32, flags: INDIRECT });
  expect(chains.readAt(0)).toBe(false);
  chains.guest.setDescriptor(0, { address: NOWHERE, length: 32, flags: INDIRECT });
  expect(chains.readAt(0)).toBe(false);
});

test("indirect: a table inside a table is refused", () => {
  using chains = new Chains();
  chains.guest.setIndirect(TABLE, 0, { address: TABLE, length: 16, flags: INDIRECT });
  chains.guest.setDescriptor(0, { address: TABLE, length: 16, flags: INDIRECT });
  expect(chains.readAt(0)).toBe(false);
});

test("indirect: a next index outside its table is refused though the ring has it", () => {
  using chains = new Chains();
  chains.guest.setDescriptor(2, status);
  expect(chains.readIndirect([header, status, status], 2 * 16)).toBe(false);
});

test("indirect: circles in a table end", () => {
  using chains = new Chains();
  chains.guest.setIndirect(TABLE, 0, { ...header, flags: NEXT, next: 0 });
  chains.guest.setDescriptor(0, { address: TABLE, length: 16, flags: INDIRECT });
  expect(chains.readAt(0)).toBe(false);
});

test("framing: a header split over three descriptors, the last of which begins the data", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.OUT, 0x1_2345_6789);
  const parts = [
    { address: HEADER, length: 3, flags: 0 },
    { address: HEADER + 3, length: 12, flags: 0 },
    { address: HEADER + 15, length: 1 + 512, flags: 0 },
  ];
  expect(chains.read([...parts, status])).toBe(true);
  expect(chains.chain.sector).toBe(0x1_2345_6789);
  expect(chains.data()).toEqual([[chains.hostOf(HEADER + 16), 512]]);
});

test("framing: data and status of a read in one descriptor", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  expect(chains.read([header, { address: DATA, length: 513, flags: WRITE }])).toBe(true);
  expect(chains.data()).toEqual([[chains.hostOf(DATA), 512]]);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(DATA + 512));
});

test("framing: a status descriptor with room to spare gets its status at its start", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.FLUSH, 0);
  expect(chains.read([header, { ...status, length: 4 }])).toBe(true);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(STATUS));
});

test("regions: a descriptor over the seam of two regions becomes two segments", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.OUT, 0);
  expect(chains.read([header, { address: SEAM, length: 512, flags: 0 }, status])).toBe(true);
  expect(chains.data()).toEqual([
    [chains.hostOf(SEAM), 1],
    [chains.hostOf(GUEST_B), 511],
  ]);
  expect(chains.chain.isDataMapped).toBe(true);
});

test("regions: a header over the seam is read whole", () => {
  using chains = new Chains();
  chains.guest.write(SEAM, encodeRequestHeader(REQUEST_TYPE.FLUSH, 9));
  expect(chains.read([{ ...header, address: SEAM }, status])).toBe(true);
  expect(chains.chain.sector).toBe(9);
});

test("regions: data and status of a read in one descriptor over the seam", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  const address = GUEST_B - 100;
  expect(chains.read([header, { address, length: 513, flags: WRITE }])).toBe(true);
  expect(chains.data()).toEqual([
    [chains.hostOf(address), 100],
    [chains.hostOf(GUEST_B), 412],
  ]);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(GUEST_B + 412));
});

test("regions: data that ends at the seam, with its status alone behind it", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  const address = GUEST_B - 512;
  expect(chains.read([header, { address, length: 513, flags: WRITE }])).toBe(true);
  expect(chains.data()).toEqual([[chains.hostOf(address), 512]]);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(GUEST_B));
});

test("regions: a long status descriptor over the seam gets its status at its start", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.IN, 0);
  const data = { address: DATA, length: 512, flags: WRITE };
  expect(chains.read([header, data, { address: SEAM, length: 8, flags: WRITE }])).toBe(true);
  expect(chains.data()).toEqual([[chains.hostOf(DATA), 512]]);
  expect(chains.chain.statusAddress).toBe(chains.hostOf(SEAM));
});

test("regions: data that runs out of guest memory is told, and keeps its length", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.OUT, 0);
  const data = { address: GUEST_END - 100, length: 512, flags: 0 };
  expect(chains.read([header, data, status])).toBe(true);
  expect(chains.chain.isDataMapped).toBe(false);
  expect(chains.chain.dataBytes).toBe(512);
});

test("limits: more segments than any ring has descriptors are refused", () => {
  // 32766 entries that cross the seam are 65532 segments.
  const entries = 32_768;
  using guest = new GuestArena({ entries });
  guest.write(HEADER, encodeRequestHeader(REQUEST_TYPE.IN, 0));
  guest.setDescriptor(0, { ...header, flags: NEXT, next: 1 });
  for (let i = 1; i < entries - 1; i++) {
    guest.setDescriptor(i, { address: SEAM, length: 2, flags: WRITE | NEXT, next: i + 1 });
  }
  guest.setDescriptor(entries - 1, status);
  const chain = new BlockChain(guest.memory);
  expect(chain.read(guest.ring, 0)).toBe(false);
});

test("limits: a chain as long as the largest ring has no more data segments than that", () => {
  const entries = 32_768;
  using guest = new GuestArena({ entries });
  guest.write(HEADER, encodeRequestHeader(REQUEST_TYPE.IN, 0));
  guest.setDescriptor(0, { ...header, flags: NEXT, next: 1 });
  for (let i = 1; i < entries - 1; i++) {
    guest.setDescriptor(i, { address: DATA, length: 1, flags: WRITE | NEXT, next: i + 1 });
  }
  guest.setDescriptor(entries - 1, status);
  const chain = new BlockChain(guest.memory);
  expect(chain.read(guest.ring, 0)).toBe(true);
  expect(chain.dataCount).toBe(entries - 2);
});

test("limits: crossing segments never exceed what a request's slot can hold", () => {
  // The reader's own bound, not the ring's, ends a chain of 32768 + 62 segments.
  const entries = 32_768;
  using guest = new GuestArena({ entries });
  guest.write(HEADER, encodeRequestHeader(REQUEST_TYPE.IN, 0));
  guest.setDescriptor(0, { ...header, flags: NEXT, next: 1 });
  for (let i = 1; i < entries - 1; i++) {
    const crossing = i <= 62;
    const place = crossing ? { address: SEAM, length: 2 } : { address: DATA, length: 1 };
    guest.setDescriptor(i, { ...place, flags: WRITE | NEXT, next: i + 1 });
  }
  guest.setDescriptor(entries - 1, status);
  const chain = new BlockChain(guest.memory);
  expect(chain.read(guest.ring, 0)).toBe(false);
});

test("state: a bad chain shows nothing of the one before it", () => {
  using chains = new Chains();
  chains.setHeader(REQUEST_TYPE.GET_ID, 3);
  expect(chains.read([header, { address: DATA, length: 20, flags: WRITE }, status])).toBe(true);
  chains.guest.setDescriptor(0, { ...header, flags: NEXT, next: ENTRIES });
  expect(chains.readAt(0)).toBe(false);
  expect(chains.chain.type).toBe(0);
  expect(chains.chain.sector).toBe(0);
  expect(chains.chain.dataCount).toBe(0);
  expect(chains.chain.statusAddress).toBe(0);
});

// --- internal ---

class Chains implements Disposable {
  readonly guest = new GuestArena({ entries: ENTRIES });
  readonly chain = new BlockChain(this.guest.memory);

  setHeader(type: number, sector: number): void {
    this.guest.write(HEADER, encodeRequestHeader(type, sector));
  }

  hostOf(address: number): number {
    return this.guest.hostOf(address);
  }

  /** Reads `descriptors` as a chain in the ring, from descriptor 0 on. */
  read(descriptors: readonly TestDescriptor[]): boolean {
    descriptors.forEach((descriptor, i) => {
      this.guest.setDescriptor(i, linked(descriptor, i, descriptors.length));
    });
    return this.readAt(0);
  }

  /** The same in a table whose descriptor claims `tableBytes`. */
  readIndirect(descriptors: readonly TestDescriptor[], tableBytes: number): boolean {
    descriptors.forEach((descriptor, i) => {
      this.guest.setIndirect(TABLE, i, linked(descriptor, i, descriptors.length));
    });
    this.guest.setDescriptor(0, { address: TABLE, length: tableBytes, flags: INDIRECT });
    return this.readAt(0);
  }

  readAt(head: number): boolean {
    return this.chain.read(this.guest.ring, head);
  }

  /** Host address and length of each data segment. */
  data(): readonly (readonly [number, number])[] {
    const { chain } = this;
    return Array.from({ length: chain.dataCount }, (_, i) => [
      chain.address[chain.dataStart + i] ?? 0,
      chain.length[chain.dataStart + i] ?? 0,
    ]);
  }

  [Symbol.dispose](): void {
    this.guest[Symbol.dispose]();
  }
}

function linked(descriptor: TestDescriptor, index: number, count: number): TestDescriptor {
  const link = index + 1 < count ? NEXT : 0;
  return { ...descriptor, flags: descriptor.flags | link, next: index + 1 };
}
