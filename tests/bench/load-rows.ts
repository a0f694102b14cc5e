/**
 * The rows that move blocks. All participants of a row are measured in turn, again and again, so that
 * other work on the machine meets all alike; medians are compared.
 */
import { type FloorPair, floorCheck, floorPairs } from "./floor-pairs.ts";
import {
  median,
  type ResultLine,
  type Row,
  type RowOptions,
  type RowResult,
  shortNumber,
} from "./result.ts";
import { type ParticipantName, type Sample, takeSample, type Workload } from "./sample.ts";
import type { DataFiles, ServerName } from "./servers.ts";

type Metric = "iops" | "cpuUs" | "perCpuSecond" | "p50Us" | "p99Us";

/** What is compared, with whom, and what is to be reached. */
interface Goal {
  readonly what: string;
  readonly metric: Metric;
  readonly against: ParticipantName;
  readonly limit:
    | { readonly kind: "atLeast"; readonly ratio: number }
    | { readonly kind: "atMost"; readonly ratio: number }
    | { readonly kind: "atMostMore"; readonly us: number };
}

interface LoadRow {
  readonly id: string;
  readonly title: string;
  readonly workload: Workload;
  readonly ours: ServerName;
  readonly peer: ServerName;
  readonly usesFloor: boolean;
  readonly goals: readonly Goal[];
}

/** The rows, for a machine with or without the fast cipher instructions (VAES-512). */
export function loadRows(files: DataFiles, hasVaes512: boolean): readonly Row[] {
  return [...deepRows(hasVaes512), ...singleRows()].map((row) => ({
    id: row.id,
    title: row.title,
    run: (options) => runRow(row, files, options),
  }));
}

// --- internal ---

const KIB = 1024;
const ENCRYPTED = { ours: "ubiblk encrypted", peer: "qsd luks" } as const;
const PLAIN = { ours: "ubiblk plain", peer: "qsd raw" } as const;
const EMPTY = { ours: "ubiblk null", peer: "qsd null-co" } as const;

function deepRows(hasVaes512: boolean): readonly LoadRow[] {
  const cipherUs = hasVaes512 ? 1.2 : 2.7;
  const sequentialRatio = hasVaes512 ? 12 : 9;
  const small = (name: Workload["name"]) => ({ name, blockBytes: 4 * KIB, queueDepth: 32 });
  const large = (name: Workload["name"]) => ({ name, blockBytes: 128 * KIB, queueDepth: 16 });
  return [
    row("randread-encrypted", small("randread"), ENCRYPTED, [
      perCpuSecond("qsd luks", 3),
      aboveFloor(cipherUs),
    ]),
    row("randwrite-encrypted", small("randwrite"), ENCRYPTED, [perCpuSecond("qsd luks", 5)]),
    row("read-encrypted", large("read"), ENCRYPTED, [perCpuSecond("qsd luks", sequentialRatio)]),
    row("write-encrypted", large("write"), ENCRYPTED, [perCpuSecond("qsd luks", sequentialRatio)]),
    row("randread-plain", small("randread"), PLAIN, [
      perCpuSecond("qsd raw", 1.7),
      timesFloor(1.1),
    ]),
    row("randwrite-plain", small("randwrite"), PLAIN, [
      perCpuSecond("qsd raw", 1.7),
      timesFloor(1.1),
    ]),
    row("randread-null", small("randread"), EMPTY, [perCpuSecond("qsd null-co", 4)]),
    row("randwrite-null", small("randwrite"), EMPTY, [perCpuSecond("qsd null-co", 4)]),
  ];
}

/** One request at a time: only what a guest sees counts. */
function singleRows(): readonly LoadRow[] {
  const single = (name: Workload["name"]) => ({ name, blockBytes: 4 * KIB, queueDepth: 1 });
  return [
    row("randread-encrypted-qd1", single("randread"), ENCRYPTED, []),
    row("randwrite-encrypted-qd1", single("randwrite"), ENCRYPTED, []),
    row("randread-plain-qd1", single("randread"), PLAIN, []),
    row("randwrite-plain-qd1", single("randwrite"), PLAIN, []),
    row("randread-null-qd1", single("randread"), EMPTY, []),
  ];
}

