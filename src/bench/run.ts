/** One run: connects, does the workload, stops the queues, and tells the result. */
import { UbiError } from "../errors.ts";
import { Arena, type ArenaView } from "../ffi/arena.ts";
import { clockNs } from "../ffi/event.ts";
import { FEATURE, SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { Engine } from "./engine.ts";
import { FrontEnd } from "./front-end.ts";
import { type BlockHistory, JournalWriter, readJournal } from "./journal.ts";
import { JournalCheck } from "./journal-check.ts";
import { JournaledLoad } from "./journaled-load.ts";
import { fillBuffers, Load, type LoadKind, type LoadOptions } from "./load.ts";
import { Pattern } from "./pattern.ts";
import { Progress } from "./progress.ts";
import { type BlockRange, blockRange } from "./range.ts";
import { makeReport, type Report } from "./report.ts";
import type { BenchSettings } from "./settings.ts";
import { SlotTable } from "./slots.ts";
import { failOnFailures, Statistics } from "./statistics.ts";
import { runVerify } from "./verify.ts";
import { type Measured, MeasuringWindow } from "./window.ts";

/** What all workloads of a run share. */
export interface Run {
  readonly settings: BenchSettings;
  readonly frontEnd: FrontEnd;
  readonly engine: Engine;
  readonly range: BlockRange;
  readonly slots: SlotTable;
  readonly slotCount: number;
  readonly statistics: Statistics;
  readonly progress: Progress;
  readonly pattern: Pattern;
  /** Room for one block. */
  readonly scratch: ArenaView<Uint32Array>;
}

/** What a workload tells of itself besides the statistics. */
export interface Outcome {
  readonly measured: Measured;
  readonly verified: string | undefined;
}

/**
 * Runs to the end. Blocks the thread.
 * @throws UbiError E_SOCKET, E_BENCH, E_PROTOCOL, E_VERIFY
 */
export function runBench(asked: BenchSettings): Report {
  const history = asked.checkPath === undefined ? undefined : readJournal(asked.checkPath);
  const settings = history === undefined ? asked : settingsOf(asked, history);
  using stack = new DisposableStack();
  const frontEnd = stack.use(connect(settings));
  const engine = stack.use(
    new Engine({ frontEnd, timeoutMs: settings.timeoutMs, spinUs: settings.spinUs }),
  );
  const arena = stack.use(new Arena(settings.blockBytes));
  const { queueCount, queueDepth, blockBytes } = settings;
  const run: Run = {
    settings,
    frontEnd,
    engine,
    range: blockRange({ ...settings, capacityBytes: frontEnd.capacityBytes }),
    slots: new SlotTable(queueCount, queueDepth),
    slotCount: queueCount * queueDepth,
    statistics: new Statistics(),
    progress: new Progress(),
    pattern: new Pattern(settings.seed),
    scratch: arena.words(blockBytes / 4),
  };
  checkFeatures(run, history !== undefined);
  stack.defer(() => run.progress.clear());
  const outcome = history === undefined ? runWorkload(run) : runCheck(run, history);
  failOnFailures(run.statistics);
  stop(frontEnd);
  return report(run, outcome);
}

// --- internal ---

/** A backend that ends just now has nothing in flight: who outlives others outlives that one too. */
function stop(frontEnd: FrontEnd): void {
  try {
    frontEnd.stop();
  } catch (error) {
    if (!(frontEnd.isReconnecting && error instanceof UbiError && error.code === "E_BENCH")) {
      throw error;
    }
  }
}

const SECONDS_DEFAULT = 10;

/** A check looks at what its journal tells, by the pattern that was written. */
function settingsOf(asked: BenchSettings, history: BlockHistory): BenchSettings {
  const { blockBytes, offsetBytes, blockCount, seed } = history.header;
  return { ...asked, blockBytes, offsetBytes, seed, sizeBytes: blockBytes * blockCount };
}

function connect(settings: BenchSettings): FrontEnd {
  const { blockBytes, segments, workload } = settings;
  const isVerify = workload === "verify";
  return FrontEnd.connect({
    ...settings,
    dataBytesMax: blockBytes,
    segmentsMax: isVerify ? Math.max(4, segments) : segments,
  });
}

function checkFeatures(run: Run, isCheck: boolean): void {
  const { frontEnd, settings } = run;
  const isWriting = !isCheck && !settings.workload.endsWith("read");
  if (isWriting && frontEnd.hasFeature(FEATURE.BLK_RO)) {
    throw new UbiError("E_BENCH", "the disk is read-only");
  }
  if (settings.flushEvery > 0 && !frontEnd.hasFeature(FEATURE.BLK_FLUSH)) {
    throw new UbiError("E_BENCH", "the backend does not offer flushes");
  }
  const blockSize = frontEnd.config.blockSize;
  if (blockSize > SECTOR_BYTES && settings.blockBytes % blockSize !== 0) {
    throw new UbiError("E_BENCH", `the disk's blocks are of ${blockSize} bytes`);
  }
}

function runWorkload(run: Run): Outcome {
  const { workload } = run.settings;
  return workload === "verify" ? runVerify(run) : runLoad(run, workload);
}

function runLoad(run: Run, kind: LoadKind): Outcome {
  const { settings, engine, frontEnd } = run;
  const window = new MeasuringWindow({
    startNs: clockNs(),
    warmupNs: settings.warmupSeconds * 1e9,
    durationNs: (settings.seconds ?? SECONDS_DEFAULT) * 1e9,
    pid: settings.pid,
  });
  const options = { ...run, ...settings, kind, window };
  fillBuffers(frontEnd.queues);
  if (settings.journalPath === undefined) {
    engine.run(new Load(options));
  } else {
    runJournaled(run, options, settings.journalPath);
  }
  return { measured: window.measured, verified: undefined };
}

function runJournaled(run: Run, options: LoadOptions, journalPath: string): void {
  const { settings, range, engine, slotCount } = run;
  const { seed, blockBytes, offsetBytes } = settings;
  const header = { seed, blockBytes, offsetBytes, blockCount: range.blockCount };
  // In one turn every slot may end one request and start another.
  using journal = new JournalWriter(journalPath, header, 2 * slotCount);
  engine.run(
    new JournaledLoad({
      ...options,
      journal,
      pattern: run.pattern,
      scratch: run.scratch,
      slotCount,
    }),
  );
}

function runCheck(run: Run, history: BlockHistory): Outcome {
  const { settings, engine } = run;
  const window = new MeasuringWindow({
    startNs: clockNs(),
    warmupNs: 0,
    durationNs: Number.MAX_SAFE_INTEGER,
    pid: settings.pid,
  });
  window.turn(clockNs());
  const check = new JournalCheck({ ...run, history, isPowerLoss: settings.isPowerLoss });
  engine.run(check);
  window.close(clockNs());
  if (check.failure !== undefined) {
    throw check.failure;
  }
  const kind = settings.isPowerLoss ? "flushed" : "acknowledged";
  const blocks = `${check.checkedBlocks} blocks with ${kind} writes`;
  const verified = `check: all ${blocks} hold them (${history.recordCount} records)`;
  return { measured: window.measured, verified };
}

function report(run: Run, outcome: Outcome): Report {
  const { settings, frontEnd, statistics } = run;
  const isCheck = settings.checkPath !== undefined;
  return makeReport(
    {
      workload: isCheck ? "check" : settings.workload,
      blockBytes: settings.blockBytes,
      queueDepth: settings.queueDepth,
      queues: settings.queueCount,
      features: frontEnd.features,
      kicks: frontEnd.queues.reduce((sum, queue) => sum + queue.kicks, 0),
      calls: frontEnd.queues.reduce((sum, queue) => sum + queue.calls, 0),
      totalOperations: frontEnd.queues.reduce((sum, queue) => sum + queue.started, 0),
      verified: outcome.verified,
      reconnects: settings.isReconnecting ? frontEnd.reconnects : undefined,
    },
    statistics,
    outcome.measured,
  );
}
