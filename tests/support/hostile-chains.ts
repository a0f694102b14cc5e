/** Chains for hostile clients, with what the device must make of each. */
import { REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import {
  at,
  DATA,
  type Descriptor,
  HEADERS,
  type HostileClient,
  INDIRECT,
  MEMORY_BYTES,
  NEXT,
  NOWHERE,
  STATUS_UNSET,
  TABLES,
  WRITE,
} from "./hostile-client.ts";

const { IN, OUT, FLUSH, GET_ID } = REQUEST_TYPE;

/** Device-writable and device-readable data in the client's memory. */
export const intoMemory = (length: number): Descriptor => ({
  address: at(DATA),
  length,
  flags: WRITE,
});
export const fromMemory = (length: number): Descriptor => ({ address: at(DATA), length, flags: 0 });
const nowhere = (length: number, flags: number): Descriptor => ({
  address: NOWHERE,
  length,
  flags,
});

export interface ChainCase {
  readonly name: string;
  readonly chain: (client: HostileClient) => readonly Descriptor[];
  readonly status: number;
  /** Bytes that the device says it wrote. */
  readonly length: number;
  /** Descriptors of a packed ring have no next. */
  readonly isSplitOnly?: boolean;
}

/** No request can be read from these. */
export const MALFORMED: readonly ChainCase[] = [
  {
    name: "a header only",
    chain: (c) => [c.header(0, IN, 1)],
    status: STATUS_UNSET,
    length: 0,
  },
  {
    name: "a status only",
    chain: (c) => [c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a writable header",
    chain: (c) => [{ ...c.header(0, IN, 1), flags: WRITE }, intoMemory(512), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a header outside guest memory",
    chain: (c) => [nowhere(16, 0), intoMemory(512), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a header that the memory's end cuts off",
    chain: (c) => [
      { address: at(MEMORY_BYTES - 8), length: 16, flags: 0 },
      intoMemory(512),
      c.statusByte(0),
    ],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a header of 8 bytes",
    chain: (c) => [{ ...c.header(0, IN, 1), length: 8 }, intoMemory(512), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a read into read-only data",
    chain: (c) => [c.header(0, IN, 1), fromMemory(512), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a read-only status",
    chain: (c) => [c.header(0, FLUSH, 0), { ...c.statusByte(0), flags: 0 }],
    status: STATUS_UNSET,
    length: 0,
  },
  {
    name: "a read-only status behind writable data",
    chain: (c) => [c.header(0, IN, 1), intoMemory(512), { ...c.statusByte(0), flags: 0 }],
    status: STATUS_UNSET,
    length: 0,
  },
  {
    name: "a status of length 0",
    chain: (c) => [c.header(0, FLUSH, 0), { ...c.statusByte(0), length: 0 }],
    status: STATUS_UNSET,
    length: 0,
  },
  {
    name: "a flush whose status is outside guest memory",
    chain: (c) => [c.header(0, FLUSH, 0), nowhere(1, WRITE)],
    status: STATUS_UNSET,
    length: 0,
  },
  {
    name: "a next index beyond the table",
    chain: (c) => [{ ...c.header(0, IN, 1), flags: NEXT, next: 256 }],
    status: STATUS_UNSET,
    length: 0,
    isSplitOnly: true,
  },
  {
    name: "a chain that goes in circles",
    chain: (c) => [c.header(0, OUT, 1), { ...fromMemory(512), flags: NEXT, next: 1 }],
    status: STATUS_UNSET,
    length: 0,
    isSplitOnly: true,
  },
  {
    name: "more than 2^32 - 1 bytes in all",
    chain: (c) => [
      c.header(0, IN, 1),
      intoMemory(0xffffffff),
      intoMemory(0xffffffff),
      c.statusByte(0),
    ],
    status: STATUS_UNSET,
    length: 0,
  },
];

/** Indirect tables that lead nowhere: no status byte, nothing written. */
export const INDIRECT_TABLES: readonly Omit<ChainCase, "status" | "length">[] = [
  { name: "of length 0", chain: () => [{ address: at(TABLES), length: 0, flags: INDIRECT }] },
  { name: "of 24 bytes", chain: () => [{ address: at(TABLES), length: 24, flags: INDIRECT }] },
  {
    name: "outside guest memory",
    chain: () => [nowhere(48, INDIRECT)],
  },
  {
    name: "with 65536 entries",
    chain: () => [{ address: at(0), length: 65536 * 16, flags: INDIRECT }],
  },
  {
    name: "inside an indirect table",
    chain: (c) => {
      c.setIndirect(TABLES, 0, { address: at(TABLES + 64), length: 48, flags: INDIRECT });
      return [{ address: at(TABLES), length: 48, flags: INDIRECT }];
    },
  },
  {
    name: "whose chain goes in circles",
    chain: (c) => {
      c.setIndirect(TABLES, 0, { ...c.header(0, OUT, 1), flags: NEXT, next: 1 });
      c.setIndirect(TABLES, 1, { ...fromMemory(512), flags: NEXT, next: 0 });
      return [{ address: at(TABLES), length: 32, flags: INDIRECT }];
    },
  },
  {
    name: "whose chain leaves the table",
    chain: (c) => {
      c.setIndirect(TABLES, 0, { ...c.header(0, OUT, 1), flags: NEXT, next: 2 });
      return [{ address: at(TABLES), length: 32, flags: INDIRECT }];
    },
  },
];

/** What only a packed ring has: an indirect descriptor that is not alone. */
export const PACKED_MALFORMED: readonly Omit<ChainCase, "status" | "length">[] = [
  {
    name: "an indirect descriptor with another behind it",
    chain: (c) => [{ address: at(TABLES), length: 48, flags: INDIRECT }, c.statusByte(0)],
  },
  {
    name: "an indirect descriptor behind another",
    chain: (c) => [c.header(0, IN, 1), { address: at(TABLES), length: 48, flags: INDIRECT }],
  },
  {
    name: "an indirect descriptor between others",
    chain: (c) => [
      c.header(0, IN, 1),
      { address: at(TABLES), length: 48, flags: INDIRECT },
      c.statusByte(0),
    ],
  },
];

/** Requests that are well-formed enough for an answer. */
export const ANSWERED: readonly ChainCase[] = [
  {
    name: "a read into memory that is not there",
    chain: (c) => [c.header(0, IN, 1), nowhere(512, WRITE), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a write from memory that is not there",
    chain: (c) => [c.header(0, OUT, 1), nowhere(512, 0), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a read beyond the memory's end",
    chain: (c) => [
      c.header(0, IN, 1),
      { address: at(MEMORY_BYTES - 256), length: 512, flags: WRITE },
      c.statusByte(0),
    ],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a read at an address that wraps around",
    chain: (c) => [
      c.header(0, IN, 1),
      { address: 2 ** 64 - 2048, length: 4096, flags: WRITE },
      c.statusByte(0),
    ],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a read of one byte",
    chain: (c) => [c.header(0, IN, 1), intoMemory(1), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a write of one byte",
    chain: (c) => [c.header(0, OUT, 1), fromMemory(1), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "type 2",
    chain: (c) => [c.header(0, 2, 0), c.statusByte(0)],
    status: STATUS.UNSUPPORTED,
    length: 1,
  },
  {
    name: "type 0xdead with data",
    chain: (c) => [c.header(0, 0xdead, 0), fromMemory(512), c.statusByte(0)],
    status: STATUS.UNSUPPORTED,
    length: 1,
  },
  {
    name: "a flush with sector 7",
    chain: (c) => [c.header(0, FLUSH, 7), c.statusByte(0)],
    status: STATUS.OK,
    length: 1,
  },
  {
    name: "a flush with data",
    chain: (c) => [c.header(0, FLUSH, 0), fromMemory(512), c.statusByte(0)],
    status: STATUS.OK,
    length: 1,
  },
  {
    name: "GET_ID into 20 bytes",
    chain: (c) => [c.header(0, GET_ID, 0), intoMemory(20), c.statusByte(0)],
    status: STATUS.OK,
    length: 21,
  },
  {
    name: "GET_ID into 4 bytes",
    chain: (c) => [c.header(0, GET_ID, 0), intoMemory(4), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "GET_ID without data",
    chain: (c) => [c.header(0, GET_ID, 0), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "GET_ID into memory that is not there",
    chain: (c) => [c.header(0, GET_ID, 0), nowhere(20, WRITE), c.statusByte(0)],
    status: STATUS.IOERR,
    length: 1,
  },
  {
    name: "a read",
    chain: (c) => [c.header(0, IN, 1), intoMemory(512), c.statusByte(0)],
    status: STATUS.OK,
    length: 513,
  },
  {
    name: "a write in pieces of 0x100 and 0x300 bytes",
    chain: (c) => [c.header(0, OUT, 1), fromMemory(0x100), fromMemory(0x300), c.statusByte(0)],
    status: STATUS.OK,
    length: 1,
  },
  {
    name: "a header in two pieces",
    chain: (c) => [
      { ...c.header(0, IN, 1), length: 4 },
      { address: at(HEADERS + 4), length: 12, flags: 0 },
      intoMemory(512),
      c.statusByte(0),
    ],
    status: STATUS.OK,
    length: 513,
  },
];