function row(
  id: string,
  workload: Workload,
  pair: { readonly ours: ServerName; readonly peer: ServerName },
  goals: readonly Goal[],
): LoadRow {
  const { name, blockBytes, queueDepth } = workload;
  const wallGoals: readonly Goal[] = [
    { what: "IOPS", metric: "iops", against: pair.peer, limit: { kind: "atLeast", ratio: 0.95 } },
    { what: "p50 us", metric: "p50Us", against: pair.peer, limit: { kind: "atMost", ratio: 1.05 } },
    { what: "p99 us", metric: "p99Us", against: pair.peer, limit: { kind: "atMost", ratio: 1.15 } },
  ];
  return {
    id,
    title: `${blockBytes / KIB} KiB ${name}, depth ${queueDepth}: ${pair.ours} beside ${pair.peer}`,
    workload,
    ...pair,
    usesFloor: goals.some(({ against }) => against === "floor"),
    goals: [...goals, ...wallGoals],
  };
}

function perCpuSecond(against: ParticipantName, times: number): Goal {
  const limit = { kind: "atLeast", ratio: times } as const;
  return { what: "operations per CPU-second", metric: "perCpuSecond", against, limit };
}

function aboveFloor(us: number): Goal {
  const limit = { kind: "atMostMore", us } as const;
  return { what: "CPU us/op above the floor", metric: "cpuUs", against: "floor", limit };
}

function timesFloor(ratio: number): Goal {
  const limit = { kind: "atMost", ratio } as const;
  return { what: "CPU us/op beside the floor", metric: "cpuUs", against: "floor", limit };
}

type Samples = Map<ParticipantName, Sample[]>;

async function runRow(row: LoadRow, files: DataFiles, options: RowOptions): Promise<RowResult> {
  const direct: readonly ParticipantName[] = row.usesFloor ? ["floor"] : [];
  const participants: readonly ParticipantName[] = [row.ours, row.peer, ...direct];
  const samples: Samples = new Map(participants.map((name) => [name, []]));
  const pairs: FloorPair[] = [];
  for (let turn = 0; turn < options.repetitions; turn++) {
    for (let i = 0; i < participants.length; i++) {
      // Each goes first once, so that none always follows the same neighbour.
      const participant = participants[(turn + i) % participants.length] ?? row.ours;
      const { seconds } = options;
      const { workload } = row;
      const sample = await takeSample({ participant, workload, files, seconds, seed: turn + 1 });
      samples.get(participant)?.push(sample);
      options.note(`${row.id} ${turn + 1}/${options.repetitions} ${participant}: ${story(sample)}`);
    }
    if (row.usesFloor) {
      pairs.push(...(await floorPairs(row.workload, files, turn)));
    }
  }
  const floorLines = row.usesFloor ? [floorCheck(pairs)] : [];
  const comparisons = row.goals.map((goal) => compare(goal, row.ours, samples));
  return {
    id: row.id,
    title: row.title,
    lines: [...comparisons, ...floorLines, noiseLine(row, samples)],
    details: { ...Object.fromEntries(samples), floorPairs: pairs },
  };
}

function story(sample: Sample): string {
  const noise = `${Math.round(sample.noise * 100)} % noise`;
  return `${shortNumber(sample.cpuUs)} us CPU/op, ${shortNumber(sample.iops)} IOPS, ${noise}`;
}

function middle(samples: Samples, name: ParticipantName, metric: Metric): number {
  if (metric === "perCpuSecond") {
    return 1e6 / middle(samples, name, "cpuUs");
  }
  return median((samples.get(name) ?? []).map((sample) => sample[metric]));
}

function compare(goal: Goal, name: ServerName, samples: Samples): ResultLine {
  const ours = middle(samples, name, goal.metric);
  const peer = middle(samples, goal.against, goal.metric);
  const { limit } = goal;
  const common = { what: goal.what, ours: shortNumber(ours), peer: shortNumber(peer) };
  if (limit.kind === "atMostMore") {
    const more = ours - peer;
    const goalText = `<= +${limit.us} us`;
    const ratio = `${more >= 0 ? "+" : ""}${more.toFixed(2)}`;
    return { ...common, ratio, goal: goalText, isMet: more <= limit.us };
  }
  const ratio = ours / peer;
  const isMet = limit.kind === "atLeast" ? ratio >= limit.ratio : ratio <= limit.ratio;
  const sign = limit.kind === "atLeast" ? ">=" : "<=";
  return { ...common, ratio: ratio.toFixed(3), goal: `${sign} ${limit.ratio.toFixed(3)}`, isMet };
}

/** How much else the machine did just before the samples: above some percent, doubt the row. */
function noiseLine(row: LoadRow, samples: Samples): ResultLine {
  const percent = (name: ParticipantName) =>
    `${(median((samples.get(name) ?? []).map(({ noise }) => noise)) * 100).toFixed(0)} %`;
  return {
    what: "other work before each sample",
    ours: percent(row.ours),
    peer: percent(row.peer),
    ratio: "",
    goal: "",
    isMet: undefined,
  };
}
