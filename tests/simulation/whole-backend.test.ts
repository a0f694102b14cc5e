/**
 * The whole backend in a simulation: front end, guest, queues, lazy layer, metadata, source, disk with a volatile cache;
 * faults at any moment, crashes, losses of power; everything from one seed, in one thread.
 *
 *     UBIBLK_WHOLE_SEED=17 bun test tests/simulation/whole-backend.test.ts           plays one seed again
 *     UBIBLK_WHOLE_SEED=1000 UBIBLK_WHOLE_SECONDS=3600 bun test tests/simulation/... from one seed on, for so long
 */
import { expect, test } from "bun:test";
import { setLogLevel } from "../../src/log.ts";
import { rounds } from "../support/requires.ts";
import { World } from "../support/whole/world.ts";

const SEEDS = rounds(30, 6000);
const LYING_SEEDS = 10;
const LIVES = 4;
const STEPS = 1500;
const SECONDS = Number(process.env.UBIBLK_WHOLE_SECONDS ?? 0);
const LIMIT_MS = rounds(600_000, 14_400_000) + SECONDS * 1000;

test(
  "nothing that was promised is lost, nothing foreign is read, and everything ends",
  () => {
    setLogLevel("off");
    const totals: Record<string, number> = { seeds: 0 };
    for (const seed of chosenSeeds()) {
      play(seed, totals);
    }
    console.log(`whole backend: ${JSON.stringify(totals)}`);
    expect(totals.ok).toBeGreaterThan(totals.failed ?? 0);
  },
  LIMIT_MS,
);

test(
  "a disk that says it made data durable and did not is found out",
  () => {
    setLogLevel("off");
    const found = Array.from({ length: LYING_SEEDS }, (_, i) => lossOf(i + 1)).filter(Boolean);
    expect(found.length).toBeGreaterThan(LYING_SEEDS / 2);
    expect(found[0]).toContain("after a loss of power");
  },
  LIMIT_MS,
);

// --- internal ---

function* chosenSeeds(): Generator<number> {
  const only = process.env.UBIBLK_WHOLE_SEED;
  const first = Number(only ?? 1);
  if (SECONDS > 0) {
    const untilMs = performance.now() + SECONDS * 1000;
    for (let seed = first; performance.now() < untilMs; seed++) {
      yield seed;
    }
    return;
  }
  for (let i = 0; i < (only === undefined ? SEEDS : 1); i++) {
    yield first + i;
  }
}

function play(seed: number, totals: Record<string, number>): void {
  using world = new World(seed);
  try {
    world.play(LIVES, STEPS);
  } catch (error) {
    const command = `UBIBLK_WHOLE_SEED=${seed} npx --no -- bun test tests/simulation/whole-backend.test.ts`;
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const where = `seed ${seed}, ${world.describe()} (${JSON.stringify(world.kind)})`;
    throw new Error(`${what}\n${where}; replay: ${command}`);
  }
  totals.seeds = (totals.seeds ?? 0) + 1;
  for (const [name, count] of Object.entries(world.counts)) {
    totals[name] = (totals[name] ?? 0) + count;
  }
}

/** What is found wrong when syncs do nothing; empty when nothing is. */
function lossOf(seed: number): string {
  using world = new World(seed, { isLying: true });
  try {
    world.play(1, STEPS);
    return "";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
