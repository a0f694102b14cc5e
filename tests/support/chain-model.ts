/** What a chain of descriptors means, byte by byte: a plain model to hold `BlockChain` against, and random descriptors. */
import { expect } from "bun:test";
import type { BlockChain } from "../../src/virtio/block-chain.ts";
import type { Ring } from "../../src/virtio/ring.ts";
import {
  GUEST_A,
  GUEST_B,
  GUEST_END,
  type GuestArena,
  type TestDescriptor,
} from "./guest-arena.ts";
import type { SeededRandom } from "./random.ts";

/** Entries of the indirect table, and where it is. */
export const TABLE_ENTRIES = 6;
export const TABLE = GUEST_A + 0x400;
const NEXT = 1;
const WRITE = 2;
export const INDIRECT = 4;
const TYPES = [0, 0, 1, 1, 4, 8, 11, 13, 2, 0xffffffff] as const;
const READS: readonly number[] = [0, 8];
const WRITES: readonly number[] = [1, 11, 13];

export interface Verdict {
  readonly isRequest: boolean;
  readonly status: number;
  readonly type?: number;
  readonly sector?: number;
  /** Host address of every byte of data, -1 outside guest memory. */
  readonly data?: readonly number[];
}

/** Writes a header somewhere, now and then across regions; where it is. */
export function placeHeader(guest: GuestArena, random: SeededRandom): number {
  const header = new Uint8Array(16);
  const view = new DataView(header.buffer);
  const place = random.pick([GUEST_A, GUEST_B - 5, GUEST_B + 8]);
  view.setUint32(0, random.pick(TYPES), true);
  view.setUint32(8, random.below(1000), true);
  guest.write(place, header);
  return place;
}

export function randomDescriptor(
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

/** What the code makes of a chain. */
export function readChain(chain: BlockChain, ring: Ring, head: number): Verdict {
  const isRequest = chain.read(ring, head);
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
export function chainModel(
  guest: GuestArena,
  descriptors: readonly TestDescriptor[] | undefined,
): Verdict {
  const bad = { isRequest: false, status: 0 };
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

// --- internal ---

/** A little-endian number from the bytes at host addresses. */
function numberAt(guest: GuestArena, hosts: readonly number[]): number {
  return hosts.reduce((sum, host, i) => sum + guest.byteAt(host) * 256 ** i, 0);
}
