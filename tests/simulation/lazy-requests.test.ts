/**
 * Random requests of all kinds on a disk with lazy stripes: a queue with its gate, its image and its executor, and
 * the stripe service, over fake engines that finish in any order and with faults, against an array of bytes. The
 * disk holds the host's old bytes at first, which nobody may ever read. A failure prints its seed; `fc.assert`'s
 * `seed` and `path` replay it.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { DiskModel } from "../support/disk-model.ts";
import { Operation, SECTOR } from "../support/executor-world.ts";
import { LazyQueue, STRIPE_SECTORS } from "../support/lazy-queue.ts";
import { SeededRandom } from "../support/random.ts";
import { isConflict, RandomRequests } from "../support/random-requests.ts";
import { rounds } from "../support/requires.ts";

const STRIPES = 48;
const SECTORS = STRIPES * STRIPE_SECTORS - 24;
const STEPS = 200;
const LIMIT_MS = rounds(60_000, 1_200_000);

test.each([
  { name: "plain", isEnciphered: false, blockBytes: 512 },
  { name: "enciphered", isEnciphered: true, blockBytes: 512 },
  { name: "plain, blocks of 4096 bytes", isEnciphered: false, blockBytes: 4096 },
  { name: "enciphered, blocks of 4096 bytes", isEnciphered: true, blockBytes: 4096 },
])(
  "random requests on lazy stripes, $name",
  ({ isEnciphered, blockBytes }) => {
    fc.assert(
      fc.property(fc.noShrink(fc.integer()), (seed) => {
        play(seed, isEnciphered, blockBytes);
      }),
      { numRuns: rounds(15, 1500), includeErrorInReport: true },
    );
  },
  LIMIT_MS,
);

// --- internal ---

function play(seed: number, isEnciphered: boolean, blockBytes: number): void {
  const random = new SeededRandom(seed);
  const isFaulty = random.oneIn(2);
  const model = new DiskModel(SECTORS, isFaulty);
  const requests = new RandomRequests(random, SECTORS);
  using queue = new LazyQueue({
    random,
    model,
    isEnciphered,
    blockBytes,
    sectors: SECTORS,
    isFaulty,
    imageSectors: random.pick([40 * STRIPE_SECTORS + 16, SECTORS]),
    hasImage: random.oneIn(2),
    isCopyOnRead: random.oneIn(2),
    isWrittenTracked: random.oneIn(2),
    isBackground: random.oneIn(2),
  });
  for (let step = 0; step < STEPS; step++) {
    const choice = random.below(10);
    if (choice < 4) {
      const request = requests.next();
      if ([...queue.world.inFlight.values()].every((other) => !isConflict(request, other))) {
        queue.admit(request);
      }
    } else {
      queue.step();
    }
  }
  queue.isFaulty = false;
  queue.drain();
  for (let stripe = 0; stripe < STRIPES; stripe++) {
    const sector = stripe * STRIPE_SECTORS;
    const bytes = Math.min(STRIPE_SECTORS, SECTORS - sector) * SECTOR;
    queue.admit({ operation: Operation.read, sector, segments: [bytes] });
    queue.drain();
  }
  expect(queue.world.inFlight.size).toBe(0);
}
