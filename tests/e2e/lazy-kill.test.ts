/**
 * kill -9 while a disk is filled from its image: no acknowledged write is lost, and a sector that nobody wrote is the
 * image's, for as long as it takes until all is fetched and longer.
 *
 *     UBIBLK_KILL_SEED=17 bun test tests/e2e/lazy-kill.test.ts      plays one seed again, as far as time can be played
 */
import { expect, test } from "bun:test";
import { addFigures } from "../support/figures.ts";
import { LazyLife } from "../support/lazy-life.ts";
import { rounds } from "../support/requires.ts";

const ROUNDS = rounds(5, 50);
/** Of one disk. */
const ROUNDS_MAX = 8;
const TIMEOUT_MS = rounds(120_000, 1_200_000);
const FIRST_SEED = Number(process.env.UBIBLK_KILL_SEED ?? Date.now() % 2 ** 31);

test.each([
  { what: "an encrypted disk", isEncrypted: true, isWrittenTracked: false },
  { what: "a plain disk with track_written", isEncrypted: false, isWrittenTracked: true },
])(
  "$what, killed at random moments while it is fetched and written",
  async (kind) => {
    let [seed, kills, killsWhileFetching] = [FIRST_SEED, 0, 0];
    for (; kills < ROUNDS; seed++) {
      await using life = new LazyLife({ ...kind, seed });
      try {
        await life.begin();
        for (let round = 0; round < Math.min(ROUNDS_MAX, ROUNDS - kills); round++) {
          if (!(await life.round())) {
            break;
          }
        }
        await life.end();
      } catch (error) {
        const command = `UBIBLK_KILL_SEED=${seed} npx --no -- bun test tests/e2e/lazy-kill.test.ts`;
        const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
        throw new Error(`${what}\nseed ${seed}, kill ${life.kills}; replay: ${command}`);
      }
      kills += life.kills;
      killsWhileFetching += life.killsWhileFetching;
    }
    console.log(`${kind.what}: ${kills} kills, ${killsWhileFetching} while stripes were missing`);
    addFigures("lazy-kill", { kills, killsWhileFetching });
    expect(killsWhileFetching).toBeGreaterThan(0);
  },
  TIMEOUT_MS,
);
