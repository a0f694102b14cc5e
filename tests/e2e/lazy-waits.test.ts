/** Requests that wait for their stripes: they cost no CPU, and nothing that does not need those stripes waits with them. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync, truncateSync } from "node:fs";
import { FEATURE, REQUEST_TYPE } from "../../src/formats/virtio-blk.ts";
import type { Backend } from "../support/backend.ts";
import {
  at,
  DATA,
  HostileClient,
  INDIRECT,
  STATUS_UNSET,
  TABLES,
  WRITE,
} from "../support/hostile-client.ts";
import { LazyDisk, MIB } from "../support/lazy-disk.ts";

const SECTORS_PER_MIB = MIB / 512;
/** More than `queue_size`, fewer than a disk with lazy stripes has slots. */
const WAITING = 150;
const READY = WAITING;
/** What they read of. */
const STRIPES = 6;
const IO_ERROR = 1;
/** The kernel counts CPU time in steps of 10 ms. */
const TICKS_MAX = 3;

test.each(["io_uring", "sync"])(
  "%s: 150 reads wait for a source that fails, at no CPU; a read of what is there is answered at once",
  async (ioEngine) => {
    await using disk = new LazyDisk({
      diskBytes: 40 * MIB,
      imageBytes: 32 * MIB,
      isEncrypted: true,
      sections: `[tuning]\nio_engine = "${ioEngine}"\nqueue_size = 64`,
    });
    await disk.init();
    const backend = await disk.start();
    truncateSync(disk.files.file("image.raw"), MIB);
    using client = HostileClient.attach(disk.socketPath, {
      features: [FEATURE.RING_INDIRECT_DESC],
    });
    const waiting = Array.from({ length: WAITING }, (_, head) => head);
    let used = Number.NaN;
    // A fetch is given up after 700 ms: where the machine was too busy to look before that, other stripes are read.
    for (let first = 2; Number.isNaN(used) && first + STRIPES <= 32; first += STRIPES) {
      for (const head of waiting) {
        setRead(client, head, (first + (head % STRIPES)) * SECTORS_PER_MIB + head);
      }
      setRead(client, READY, 35 * SECTORS_PER_MIB);
      client.offer(...waiting, READY);
      client.kick();
      await ended(client, [READY]);
      const ticks = queueTicks(backend);
      await Bun.sleep(250);
      const usedSoFar = queueTicks(backend) - ticks;
      if (waiting.every((head) => client.status(head) === STATUS_UNSET)) {
        used = usedSoFar;
      }
      await ended(client, waiting);
      expect(client.status(READY)).toBe(0);
      expect(waiting.every((head) => client.status(head) === IO_ERROR)).toBe(true);
    }
    expect(used).toBeLessThanOrEqual(TICKS_MAX);
  },
);

// --- internal ---

function setRead(client: HostileClient, head: number, sector: number): void {
  const table = TABLES + head * 48;
  client.setIndirect(table, 0, {
    ...client.header(head, REQUEST_TYPE.IN, sector),
    flags: 1,
    next: 1,
  });
  client.setIndirect(table, 1, { address: at(DATA), length: 512, flags: WRITE | 1, next: 2 });
  client.setIndirect(table, 2, client.statusByte(head));
  client.setDescriptor(head, { address: at(table), length: 48, flags: INDIRECT });
}

async function ended(client: HostileClient, heads: readonly number[]): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (heads.some((head) => client.status(head) === STATUS_UNSET)) {
    expect(performance.now()).toBeLessThan(deadline);
    await Bun.sleep(5);
  }
}

/** CPU time of the queue's thread, in the kernel's ticks. */
function queueTicks({ pid }: Backend): number {
  const threads = readdirSync(`/proc/${pid}/task`).map((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8"),
  );
  const queue = threads.find((stat) => stat.includes("(vhost-queue-0)")) ?? "";
  const fields = queue.slice(queue.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
