/**
 * Disks whose sources are behind a bad network: pieces late and of any size, silence, connections that are reset in the
 * middle of a stripe. It takes longer, and every byte is right.
 *
 *     UBIBLK_NETWORK_SEED=17 bun test tests/e2e/bad-network.test.ts      plays one seed again
 */
import { expect, test } from "bun:test";
import { bucketDisk } from "../support/bucket-disk.ts";
import { FaultyProxy } from "../support/faulty-proxy.ts";
import { addFigures } from "../support/figures.ts";
import { expectSame, LazyDisk, LazyGuest, MIB } from "../support/lazy-disk.ts";
import { fillFrom, serveImage } from "../support/remote-disk.ts";
import { rounds } from "../support/requires.ts";
import { S3Server } from "../support/s3-server.ts";

const BYTES = rounds(16, 128) * MIB;
const FIRST_SEED = Number(process.env.UBIBLK_NETWORK_SEED ?? Date.now() % 2 ** 31);
const ROUNDS = rounds(1, 5);
const TRIES = 5;
const TEST_MS = rounds(240_000, 600_000);
/** What is never answered is given up soon. */
const IMPATIENT = "connect_timeout_ms = 1000\noperation_attempt_timeout_ms = 1500";

test.each(seeds())(
  "a stripe server, seed %p",
  (first) =>
    untilTroubled(first, async (seed) => {
      const disk = new LazyDisk({ diskBytes: BYTES, imageBytes: BYTES, isEncrypted: true });
      await using _ = disk;
      await using server = await serveImage(disk);
      using proxy = await FaultyProxy.start({ port: server.port, seed });
      fillFrom(disk, proxy.port, { source: `autofetch = true\n${IMPATIENT}` });
      return await fetchAll(disk, proxy);
    }),
  TEST_MS,
);

test.each(seeds())(
  "a bucket, seed %p",
  (first) =>
    untilTroubled(first, async (seed) => {
      using server = new S3Server();
      using proxy = await FaultyProxy.start({ port: server.port, seed });
      const source = `autofetch = true\nmax_attempts = 5\n${IMPATIENT}`;
      const place = { server, port: proxy.port, bytes: BYTES, stripeSectors: 2048 };
      await using disk = await bucketDisk({ ...place, source });
      return await fetchAll(disk, proxy);
    }),
  TEST_MS,
);

// --- internal ---

function seeds(): readonly number[] {
  return Array.from({ length: ROUNDS }, (_, round) => FIRST_SEED + round);
}

/** One seed of a hundred makes a good network, which proves nothing: then another one is played. */
async function untilTroubled(first: number, play: (seed: number) => Promise<number>) {
  let faults = 0;
  for (let tries = 0; faults === 0 && tries < TRIES; tries++) {
    const seed = first + tries * ROUNDS;
    console.log(`seed ${seed}`);
    faults = await play(seed);
  }
  expect(faults).toBeGreaterThan(0);
}

/** How many faults there were. */
async function fetchAll(disk: LazyDisk, proxy: FaultyProxy): Promise<number> {
  await disk.init();
  await disk.start();
  await disk.untilFetched(TEST_MS);
  const { reset, stall, silence } = proxy.faults();
  console.log(`resets ${reset}, stalls ${stall}, silent connections ${silence}`);
  addFigures("bad-network", { reset, stall, silence });
  disk.moveImage();
  using guest = new LazyGuest(disk);
  expectSame(guest.read(0, BYTES), disk.expected());
  await disk.stop();
  expectSame(await disk.plainBytes(), disk.expected());
  return reset + stall + silence;
}
