/** Waits for what tells nobody when it happens. */

const WAIT_MS = 30_000;
const LOOK_MS = 2;

/** Looks until `condition` holds. @throws Error with `what` when that takes longer than half a minute, or `waitMs` */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  waitMs = WAIT_MS,
): Promise<void> {
  const deadlineMs = performance.now() + waitMs;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) {
      throw new Error(`waited in vain: ${what}`);
    }
    await Bun.sleep(LOOK_MS);
  }
}

/**
 * Runs a measurement again until it stays below a limit, `rounds` times at most, and returns the last one. What is at
 * work all the time shows in every round; a start that is still being compiled, or another program, does not.
 */
export async function belowOnce(
  limit: number,
  measure: () => Promise<number>,
  rounds = 5,
): Promise<number> {
  let value = await measure();
  for (let round = 1; round < rounds && value > limit; round++) {
    value = await measure();
  }
  return value;
}
