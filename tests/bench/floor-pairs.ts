/**
 * Is the floor one? It has to cost what a tuned fio costs. Both are short programs whose cost swings with what the
 * machine does, so they run in many short pairs, each now first, now second, and the median of the pairs' ratios counts.
 */
import { median, type ResultLine, shortNumber } from "./result.ts";
import { takeSample, type Workload } from "./sample.ts";
import type { DataFiles } from "./servers.ts";

/** CPU time of an operation, microseconds. */
export interface FloorPair {
  readonly floorUs: number;
  readonly fioUs: number;
}

/** The pairs of one turn. @throws Error with what the failing program said */
export async function floorPairs(
  workload: Workload,
  files: DataFiles,
  turn: number,
): Promise<readonly FloorPair[]> {
  const pairs: FloorPair[] = [];
  for (let i = 0; i < PAIRS_A_TURN; i++) {
    const seed = turn * PAIRS_A_TURN + i + 1;
    const cpuUs = async (participant: "floor" | "fio") =>
      (await takeSample({ participant, workload, files, seconds: PAIR_SECONDS, seed })).cpuUs;
    if (i % 2 === 0) {
      const floorUs = await cpuUs("floor");
      pairs.push({ floorUs, fioUs: await cpuUs("fio") });
    } else {
      const fioUs = await cpuUs("fio");
      pairs.push({ floorUs: await cpuUs("floor"), fioUs });
    }
  }
  return pairs;
}

/** Further off than this, either is not what it seems. */
export function floorCheck(pairs: readonly FloorPair[]): ResultLine {
  const ratio = median(pairs.map(({ floorUs, fioUs }) => floorUs / fioUs));
  return {
    what: `floor itself, CPU us/op beside fio, ${pairs.length} pairs`,
    ours: shortNumber(median(pairs.map(({ floorUs }) => floorUs))),
    peer: shortNumber(median(pairs.map(({ fioUs }) => fioUs))),
    ratio: ratio.toFixed(3),
    goal: "0.950 to 1.050",
    isMet: Math.abs(ratio - 1) <= 0.05,
  };
}

// --- internal ---

const PAIRS_A_TURN = 8;
const PAIR_SECONDS = 0.6;
