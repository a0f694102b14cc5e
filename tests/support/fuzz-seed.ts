/**
 * The seed of a fuzz test: another one each time, and the one that is asked for when a failure is run again.
 * It belongs into the name of the test, or into the message of its failure.
 */
const SEEDS = 2 ** 31;

export const FUZZ_SEED = Number(process.env.UBIBLK_FUZZ_SEED ?? Date.now() % SEEDS);
