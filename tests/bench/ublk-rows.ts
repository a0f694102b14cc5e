/**
 * The block device beside what the kernel offers by itself, in one guest with both: a null disk beside a
 * minimal server in C, a plain file beside a loop device, an encrypted one beside dm-crypt over that loop
 * device. The guest is emulated: figures mean nothing by themselves, and only ratios are compared.
 */
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { outputOf } from "../../scripts/command.ts";
import { BUILD_FOLDER } from "../support/guest-boot.ts";
import { UblkDisk } from "../support/ublk-disk.ts";
import { missingForUblkGuest, runUblkGuest, type UblkSuite } from "../support/ublk-guest.ts";
import { withFunctions } from "../support/ublk-script.ts";
import {
  median,
  type ResultLine,
  type Row,
  type RowOptions,
  type RowResult,
  shortNumber,
} from "./result.ts";

interface UblkRow {
  readonly name: string;
  readonly title: string;
  readonly kind: "encrypted" | "plain";
  readonly flags: string;
  /** Starts the peer, whose block device is then `$peer`. */
  readonly startPeer: string;
  readonly loads: readonly Load[];
  readonly metric: Metric;
  readonly ratio: number;
}

interface Load {
  readonly name: "randread" | "randwrite" | "read" | "write";
  readonly blockBytes: number;
  readonly queueDepth: number;
}

type Metric = "operations per second" | "MiB per second" | "MiB per CPU-second";

/** Both kernels: the older one copies, the newer one lends its pages where the disk is plain. */
export function ublkRows(): readonly Row[] {
  return SUITES.flatMap((suite) =>
    ROWS.map((row) => {
      const id = `ublk-${row.name}-${suite}`;
      const title = `block device in a guest, ${suite}'s kernel, ${row.title}`;
      return { id, title, run: (options) => runRow(row, suite, { ...options, id, title }) };
    }),
  );
}

// --- internal ---

const SUITES = ["trixie", "sid"] as const;
const MIB = 2 ** 20;
const DISK_MIB = 256;
const WARM_UP_SECONDS = 4;
const PEER_SECONDS = 1;

const SMALL = { blockBytes: 4096, queueDepth: 32 } as const;
const LARGE = { blockBytes: MIB, queueDepth: 4 } as const;

const START_LOOP = `
losetup --direct-io=on /dev/loop0 /data/disk.raw
peer=/dev/loop0
`;

const ROWS: readonly UblkRow[] = [
  {
    name: "null",
    title: "4 KiB, depth 32: a null disk beside a null server in C",
    kind: "plain",
    flags: "--null-disk",
    startPeer: `
/tmp/files/ublk-null ${DISK_MIB * MIB} 64 ${MIB} >/tmp/peer &
server=$!
await 'grep -q ready /tmp/peer'
peer=$(cut -d' ' -f2 /tmp/peer)
`,
    loads: [
      { name: "randread", ...SMALL },
      { name: "randwrite", ...SMALL },
    ],
    metric: "operations per second",
    ratio: 0.8,
  },
  {
    name: "plain",
    title: "1 MiB in order: a plain file beside a loop device over it",
    kind: "plain",
    flags: "",
    startPeer: START_LOOP,
    loads: [
      { name: "read", ...LARGE },
      { name: "write", ...LARGE },
    ],
    metric: "MiB per second",
    ratio: 0.9,
  },
  {
    name: "encrypted",
    title: "1 MiB in order: an encrypted file beside dm-crypt over a loop device",
    kind: "encrypted",
    flags: "",
    startPeer: `
${START_LOOP}
key=$(od -An -v -tx1 /data/key | tr -d ' \\n')
export DM_DISABLE_UDEV=1
echo "0 $(blockdev --getsz /dev/loop0) crypt aes-xts-plain64 $key 0 /dev/loop0 0" | dmsetup create peer
peer=/dev/mapper/peer
echo "peer_cipher=$(awk '/^name/ { name = $3 } /^driver/ && name == "xts(aes)" { print $3; exit }' /proc/crypto)"
`,
    loads: [
      { name: "read", ...LARGE },
      { name: "write", ...LARGE },
    ],
    metric: "MiB per CPU-second",
    ratio: 0.8,
  },
];

/**
 * Both devices are there all the time; whoever is not asked sleeps. A sample is one line: who, load, and
 * twice, before and after: time, operations and sectors that the device counted, busy time of all
 * processors in hundredths of a second. What fio needs to start and end is outside.
 */
