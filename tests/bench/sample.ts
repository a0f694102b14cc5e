/** One measured run: our client against a server, or a program that uses the file directly. */
import { readFileSync } from "node:fs";
import { outputOf } from "../../scripts/command.ts";
import { type Backend, EXECUTABLE } from "../support/backend.ts";
import { type DataFiles, type ServerName, startServer } from "./servers.ts";

export interface Workload {
  readonly name: "randread" | "randwrite" | "read" | "write";
  readonly blockBytes: number;
  readonly queueDepth: number;
}

export type ParticipantName = ServerName | "floor" | "fio";

export interface Sample {
  readonly iops: number;
  /** Of the serving process; of floor and fio, of the whole program. */
  readonly cpuUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** How busy the machine was with other work just before, 0 to 1. */
  readonly noise: number;
}

export interface SampleOptions {
  readonly participant: ParticipantName;
  readonly workload: Workload;
  readonly files: DataFiles;
  readonly seconds: number;
  readonly seed: number;
}

/** What our client does at a server. */
export interface ClientLoad {
  readonly workload: Workload;
  readonly seconds: number;
  readonly seed: number;
  /** The part of the disk; left out: from its beginning, to its end. */
  readonly offsetBytes?: number;
  readonly sizeBytes?: number;
  /** Left out: as long as a server that just started needs. */
  readonly warmUpSeconds?: number;
}

/** @throws Error with what the failing program said */
export async function takeSample(options: SampleOptions): Promise<Sample> {
  const noise = await measureNoise();
  return { ...(await runParticipant(options)), noise };
}

/** One run of our client against a server that is there. @throws Error with what the client said */
export async function clientFigures(backend: Backend, load: ClientLoad): Promise<Figures> {
  const { name, blockBytes, queueDepth } = load.workload;
  const output = await outputOf([
    ...[EXECUTABLE, "bench", "--json", "--socket", backend.socketPath, "--workload", name],
    ...["--block-size", `${blockBytes}`, "--queue-depth", `${queueDepth}`],
    ...["--time", `${load.seconds}`, "--warmup", `${load.warmUpSeconds ?? WARM_UP_SECONDS}`],
    ...["--offset", `${load.offsetBytes ?? 0}`, "--seed", `${load.seed}`],
    ...(load.sizeBytes === undefined ? [] : ["--size", `${load.sizeBytes}`]),
    ...["--pid", `${backend.pid}`],
  ]);
  const report = objectOf(JSON.parse(output));
  const latency = objectOf(objectOf(report.latency)[name.endsWith("read") ? "read" : "write"]);
  return {
    iops: numberOf(report.iops),
    cpuUs: numberOf(report.backendCpuNsPerOperation) / 1000,
    p50Us: numberOf(latency.p50Us),
    p99Us: numberOf(latency.p99Us),
  };
}

// --- internal ---

/** Of a server that just started, a managed runtime is still compiling what is hot; disks run for months. */
const WARM_UP_SECONDS = 3;
const NOISE_MS = 200;

type Figures = Omit<Sample, "noise">;

function runParticipant(options: SampleOptions): Promise<Figures> {
  switch (options.participant) {
    case "floor":
      return runFloor(options);
    case "fio":
      return runFio(options);
    default:
      return runClient(options, options.participant);
  }
}

async function runClient(options: SampleOptions, server: ServerName): Promise<Figures> {
  await using backend = await startServer(server, options.files);
  return await clientFigures(backend, options);
}

async function runFloor(options: SampleOptions): Promise<Figures> {
  const { name, blockBytes, queueDepth } = options.workload;
  const output = await outputOf([
    ...[options.files.floorPath, options.files.plainPath],
    ...[
      name.endsWith("read") ? "read" : "write",
      name.startsWith("rand") ? "random" : "sequential",
    ],
    ...[`${blockBytes}`, `${queueDepth}`, `${options.seconds}`, `${options.seed}`],
  ]);
  const report = objectOf(JSON.parse(output));
  const operations = numberOf(report.operations);
  return {
    iops: operations / numberOf(report.seconds),
    cpuUs: (numberOf(report.cpuSeconds) / operations) * 1e6,
    p50Us: numberOf(report.p50Us),
    p99Us: numberOf(report.p99Us),
  };
}

async function runFio(options: SampleOptions): Promise<Figures> {
  const { name, blockBytes, queueDepth } = options.workload;
  const output = await outputOf([
    ...["fio", "--name=peer", `--filename=${options.files.plainPath}`, "--direct=1"],
    ...["--ioengine=io_uring", "--fixedbufs", "--registerfiles", `--rw=${name}`],
    ...[`--bs=${blockBytes}`, `--iodepth=${queueDepth}`, `--randseed=${options.seed}`],
    // In batches, as the floor does: by default each request has a system call of its own.
    ...[`--iodepth_batch_submit=${queueDepth}`, "--iodepth_batch_complete_min=1"],
    ...[`--iodepth_batch_complete_max=${queueDepth}`, "--gtod_reduce=1", "--norandommap"],
    // A warm-up as short as the floor's: nothing is compiled here. And data is written as it is, as the floor does.
    ...[
      "--time_based",
      `--runtime=${Math.round(options.seconds * 1000)}ms`,
      "--ramp_time=300ms",
      "--scramble_buffers=0",
    ],
    "--output-format=json",
  ]);
  const job = objectOf(arrayOf(objectOf(JSON.parse(output)).jobs)[0]);
  const direction = objectOf(job[name.endsWith("read") ? "read" : "write"]);
  const cpuShare = (numberOf(job.usr_cpu) + numberOf(job.sys_cpu)) / 100;
  const cpuSeconds = (cpuShare * numberOf(job.job_runtime)) / 1000;
  return {
    iops: numberOf(direction.iops),
    cpuUs: (cpuSeconds / numberOf(direction.total_ios)) * 1e6,
    p50Us: Number.NaN,
    p99Us: Number.NaN,
  };
}

/** The share of all processors that was busy or stolen while we only waited. */
async function measureNoise(): Promise<number> {
  const before = processorTimes();
  await Bun.sleep(NOISE_MS);
  const after = processorTimes();
  const total = after.total - before.total;
  return total === 0 ? 0 : 1 - (after.idle - before.idle) / total;
}

function processorTimes(): { readonly total: number; readonly idle: number } {
  const line = readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "";
  const times = line.trim().split(/\s+/).slice(1, 9).map(Number);
  const total = times.reduce((sum, time) => sum + time, 0);
  return { total, idle: (times[3] ?? 0) + (times[4] ?? 0) };
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) {
    throw new Error(`a report lacks an object where one is due: ${JSON.stringify(value)}`);
  }
  return Object.fromEntries(Object.entries(value));
}

function arrayOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function numberOf(value: unknown): number {
  if (typeof value !== "number") {
    throw new Error(`a report lacks a number where one is due: ${JSON.stringify(value)}`);
  }
  return value;
}
