/** The descriptor of SET_VRING_ERR: it tells of each end of a ring for good, once, and of nothing else. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, ftruncateSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { encodeMemoryTable, encodeU64, REQUEST } from "../../src/formats/vhost-user.ts";
import { FEATURE, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { AVAILABLE, type HostileClient, MEMORY_BYTES } from "../support/hostile-client.ts";
import { type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";
import { until } from "../support/until.ts";

const NONE = 0x100;

describe("error descriptor", () => {
  let disk: HostileDisk;

  beforeAll(async () => {
    disk = await serveHostileDisk({ isEncrypted: false });
  });

  afterAll(async () => {
    expect(await disk.close()).toBe(0);
  });

  test("an index that jumps: told once, however often the guest kicks", async () => {
    using client = disk.attach();
    jump(client);
    await until("the ring is broken", () => client.isRingBroken());
    for (let i = 0; i < 20; i++) {
      client.kick();
    }
    client.stopRing();
    expect(signals(client)).toBe(1);
  });

  test("a ring that is set up anew and breaks again is told of again", async () => {
    using client = disk.attach();
    for (let round = 1; round <= 3; round++) {
      jump(client);
      expect(client.isRingBroken()).toBe(true);
      client.stopRing();
      expect(signals(client)).toBe(1);
      client.restartRing();
      expect(client.isServed()).toBe(true);
    }
  });

  test("memory that is cut off", () => {
    using client = disk.connect();
    const fd = openSync(join(disk.files.configPath, "..", "memory"), "w+");
    ftruncateSync(fd, MEMORY_BYTES);
    client.negotiate([]);
    client.command(REQUEST.SET_MEM_TABLE, encodeMemoryTable([client.region]), [fd]);
    client.startRing(0);
    ftruncateSync(fd, 0);
    client.kick();
    expect(client.isRingBroken()).toBe(true);
    client.stopRing();
    expect(signals(client)).toBe(1);
    closeSync(fd);
  });

  test("a packed ring whose chain has no end", () => {
    using client = disk.attach([FEATURE.RING_PACKED]);
    client.stopRing();
    expect(signals(client)).toBe(0);
    client.restartRing();
    for (let place = 0; place < 256; place++) {
      client.memory.setUint16(place * 16 + 14, 0x0081, true); // available, and the chain goes on
    }
    client.kick();
    expect(client.isRingBroken()).toBe(true);
    client.stopRing();
    expect(signals(client)).toBe(1);
  });

  test("a descriptor that comes behind the break is told at once; one that was taken away is not", () => {
    using client = disk.attach();
    client.command(REQUEST.SET_VRING_ERR, encodeU64(BigInt(NONE)));
    jump(client);
    client.setChain(0, [client.header(0, REQUEST_TYPE.FLUSH, 0), client.statusByte(0)]);
    Bun.sleepSync(50);
    expect(signals(client)).toBe(0);
    client.command(REQUEST.SET_VRING_ERR, encodeU64(0n), [client.errorFd]);
    expect(client.isRingBroken()).toBe(true);
    expect(signals(client)).toBe(1);
  });

  test("requests that fail, a ring that stops, and a front end that leaves are no errors of the ring", () => {
    using client = disk.attach();
    client.submit([client.header(0, REQUEST_TYPE.IN, 2 ** 40), client.statusByte(0)]);
    client.submit([client.header(0, 77, 0), client.statusByte(0)]);
    client.stopRing();
    client.restartRing();
    expect(client.isServed()).toBe(true);
    expect(signals(client)).toBe(0);
  });
});

// --- internal ---

/** The guest says that there are more chains than the ring has places. */
function jump(client: HostileClient): void {
  const index = client.memory.getUint16(AVAILABLE + 2, true);
  client.memory.setUint16(AVAILABLE + 2, index + 1000, true);
  client.kick();
}

/** How often it was signalled since the last look. */
function signals(client: HostileClient): number {
  const counter = Buffer.alloc(8);
  try {
    readSync(client.errorFd, counter);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EAGAIN") {
      return 0;
    }
    throw error;
  }
  return Number(counter.readBigUInt64LE());
}
