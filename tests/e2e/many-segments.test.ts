/** Chains as long as they can be, over two regions that touch each other: answered, and nothing breaks. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { encodeMemoryTable, REQUEST } from "../../src/formats/vhost-user.ts";
import { FEATURE, REQUEST_TYPE, STATUS } from "../../src/formats/virtio-blk.ts";
import {
  at,
  type Descriptor,
  type HostileClient,
  INDIRECT,
  MEMORY_BYTES,
  WRITE,
} from "../support/hostile-client.ts";
import { type HostileDisk, serveHostileDisk } from "../support/hostile-disk.ts";

/** Where the second region begins; the table of descriptors fills it. */
const SEAM = MEMORY_BYTES / 2;
const TABLE_ENTRIES = 32_768;

let disk: HostileDisk;

beforeAll(async () => {
  disk = await serveHostileDisk({ isEncrypted: true });
});

afterAll(async () => {
  expect(disk.isServing()).toBe(true);
  expect(await disk.close()).toBe(0);
});

test.each([0, 1, 2, 31, 61, 62, 63, 64, 65, 1000, 30_000])(
  "a table of 32768 descriptors, %d of which cross the seam",
  (crossings) => {
    using client = attach();
    const header = client.header(0, REQUEST_TYPE.IN, 0);
    client.setIndirect(SEAM, 0, { ...header, flags: 1, next: 1 });
    for (let i = 1; i < TABLE_ENTRIES - 1; i++) {
      const place: Descriptor =
        i <= crossings
          ? { address: at(SEAM - 1), length: 2, flags: WRITE | 1 }
          : { address: at(SEAM - 4096), length: 1, flags: WRITE | 1 };
      client.setIndirect(SEAM, i, { ...place, next: i + 1 });
    }
    client.setIndirect(SEAM, TABLE_ENTRIES - 1, client.statusByte(0));
    client.submit([{ address: at(SEAM), length: TABLE_ENTRIES * 16, flags: INDIRECT }]);
    // None of them is whole sectors, or one that can be taken in at all.
    expect(client.status(0)).toBeOneOf([STATUS.IOERR, 0xee]);
  },
);

test("whole sectors in the longest chain that there is: read, byte by byte", () => {
  using client = attach();
  const header = client.header(0, REQUEST_TYPE.IN, 0);
  const sectors = 63;
  const bytes = sectors * 512;
  client.setIndirect(SEAM, 0, { ...header, flags: 1, next: 1 });
  for (let i = 0; i < bytes; i++) {
    const address = at(SEAM - bytes + i);
    client.setIndirect(SEAM, i + 1, { address, length: 1, flags: WRITE | 1, next: i + 2 });
  }
  client.setIndirect(SEAM, bytes + 1, client.statusByte(0));
  const used = client.submit([{ address: at(SEAM), length: (bytes + 2) * 16, flags: INDIRECT }]);
  expect(client.status(0)).toBe(STATUS.OK);
  expect(used.length).toBe(bytes + 1);
});

// --- internal ---

/** A client whose memory is told as two regions. */
function attach(): HostileClient {
  const client = disk.connect();
  client.negotiate([FEATURE.RING_INDIRECT_DESC]);
  const { userAddress } = client.region;
  const regions = [0, SEAM].map((offset) => ({
    guestAddress: at(offset),
    sizeBytes: SEAM,
    userAddress: userAddress + offset,
    mmapOffset: offset,
  }));
  const descriptors = [client.memoryFd, client.memoryFd];
  client.command(REQUEST.SET_MEM_TABLE, encodeMemoryTable(regions), descriptors);
  client.startRing(0);
  return client;
}
