/**
 * Every malformed message, against the running executable: it costs the client that sent it its answer
 * or its connection, and the next client is served.
 */
import { dlopen } from "bun:ffi";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, openSync, readdirSync, readlinkSync, writeSync } from "node:fs";
import { createEvent } from "../../src/ffi/event.ts";
import { closeDescriptor } from "../../src/ffi/socket.ts";
import {
  bitMask,
  decodeConfigPart,
  encodeConfigPart,
  encodeMemoryRegion,
  encodeMemoryTable,
  encodeMessage,
  encodeU64,
  encodeVringAddress,
  encodeVringState,
  HEADER_BYTES,
  PROTOCOL_FEATURE,
  REQUEST,
  VRING_NO_DESCRIPTOR,
} from "../../src/formats/vhost-user.ts";
import { CONFIG_BYTES, FEATURE, REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import { ENTRIES, type HostileClient, MEMORY_BYTES } from "../support/hostile-client.ts";
import { DISK_SECTORS, type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";
import { until } from "../support/until.ts";

/** What a backend does about a message that it cannot accept. */
const REFUSALS = ["refused", "closed"];
const ring = (value: number, index = 0) => encodeVringState({ index, value });
const devNull = openSync("/dev/null", "r+");
const zeros = (length: number) => new Uint8Array(length);

/** How many of each kind a backend holds. */
type Descriptors = Readonly<Record<string, number>>;

/** What clients bring: connections, events, memory and the null device. The runtime opens others when it likes. */
const BROUGHT = /^(socket:|anon_inode:\[eventfd\]|\/memfd:|\/dev\/null$)/;

interface MessageCase {
  readonly name: string;
  readonly outcome: (client: HostileClient) => string;
}

/** Sent on a connection whose ring 0 runs. */
const REFUSED: readonly MessageCase[] = [
  {
    name: "a feature that was not offered",
    outcome: (c) => c.outcome(REQUEST.SET_FEATURES, encodeU64(bitMask(FEATURE.ORDER_PLATFORM))),
  },
  {
    name: "feature bit 63",
    outcome: (c) => c.outcome(REQUEST.SET_FEATURES, encodeU64(bitMask(63))),
  },
  { name: "features of 4 bytes", outcome: (c) => c.outcome(REQUEST.SET_FEATURES, zeros(4)) },
  {
    name: "a protocol feature that was not offered",
    outcome: (c) =>
      c.outcome(
        REQUEST.SET_PROTOCOL_FEATURES,
        encodeU64(bitMask(PROTOCOL_FEATURE.REPLY_ACK, PROTOCOL_FEATURE.XEN_MMAP)),
      ),
  },
  { name: "a ring of no entries", outcome: (c) => c.outcome(REQUEST.SET_VRING_NUM, ring(0)) },
  { name: "a ring of 3 entries", outcome: (c) => c.outcome(REQUEST.SET_VRING_NUM, ring(3)) },
  {
    name: "a ring of 65536 entries",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_NUM, ring(65536)),
  },
  {
    name: "a size for ring 999",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_NUM, ring(256, 999)),
  },
  {
    name: "a base for ring 1, which does not exist",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_BASE, ring(0, 1)),
  },
  {
    name: "an enable for ring 2^32 - 1",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_ENABLE, ring(1, 2 ** 32 - 1)),
  },
  {
    name: "ring addresses that are in no region",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_ADDR, addresses(c, 2 ** 40)),
  },
  {
    name: "a ring that leaves its region",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_ADDR, addresses(c, MEMORY_BYTES - 64)),
  },
  {
    name: "a descriptor table that is not aligned",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_ADDR, addresses(c, 8)),
  },
  {
    name: "a kick descriptor that is no eventfd",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_KICK, encodeU64(0n), [devNull]),
  },
  {
    name: "a kick without its descriptor",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_KICK, encodeU64(0n)),
  },
  {
    name: "a kick with two descriptors",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_KICK, encodeU64(0n), [c.kickFd, c.kickFd]),
  },
  {
    name: "a call for ring 200",
    outcome: (c) => c.outcome(REQUEST.SET_VRING_CALL, encodeU64(200n), [c.callFd]),
  },
  {
    name: "a memory table without descriptors",
    outcome: (c) => c.outcome(REQUEST.SET_MEM_TABLE, encodeMemoryTable([c.region])),
  },
  {
    name: "a memory table with more regions than bytes",
    outcome: (c) => {
      const table = encodeMemoryTable([c.region]);
      table[0] = 2;
      return c.outcome(REQUEST.SET_MEM_TABLE, table, [c.memoryFd, c.memoryFd]);
    },
  },
  {
    name: "33 memory regions",
    outcome: (c) => {
      const regions = Array.from({ length: 33 }, () => c.region);
      return c.outcome(REQUEST.SET_MEM_TABLE, encodeMemoryTable(regions), [c.memoryFd]);
    },
  },
  { name: "a region of no bytes", outcome: (c) => region(c, { sizeBytes: 0 }) },
  {
    name: "a region that ends beyond 2^53",
    outcome: (c) => region(c, { guestAddress: Number.MAX_SAFE_INTEGER - 4095 }),
  },
  {
    name: "a region far larger than its file",
    outcome: (c) => region(c, { sizeBytes: 2 ** 50 }),
  },
  {
    name: "a region whose file ends before it",
    outcome: (c) => region(c, { mmapOffset: 2 ** 45 }),
  },
  {
    name: "a region of /dev/null",
    outcome: (c) => c.outcome(REQUEST.SET_MEM_TABLE, encodeMemoryTable([c.region]), [devNull]),
  },
  {
    name: "a region of an eventfd",
    outcome: (c) => c.outcome(REQUEST.SET_MEM_TABLE, encodeMemoryTable([c.region]), [c.kickFd]),
  },
  {
    name: "regions that overlap",
    outcome: (c) => {
      const table = encodeMemoryTable([c.region, c.region]);
      return c.outcome(REQUEST.SET_MEM_TABLE, table, [c.memoryFd, c.memoryFd]);
    },
  },
  {
    name: "a region that is added without its descriptor",
    outcome: (c) => c.outcome(REQUEST.ADD_MEM_REG, encodeMemoryRegion(c.region)),
  },
  {
    name: "the removal of a region that is not there",
    outcome: (c) =>
      c.outcome(REQUEST.REM_MEM_REG, encodeMemoryRegion({ ...c.region, guestAddress: 4096 })),
  },
  { name: "a second owner", outcome: (c) => c.outcome(REQUEST.SET_OWNER) },
  { name: "an unknown request", outcome: (c) => c.outcome(99, zeros(8)) },
  { name: "request 0", outcome: (c) => c.outcome(0) },
  {
    name: "a log that was not negotiated",
    outcome: (c) => c.outcome(REQUEST.SET_LOG_BASE, zeros(16), [c.memoryFd]),
  },
  {
    name: "a postcopy that was not negotiated",
    outcome: (c) => c.outcome(REQUEST.POSTCOPY_LISTEN),
  },
  {
    name: "in-flight memory that was not negotiated",
    outcome: (c) => c.outcome(REQUEST.SET_INFLIGHT_FD, zeros(24), [c.memoryFd]),
  },
  {
    name: "a config write of no bytes",
    outcome: (c) => c.outcome(REQUEST.SET_CONFIG, zeros(12)),
  },
  {
    name: "a config write beyond the space",
    outcome: (c) =>
      c.outcome(REQUEST.SET_CONFIG, encodeConfigPart({ offset: 0xfff, flags: 0, bytes: zeros(2) })),
  },
];