function scriptOf(row: UblkRow, { repetitions, seconds }: RowOptions): string {
  const sample = (who: string, path: string, duration: number, load: Load) =>
    `sample ${who} ${path} ${duration} ${load.name} ${load.blockBytes} ${load.queueDepth}`;
  const pair = (names: readonly [string, string], durations: readonly [number, number]) =>
    row.loads
      .flatMap((load) => [
        sample(names[0], "/dev/$(device)", durations[0], load),
        sample(names[1], "$peer", durations[1], load),
      ])
      .join("\n");
  return `
look() {
  awk 'FILENAME == "/proc/uptime" { now = $1 }
    FILENAME == "/proc/stat" && /^cpu / { busy = $2 + $3 + $4 + $7 + $8 + $9 }
    FILENAME ~ /block/ { operations = $1 + $5; sectors = $3 + $7 }
    END { printf "%.2f %d %d %d", now, operations, sectors, busy }' /proc/uptime /proc/stat $statistics
}
sample() {
  statistics=/sys/block/$(basename $2)/stat
  [ $2 != /dev/mapper/peer ] || statistics=/sys/block/dm-0/stat
  idle=$(cat $statistics)
  fio --name=load --filename=$2 --rw=$4 --bs=$5 --iodepth=$6 --direct=1 --ioengine=io_uring \
    --time_based --runtime=600 --norandommap --minimal >/dev/null 2>&1 &
  load=$!
  await '[ "$(cat $statistics)" != "$idle" ]'
  sleep 0.5
  first=$(look)
  sleep $3
  echo "sample $1 $4 $first $(look)"
  kill $load
  wait $load || true
}
dd if=/dev/urandom of=/tmp/random bs=1M count=16 2>/dev/null
for part in $(seq 0 ${DISK_MIB / 16 - 1}); do
  dd if=/tmp/random of=/data/disk.raw bs=1M seek=$((part * 16)) oflag=direct conv=notrunc 2>/dev/null
done
begin ${row.flags}
echo "our_cipher=$(sed -n 's/.* cipher=\\([^ ]*\\).*/\\1/p' /tmp/log)"
echo "zero_copy=$(sed -n 's/.* zeroCopy=\\([^ ]*\\).*/\\1/p' /tmp/log)"
${row.startPeer}
${pair(["warm", "warm"], [WARM_UP_SECONDS, PEER_SECONDS])}
for turn in $(seq ${repetitions}); do
${pair(["ours", "peer"], [seconds, seconds])}
done
kill $backend
wait $backend
`;
}

interface Sample {
  readonly who: string;
  readonly load: string;
  readonly seconds: number;
  readonly operations: number;
  readonly mib: number;
  readonly cpuSeconds: number;
}

async function runRow(
  row: UblkRow,
  suite: UblkSuite,
  options: RowOptions & { readonly id: string; readonly title: string },
): Promise<RowResult> {
  const missing = missingForUblkGuest(suite);
  if (missing !== undefined) {
    throw new Error(missing);
  }
  const { id, title, repetitions, seconds, note } = options;
  note(`${id}: in the guest, about ${20 + repetitions * row.loads.length * 2 * (seconds + 2)} s`);
  using disk = await UblkDisk.make({ kind: row.kind, sizeMiB: DISK_MIB });
  const { exitCode, output, console } = await runUblkGuest({
    suite,
    script: withFunctions(scriptOf(row, options)),
    dataDisk: disk.path,
    files: { "ublk-null": readFileSync(await nullServer()) },
    timeoutMs: (120 + repetitions * row.loads.length * 4 * (seconds + 3)) * 1000,
  });
  if (exitCode !== 0) {
    throw new Error(`the guest's script failed\n${output}\n${console}`);
  }
  const samples = samplesOf(output);
  const lines = row.loads.map((load) => compare(row, load, samples));
  return { id, title, lines: [...lines, describe(output)], details: samples };
}

function samplesOf(output: string): readonly Sample[] {
  const lines = [...output.matchAll(/^sample (ours|peer) (\w+) ([\d. ]+)$/gm)];
  return lines.map(([, who = "", load = "", text = ""]) => {
    const numbers = text.split(" ").map(Number);
    const grown = (i: number) => (numbers[i + 4] ?? Number.NaN) - (numbers[i] ?? Number.NaN);
    return {
      who,
      load,
      seconds: grown(0),
      operations: grown(1),
      mib: grown(2) / 2048,
      cpuSeconds: grown(3) / 100,
    };
  });
}

function compare(row: UblkRow, load: Load, samples: readonly Sample[]): ResultLine {
  const figure = (who: string) =>
    median(
      samples
        .filter((sample) => sample.who === who && sample.load === load.name)
        .map((sample) => figureOf(sample, row.metric)),
    );
  const [ours, peer] = [figure("ours"), figure("peer")];
  return {
    what: `${load.name}, ${row.metric}`,
    ours: shortNumber(ours),
    peer: shortNumber(peer),
    ratio: (ours / peer).toFixed(3),
    goal: `>= ${row.ratio.toFixed(3)}`,
    isMet: ours / peer >= row.ratio,
  };
}

function figureOf(sample: Sample, metric: Metric): number {
  switch (metric) {
    case "operations per second":
      return sample.operations / sample.seconds;
    case "MiB per second":
      return sample.mib / sample.seconds;
    case "MiB per CPU-second":
      return sample.mib / sample.cpuSeconds;
  }
}

/** What each side was made of: cipher kernels, and whether data was copied. */
function describe(output: string): ResultLine {
  const value = (name: string) => new RegExp(`^${name}=(\\S+)$`, "m").exec(output)?.[1] ?? "";
  const copying = value("zero_copy") === "true" ? "no copy" : "copies";
  const cipher = value("our_cipher");
  return {
    what: "by",
    ours: cipher === "" || cipher === "none" ? copying : cipher,
    peer: value("peer_cipher"),
    ratio: "",
    goal: "",
    isMet: undefined,
  };
}

/** The peer without a disk, static: the guest need not have its libraries. */
async function nullServer(): Promise<string> {
  const folder = join(BUILD_FOLDER, "bench");
  mkdirSync(folder, { recursive: true });
  const program = join(folder, "ublk-null");
  const source = join(import.meta.dir, "..", "support", "ublk-null.c");
  const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", program];
  await outputOf(["gcc", ...flags, source, "-luring", "-lpthread"]);
  return program;
}
