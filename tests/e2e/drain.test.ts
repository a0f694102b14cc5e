/** Rings that stop with requests under way: all that was taken is ended before the answer, none twice. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand } from "../../scripts/command.ts";
import { encodeU64, encodeVringState, REQUEST } from "../../src/formats/vhost-user.ts";
import { FEATURE, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import { type DiskFiles, EXECUTABLE, startUbiblk, writeDiskConfig } from "../support/backend.ts";
import {
  at,
  DATA,
  HostileClient,
  INDIRECT,
  STATUS_UNSET,
  TABLES,
  USED,
  WRITE,
} from "../support/hostile-client.ts";
import { SeededRandom } from "../support/random.ts";
import { rounds } from "../support/requires.ts";

const DISK_BYTES = 64 * 2 ** 20;
const LIMIT_MS = 60_000;
/** Requests at once: as many as there are places for tables, of three descriptors each. */
const REQUESTS = 200;
const DATA_BYTES = 0x1_0000;

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ubiblk-drain-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

describe.each([
  { engine: "io_uring", features: [] },
  { engine: "io_uring", features: [FEATURE.RING_EVENT_IDX] },
  { engine: "sync", features: [] },
  { engine: "sync", features: [FEATURE.RING_EVENT_IDX] },
])("$engine, features $features", ({ engine, features }) => {
  test("GET_VRING_BASE answers when all that it counts is done, and the rest is done after a new start", async () => {
    const disk = makeDisk(engine);
    await using _backend = await startUbiblk(disk);
    const random = new SeededRandom(1);
    for (let round = 0; round < rounds(8, 200); round++) {
      using client = attach(disk, features);
      offerReads(client, random);
      let base = client.stopRing();
      expect(base).toBe(client.usedIndex());
      expect(endedCount(client)).toBe(base);
      client.command(REQUEST.SET_VRING_KICK, encodeU64(0n), [client.kickFd]);
      client.kick();
      while (client.usedIndex() < REQUESTS) {
        await Bun.sleep(1);
      }
      base = client.stopRing();
      expect(base).toBe(REQUESTS);
      expect(usedHeads(client)).toEqual(Array.from({ length: REQUESTS }, (_, i) => i));
    }
  });

  test("a ring disabled under load ends what it took", async () => {
    const disk = makeDisk(engine);
    await using _backend = await startUbiblk(disk);
    using client = attach(disk, features);
    offerReads(client, new SeededRandom(2));
    client.command(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 0 }));
    const used = client.usedIndex();
    expect(endedCount(client)).toBe(used);
    await Bun.sleep(50);
    expect(client.usedIndex()).toBe(used);
    client.command(REQUEST.SET_VRING_ENABLE, encodeVringState({ index: 0, value: 1 }));
    while (client.usedIndex() < REQUESTS) {
      await Bun.sleep(1);
    }
    expect(endedCount(client)).toBe(REQUESTS);
  });
});

test.each(["io_uring", "sync"])(
  "%s: flushes of four queues at once, each write followed by one, all come back",
  async (engine) => {
    const disk = makeDisk(engine, 4);
    await using backend = await startUbiblk(disk);
    const words = ["--workload=randwrite", "--queues=4", "--time=2", "--queue-depth=4"];
    const flags = [...words, "--flush-every=1", "--timeout=10", "--json"];
    const command = [EXECUTABLE, "bench", `--socket=${disk.socketPath}`, ...flags];
    const result = await runCommand(command, { timeoutMs: LIMIT_MS });
    expect(result).toMatchObject({ exitCode: 0 });
    expect(await backend.stop()).toBe(0);
  },
  LIMIT_MS,
);

// --- internal ---

function makeDisk(engine: string, numQueues = 1): DiskFiles {
  const place = mkdtempSync(join(folder, "disk-"));
  const moreConfig = `[tuning]\nio_engine = "${engine}"\nnum_queues = ${numQueues}\n`;
  const disk = writeDiskConfig({ folder: place, isEncrypted: true, moreConfig });
  writeFileSync(disk.dataPath, "", { mode: 0o600 });
  truncateSync(disk.dataPath, DISK_BYTES);
  return disk;
}

function attach(disk: DiskFiles, features: readonly number[]): HostileClient {
  return HostileClient.attach(disk.socketPath, {
    features: [FEATURE.RING_INDIRECT_DESC, ...features],
  });
}

/** All reads at once: request `i` at head `i`, in the table at its place. */
function offerReads(client: HostileClient, random: SeededRandom): void {
  const heads = Array.from({ length: REQUESTS }, (_, i) => i);
  for (const head of heads) {
    const table = TABLES + head * 48;
    const sector = random.below(DISK_BYTES / 512 - 128);
    const header = client.header(head, REQUEST_TYPE.IN, sector);
    client.setIndirect(table, 0, { ...header, flags: 1, next: 1 });
    client.setIndirect(table, 1, {
      address: at(DATA),
      length: DATA_BYTES,
      flags: WRITE | 1,
      next: 2,
    });
    client.setIndirect(table, 2, client.statusByte(head));
    client.setDescriptor(head, { address: at(table), length: 48, flags: INDIRECT });
  }
  client.offer(...heads);
  client.kick();
}

/** Requests whose status was written, all of them well. */
function endedCount(client: HostileClient): number {
  const statuses = Array.from({ length: REQUESTS }, (_, head) => client.status(head));
  expect(statuses.every((status) => status === 0 || status === STATUS_UNSET)).toBe(true);
  return statuses.filter((status) => status === 0).length;
}

/** The heads in the used ring, in the order of their numbers. */
function usedHeads(client: HostileClient): readonly number[] {
  const heads = Array.from({ length: REQUESTS }, (_, i) =>
    client.memory.getUint32(USED + 4 + i * 8, true),
  );
  return heads.toSorted((a, b) => a - b);
}