/** Bytes that are no message: the connection cannot be made sense of any more. */
const NO_MESSAGES: readonly { readonly name: string; readonly bytes: Uint8Array }[] = [
  { name: "version 2 of the protocol", bytes: words(REQUEST.GET_FEATURES, 2, 0) },
  { name: "a payload of 5000 bytes", bytes: words(REQUEST.SET_MEM_TABLE, 1, 5000) },
  { name: "a payload of 4 GiB", bytes: words(REQUEST.SET_MEM_TABLE, 1, 0xffffffff) },
  { name: "ones", bytes: zeros(64).fill(0xff) },
];

describe("hostile messages", () => {
  let disk: HostileDisk;
  let descriptorsAtRest: Descriptors = {};

  beforeAll(async () => {
    disk = await serveHostileDisk({ isEncrypted: false });
    expect(disk.isServing()).toBe(true);
    // The socket of a client is closed after all else that it brought: then only the listening one is left.
    const held = () => descriptorsOf(disk.backend.pid);
    await until("one socket is left", () => held()["socket:"] === 1);
    descriptorsAtRest = held();
  });

  afterAll(async () => {
    expect(await disk.close()).toBe(0);
  });

  test.each([...REFUSED])("$name: refused, and the next client is served", ({ outcome }) => {
    {
      using client = disk.attach();
      expect(outcome(client)).toBeOneOf(REFUSALS);
    }
    expect(disk.isServing()).toBe(true);
  });

  test.each([...NO_MESSAGES])("$name: the connection ends", ({ bytes }) => {
    {
      using client = disk.connect();
      client.sendBytes(bytes);
      expect(client.isClosed()).toBe(true);
    }
    expect(disk.isServing()).toBe(true);
  });

  test("ring addresses before any memory table are refused", () => {
    {
      using client = disk.connect();
      client.negotiate([]);
      client.command(REQUEST.SET_VRING_NUM, ring(ENTRIES));
      expect(client.outcome(REQUEST.SET_VRING_ADDR, client.ringAddress(0))).toBeOneOf(REFUSALS);
    }
    expect(disk.isServing()).toBe(true);
  });

  test.each([
    { name: "nothing at all", length: 0 },
    { name: "half a header", length: 6 },
    { name: "a header without its payload", length: HEADER_BYTES },
    { name: "half a payload", length: HEADER_BYTES + 20 },
  ])("a client that goes after $name is no harm", ({ length }) => {
    {
      using client = disk.connect();
      const message = encodeMessage(REQUEST.SET_MEM_TABLE, 0, encodeMemoryTable([client.region]));
      client.sendBytes(message.subarray(0, length), length > 0 ? [client.memoryFd] : []);
    }
    expect(disk.isServing()).toBe(true);
  });

  test("a message in single bytes is one message", () => {
    using client = disk.connect();
    for (const byte of encodeMessage(REQUEST.GET_FEATURES, 0, zeros(0))) {
      client.sendBytes(Uint8Array.of(byte));
    }
    expect(client.reply()?.length).toBe(8);
  });

  test("64 descriptors on a message that takes none are closed", async () => {
    {
      using client = disk.connect();
      const many = Array.from({ length: 60 }, () => client.memoryFd);
      client.send(REQUEST.GET_FEATURES, zeros(0), many);
      client.send(REQUEST.GET_FEATURES, zeros(0), many);
    }
    expect(disk.isServing()).toBe(true);
    await expectAtRest();
  });

  test("what QEMU sends for rings that were never set up is accepted", () => {
    using client = disk.connect();
    client.negotiate([]);
    client.command(REQUEST.SET_VRING_ENABLE, ring(1));
    client.command(REQUEST.SET_VRING_CALL, encodeU64(0n), [client.callFd]);
    client.command(REQUEST.SET_VRING_ERR, encodeU64(0n), [client.errorFd]);
    client.command(REQUEST.SET_VRING_CALL, encodeU64(BigInt(VRING_NO_DESCRIPTOR)));
    expect(client.stopRing()).toBe(0);
  });

  test("a call descriptor whose counter is full does not stop the queue", async () => {
    using client = disk.attach();
    const full = createEvent();
    writeSync(full, encodeU64(2n ** 64n - 2n)); // the most that an eventfd holds
    client.command(REQUEST.SET_VRING_CALL, encodeU64(0n), [full]);
    const chain = [client.header(0, REQUEST_TYPE.FLUSH, 0), client.statusByte(0)];
    client.setChain(0, chain);
    client.offer(0);
    client.kick();
    await until("the request is used", () => client.usedIndex() === 1); // a ring that stops before its kick is seen has taken nothing
    client.command(REQUEST.SET_VRING_CALL, encodeU64(0n), [client.callFd]);
    expect(client.stopRing()).toBe(1);
    expect(client.status(0)).toBe(STATUS.OK);
    closeDescriptor(full);
  });

  test("a call descriptor made to block, and full, holds up its own front end only", async () => {
    {
      using client = disk.attach();
      makeBlocking(client.callFd); // after it was looked at
      writeSync(client.callFd, encodeU64(2n ** 64n - 2n));
      client.setChain(0, [client.header(0, REQUEST_TYPE.FLUSH, 0), client.statusByte(0)]);
      client.offer(0);
      client.kick();
      await until("the request is used", () => client.usedIndex() === 1);
    }
    expect(disk.isServing()).toBe(true);
  });

  test.each([
    { offset: 0, length: CONFIG_BYTES },
    { offset: 0, length: 57 },
    { offset: 0x100, length: CONFIG_BYTES },
    { offset: 0x100, length: 16 },
  ])("the configuration at offset $offset, $length bytes, begins with the capacity", (part) => {
    using client = disk.attach();
    const { bytes } = readConfig(client, part.offset, part.length);
    expect(bytes.length).toBe(part.length);
    expect(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)).toBe(DISK_SECTORS);
  });

  test("the configuration at offsets 8 and 0x108 goes on where offset 0 left off", () => {
    using client = disk.attach();
    const whole = readConfig(client, 0, CONFIG_BYTES).bytes;
    expect(readConfig(client, 8, 16).bytes).toEqual(whole.slice(8, 24));
    expect(readConfig(client, 0x108, 16).bytes).toEqual(whole.slice(8, 24));
    expect(readConfig(client, 0, 76).bytes.slice(60)).toEqual(zeros(16));
  });

  test("the write cache byte is read back as it was written", () => {
    using client = disk.attach([FEATURE.BLK_CONFIG_WCE]);
    for (const value of [0, 1, 0]) {
      const part = { offset: 32, flags: 0, bytes: Uint8Array.of(value) };
      client.command(REQUEST.SET_CONFIG, encodeConfigPart(part));
      expect(readConfig(client, 32, 1).bytes).toEqual(Uint8Array.of(value));
      expect(client.isServed()).toBe(true);
    }
  });

  test("after all of it no descriptor is left open", async () => {
    expect(disk.isServing()).toBe(true);
    await expectAtRest();
    expect(disk.backend.isRunning()).toBe(true);
    closeSync(devNull);
  });

  async function expectAtRest(): Promise<void> {
    const held = () => descriptorsOf(disk.backend.pid);
    const isAtRest = () => Bun.deepEquals(held(), descriptorsAtRest);
    await until("all descriptors are closed", isAtRest).catch(() => {}); // what is left is shown next
    expect(held()).toEqual(descriptorsAtRest);
  }
});

