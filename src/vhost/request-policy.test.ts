import { expect, test } from "bun:test";
import { GUEST_A, GuestArena } from "../../tests/support/guest-arena.ts";
import { Operation } from "../disk/request-table.ts";
import { encodeRequestHeader, REQUEST_TYPE, STATUS } from "../formats/virtio-blk.ts";
import { BlockChain } from "../virtio/block-chain.ts";
import { DeviceId } from "./device-id.ts";
import { operationOf, type PolicyDisk, TO_DISK, verdictOf } from "./request-policy.ts";

const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = REQUEST_TYPE;
const { OK, IOERR, UNSUPPORTED } = STATUS;
const WRITE = 2;
const NEXT = 1;
const DATA = GUEST_A + 0x400;
const NOWHERE = 0x9000_0000;
const CAPACITY = 1000;

const DISK: PolicyDisk = { sectors: CAPACITY, isReadOnly: false, isDiscardOffered: true };
const READ_ONLY: PolicyDisk = { ...DISK, isReadOnly: true, isDiscardOffered: false };
const NO_DISCARD: PolicyDisk = { ...DISK, isDiscardOffered: false };

test.each([
  { name: "the first sector", sector: 0, bytes: 512, verdict: TO_DISK },
  { name: "the last sector", sector: CAPACITY - 1, bytes: 512, verdict: TO_DISK },
  { name: "one sector too many", sector: CAPACITY - 1, bytes: 1024, verdict: IOERR },
  { name: "at the capacity", sector: CAPACITY, bytes: 512, verdict: IOERR },
  { name: "far beyond it", sector: 2 ** 52, bytes: 512, verdict: IOERR },
  { name: "nothing, inside", sector: 3, bytes: 0, verdict: TO_DISK },
  { name: "nothing, at the capacity", sector: CAPACITY, bytes: 0, verdict: TO_DISK },
  { name: "nothing, beyond it", sector: CAPACITY + 1, bytes: 0, verdict: IOERR },
  { name: "one byte", sector: 0, bytes: 1, verdict: IOERR },
  { name: "a sector and a byte", sector: 0, bytes: 513, verdict: IOERR },
])("reads and writes of $name", ({ sector, bytes, verdict }) => {
  expect(verdictOn(DISK, { type: IN, sector, bytes })).toBe(verdict);
  expect(verdictOn(DISK, { type: OUT, sector, bytes })).toBe(verdict);
});

test("a sector that a 64-bit sum would wrap to the start of the disk is out of range", () => {
  using guest = new GuestArena({ entries: 4 });
  const header = encodeRequestHeader(IN, 0);
  header.fill(0xff, 8); // sector 2^64 - 1
  expect(judge(guest, DISK, header, { bytes: 512, address: DATA, isWritable: true })).toBe(IOERR);
});

test("data outside guest memory is an error, whatever the type", () => {
  for (const type of [IN, OUT, DISCARD, WRITE_ZEROES, GET_ID]) {
    expect(verdictOn(DISK, { type, sector: 0, bytes: 512, address: NOWHERE })).toBe(IOERR);
  }
});

test("a flush goes to the disk, with any sector", () => {
  expect(verdictOn(DISK, { type: FLUSH, sector: 2 ** 40, bytes: 0 })).toBe(TO_DISK);
});

test.each([
  { type: IN, verdict: TO_DISK },
  { type: OUT, verdict: IOERR },
  { type: FLUSH, verdict: TO_DISK },
  { type: DISCARD, verdict: UNSUPPORTED },
  { type: WRITE_ZEROES, verdict: UNSUPPORTED },
])("a read-only disk: type $type", ({ type, verdict }) => {
  const bytes = type === FLUSH ? 0 : 512;
  expect(verdictOn(READ_ONLY, { type, sector: 0, bytes })).toBe(verdict);
});

test("a disk with discards off still zeroes", () => {
  expect(verdictOn(NO_DISCARD, { type: DISCARD, sector: 0, bytes: 16 })).toBe(UNSUPPORTED);
  expect(verdictOn(NO_DISCARD, { type: WRITE_ZEROES, sector: 0, bytes: 16 })).toBe(TO_DISK);
});

test.each([2, 3, 5, 9, 10, 12, 14, 15, 16, 0xdead, 0xffff_ffff])(
  "type %d is unsupported",
  (type) => {
    expect(verdictOn(DISK, { type, sector: 0, bytes: 0 })).toBe(UNSUPPORTED);
  },
);

test.each([
  { bytes: 20, verdict: OK },
  { bytes: 100, verdict: OK },
  { bytes: 19, verdict: IOERR },
  { bytes: 0, verdict: IOERR },
])("the id into $bytes bytes", ({ bytes, verdict }) => {
  expect(verdictOn(DISK, { type: GET_ID, sector: 0, bytes })).toBe(verdict);
});

test("the id: zeros behind it, nothing behind those, and cut at 20 bytes", () => {
  for (const [id, expected] of [
    ["ubiblk-test", `ubiblk-test${"\0".repeat(9)}~`],
    ["123456789012345678901234", "12345678901234567890~"],
  ] as const) {
    using guest = new GuestArena({ entries: 4 });
    guest.write(DATA, new Uint8Array(32).fill(0x7e)); // "~"
    const header = encodeRequestHeader(GET_ID, 0);
    expect(judge(guest, DISK, header, { bytes: 32, address: DATA, isWritable: true }, id)).toBe(OK);
    const text = Array.from({ length: 21 }, (_, i) =>
      String.fromCharCode(guest.byteAt(guest.hostOf(DATA + i))),
    ).join("");
    expect(text).toBe(expected);
  }
});

test("operations: one for each type that goes to the disk", () => {
  const types = [IN, OUT, FLUSH, DISCARD, WRITE_ZEROES];
  const { read, write, flush, discard, writeZeroes } = Operation;
  expect(types.map(operationOf)).toEqual([read, write, flush, discard, writeZeroes]);
});

// --- internal ---

interface Data {
  readonly bytes: number;
  readonly address: number;
  readonly isWritable: boolean;
}

function verdictOn(
  disk: PolicyDisk,
  request: { type: number; sector: number; bytes: number; address?: number },
): number {
  using guest = new GuestArena({ entries: 4 });
  const { type, sector, bytes, address = DATA } = request;
  const isWritable = type === IN || type === GET_ID;
  return judge(guest, disk, encodeRequestHeader(type, sector), { bytes, address, isWritable });
}

/** The verdict on a chain of header, data and status. */
function judge(
  guest: GuestArena,
  disk: PolicyDisk,
  header: Uint8Array,
  data: Data,
  id = "some disk",
): number {
  guest.write(GUEST_A, header);
  const direction = data.isWritable ? WRITE : 0;
  guest.setDescriptor(0, { address: GUEST_A, length: 16, flags: NEXT, next: 1 });
  guest.setDescriptor(1, {
    address: data.address,
    length: data.bytes,
    flags: direction | NEXT,
    next: 2,
  });
  guest.setDescriptor(2, { address: GUEST_A + 0x100, length: 1, flags: WRITE });
  const chain = new BlockChain(guest.memory);
  expect(chain.read(guest.ring, 0)).toBe(true);
  return verdictOf(chain, disk, new DeviceId(id));
}
