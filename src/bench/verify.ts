/**
 * The verifying workload, in rounds: write the whole range, flush, read it back, check every byte. Every
 * second round uses requests of odd sizes with buffers cut at odd bytes, and reads with another
 * partition than it wrote.
 */
import { clockNs } from "../ffi/event.ts";
import { FEATURE, REQUEST_TYPE, STATUS } from "../formats/virtio-blk.ts";
import type { DriverQueue } from "./driver-queue.ts";
import type { Outcome, Run } from "./run.ts";
import { failOnFailures } from "./statistics.ts";
import { Sweep, type SweepOptions } from "./sweep.ts";
import { MeasuringWindow } from "./window.ts";
import type { Work } from "./work.ts";

/** Both kinds of round once. */
const ROUNDS_MIN = 2;

/** @throws UbiError E_VERIFY with the first wrong sector */
export function runVerify(run: Run): Outcome {
  const { settings, range } = run;
  const startNs = clockNs();
  const endNs = startNs + (settings.seconds ?? 0) * 1e9;
  const window = new MeasuringWindow({
    startNs,
    warmupNs: 0,
    durationNs: Number.MAX_SAFE_INTEGER,
    pid: settings.pid,
  });
  window.turn(startNs);
  let rounds = 0;
  while (rounds < ROUNDS_MIN || clockNs() < endNs) {
    rounds += 1;
    sweep(run, "write", rounds);
    if (run.frontEnd.hasFeature(FEATURE.BLK_FLUSH)) {
      run.engine.run(new FlushOnce(run));
    }
    sweep(run, "read", rounds);
  }
  window.close(clockNs());
  const bytes = range.blockCount * settings.blockBytes;
  const verified = `verify: ${bytes} bytes written and read back ${rounds} times, all as expected`;
  return { measured: window.measured, verified };
}

// --- internal ---

function sweep(run: Run, direction: SweepOptions["direction"], round: number): void {
  const isOddRound = round % 2 === 0;
  // A disk with larger blocks takes whole ones only.
  const isOdd = isOddRound && run.frontEnd.config.blockSize <= 512;
  const seed = run.settings.seed ^ (direction === "read" ? 0x5eed : 0);
  const work = new Sweep({ ...run, direction, generation: round, isOdd, seed });
  run.engine.run(work);
  if (work.failure?.code === "E_VERIFY") {
    throw work.failure;
  }
  failOnFailures(run.statistics);
}

class FlushOnce implements Work {
  readonly #run: Run;
  #isStarted = false;

  constructor(run: Run) {
    this.#run = run;
  }

  start(queue: DriverQueue, slot: number, nowNs: number): boolean {
    if (this.#isStarted) {
      return false;
    }
    this.#isStarted = true;
    this.#run.slots.start(queue, slot, REQUEST_TYPE.FLUSH, 0, 0, nowNs);
    return true;
  }

  finish(queue: DriverQueue, slot: number, status: number, nowNs: number): void {
    const { slots, statistics } = this.#run;
    if (status === STATUS.OK) {
      const startNs = slots.startNs(slots.place(queue, slot));
      statistics.record(REQUEST_TYPE.FLUSH, 0, nowNs - startNs);
    } else {
      statistics.recordFailure(REQUEST_TYPE.FLUSH, 0, status);
    }
  }

  turn(): void {}
}