function descriptorsOf(pid: number): Descriptors {
  const held: Record<string, number> = {};
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    const kind = BROUGHT.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1];
    if (kind !== undefined) {
      held[kind] = (held[kind] ?? 0) + 1;
    }
  }
  return held;
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // closed meanwhile
  }
}

/** Clears O_NONBLOCK: the flags of a description are everybody's who holds it. */
function makeBlocking(fd: number): void {
  const F_SETFL = 4;
  const fcntl = { args: ["i32", "i32", "i32"], returns: "i32" } as const;
  expect(dlopen("libc.so.6", { fcntl }).symbols.fcntl(fd, F_SETFL, 0)).toBe(0);
}

function words(...values: readonly number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

/** Ring addresses with the descriptor table `offset` bytes into the memory. */
function addresses(client: HostileClient, offset: number): Uint8Array {
  const descriptors = client.user(offset);
  const [used, available] = [client.user(0x2000), client.user(0x1000)];
  return encodeVringAddress({ index: 0, flags: 0, descriptors, used, available, log: 0 });
}

function region(client: HostileClient, change: Partial<HostileClient["region"]>): string {
  const table = encodeMemoryTable([{ ...client.region, ...change }]);
  return client.outcome(REQUEST.SET_MEM_TABLE, table, [client.memoryFd]);
}

function readConfig(client: HostileClient, offset: number, length: number) {
  const part = encodeConfigPart({ offset, flags: 0, bytes: zeros(length) });
  return decodeConfigPart(client.ask(REQUEST.GET_CONFIG, part));
}
