/**
 * What the backend costs while it does nothing for anybody, and how soon it is there. A client of our own
 * attaches one queue, as an idle guest, and asks for nothing.
 */
import { readFileSync } from "node:fs";
import { backendCpuNs } from "../../src/bench/backend-cpu.ts";
import { FrontEnd } from "../../src/bench/front-end.ts";
import {
  median,
  type ResultLine,
  type Row,
  type RowOptions,
  type RowResult,
  shortNumber,
} from "./result.ts";
import { type DataFiles, type ServerName, startServer } from "./servers.ts";

/** Bounce buffers are mapped as they are needed: an idle queue has none or few, so none are allowed for. */
const ANONYMOUS_MIB_MAX = 15;
const MEMORY_MIB_MAX = 60;
const START_MS_MAX = 150;
const IDLE_CPU_MS_MAX = 3;
/** After its start a process still compiles, collects and gives memory back. */
const SETTLE_MS = 5000;
const IDLE_SECONDS_MIN = 5;

const OURS: ServerName = "ubiblk encrypted";
const PEER: ServerName = "qsd luks";

export function upkeepRows(files: DataFiles): readonly Row[] {
  return [
    {
      id: "start",
      title: `start to listening socket: ${OURS} beside ${PEER}`,
      run: (options) => runStart(files, options),
    },
    {
      id: "idle",
      title: `idle with a client on one queue: ${OURS} beside ${PEER}`,
      run: (options) => runIdle(files, options),
    },
  ];
}

// --- internal ---

async function runStart(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const ours: number[] = [];
  const peer: number[] = [];
  await startMs(OURS, files); // the first start reads the executable from the disk
  for (let turn = 0; turn < options.repetitions; turn++) {
    ours.push(await startMs(OURS, files));
    peer.push(await startMs(PEER, files));
  }
  options.note(`start: ${ours.map((ms) => ms.toFixed(0)).join(" ")} ms`);
  const line = limitLine("ms", ours, peer, START_MS_MAX);
  return {
    id: "start",
    title: "start to listening socket",
    lines: [line],
    details: { ours, peer },
  };
}

async function startMs(name: ServerName, files: DataFiles): Promise<number> {
  await using backend = await startServer(name, files);
  return backend.startMs;
}

interface IdleFigures {
  readonly memoryMib: number;
  readonly anonymousMib: number;
  readonly cpuMsPerSecond: number;
}

async function runIdle(files: DataFiles, options: RowOptions): Promise<RowResult> {
  const ours: IdleFigures[] = [];
  const peer: IdleFigures[] = [];
  for (let turn = 0; turn < options.repetitions; turn++) {
    ours.push(await idleFigures(OURS, files, options.seconds));
    peer.push(await idleFigures(PEER, files, options.seconds));
    options.note(`idle ${turn + 1}/${options.repetitions}: ${JSON.stringify(ours[turn])}`);
  }
  const line = (what: string, limit: number, pick: (figures: IdleFigures) => number) =>
    limitLine(what, ours.map(pick), peer.map(pick), limit);
  return {
    id: "idle",
    title: "idle with a client on one queue",
    lines: [
      line("RssAnon + RssFile, MiB", MEMORY_MIB_MAX, ({ memoryMib }) => memoryMib),
      line("RssAnon, MiB", ANONYMOUS_MIB_MAX, (each) => each.anonymousMib),
      line("CPU, ms per second", IDLE_CPU_MS_MAX, ({ cpuMsPerSecond }) => cpuMsPerSecond),
    ],
    details: { ours, peer },
  };
}

async function idleFigures(
  name: ServerName,
  files: DataFiles,
  seconds: number,
): Promise<IdleFigures> {
  await using backend = await startServer(name, files);
  using frontEnd = FrontEnd.connect({
    socketPath: backend.socketPath,
    queueCount: 1,
    queueDepth: 32,
    segmentsMax: 1,
    dataBytesMax: 4096,
    timeoutMs: 10_000,
    usesEventIndex: true,
    isIndirect: false,
    isPacked: false,
    usesReplyAck: true,
    usesMemorySlots: false,
    isReconnecting: false,
    usesInflight: false,
  });
  await Bun.sleep(SETTLE_MS);
  const beforeNs = backendCpuNs(backend.pid);
  const beginMs = performance.now();
  await Bun.sleep(Math.max(seconds, IDLE_SECONDS_MIN) * 1000);
  const elapsedMs = performance.now() - beginMs;
  const cpuMs = (backendCpuNs(backend.pid) - beforeNs) / 1e6;
  const memory = residentMib(backend.pid);
  frontEnd.stop();
  return { ...memory, cpuMsPerSecond: (cpuMs / elapsedMs) * 1000 };
}

function residentMib(pid: number): Pick<IdleFigures, "memoryMib" | "anonymousMib"> {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const mib = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? Number.NaN) / 1024;
  return { memoryMib: mib("RssAnon") + mib("RssFile"), anonymousMib: mib("RssAnon") };
}

/** A figure that has a limit of its own; the peer's stands beside it for comparison. */
function limitLine(
  what: string,
  ours: readonly number[],
  peer: readonly number[],
  limit: number,
): ResultLine {
  const middle = median(ours);
  const beside = median(peer);
  return {
    what,
    ours: shortNumber(middle),
    peer: shortNumber(beside),
    ratio: beside === 0 ? "" : (middle / beside).toFixed(3),
    goal: `<= ${limit}`,
    isMet: middle <= limit,
  };
}
