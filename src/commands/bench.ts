/** `ubiblk bench`: measures or verifies the disk behind a vhost-user-blk socket. */
import { writeSync } from "node:fs";
import { defineCommand } from "citty";
import {
  type BenchSettings,
  reportText,
  runBench,
  WORKLOADS,
  type WorkloadName,
} from "../bench/index.ts";
import { UbiError } from "../errors.ts";
import { SECTOR_BYTES } from "../formats/virtio-blk.ts";
import { integerArgument } from "./arguments.ts";
import { sizeArgument } from "./size-argument.ts";

const BLOCK_BYTES_MAX = 16 * 2 ** 20;
const SECONDS_MAX = 86_400;

export default defineCommand({
  meta: {
    name: "bench",
    description:
      "Measures or verifies the disk behind a vhost-user-blk socket; " +
      "all workloads but randread, read and --check destroy its contents",
  },
  args: {
    socket: {
      type: "string",
      required: true,
      valueHint: "SOCKET",
      description: "the backend's socket",
    },
    workload: {
      type: "enum",
      options: [...WORKLOADS],
      default: "randread",
      description: "what to do",
    },
    "block-size": {
      type: "string",
      default: "4K",
      valueHint: "BYTES",
      description: "size of a request",
    },
    "queue-depth": {
      type: "string",
      valueHint: "N",
      default: "32",
      description: "requests in flight on each queue",
      integer: { minimum: 1, maximum: 8192 },
    },
    queues: {
      type: "string",
      valueHint: "N",
      default: "1",
      description: "queues to use",
      integer: { minimum: 1, maximum: 63 },
    },
    segments: {
      type: "string",
      valueHint: "N",
      default: "1",
      description: "descriptors that a request's data is cut into",
      integer: { minimum: 1, maximum: 256 },
    },
    time: {
      type: "string",
      valueHint: "SECONDS",
      description: "time to measure (default: 10; verify: two rounds)",
    },
    warmup: {
      type: "string",
      default: "0.5",
      valueHint: "SECONDS",
      description: "time before measuring",
    },
    offset: {
      type: "string",
      default: "0",
      valueHint: "BYTES",
      description: "where the used range begins",
    },
    size: {
      type: "string",
      valueHint: "BYTES",
      description: "size of the used range (default: to the end of the disk)",
    },
    seed: {
      type: "string",
      valueHint: "N",
      default: "1",
      description: "makes offsets and contents reproducible",
      integer: { minimum: 0, maximum: 2 ** 32 - 1 },
    },
    "flush-every": {
      type: "string",
      valueHint: "N",
      default: "0",
      description: "a flush behind that many writes (0: none)",
      integer: { minimum: 0, maximum: 2 ** 32 },
    },
    pid: {
      type: "string",
      valueHint: "PID",
      description: "process of the backend, to measure its CPU time",
      integer: { minimum: 1, maximum: 2 ** 31 },
    },
    journal: {
      type: "string",
      valueHint: "FILE",
      description: "record sent and acknowledged writes and flushes in this file",
    },
    check: {
      type: "string",
      valueHint: "FILE",
      description: "verify the disk against this journal",
    },
    "power-loss": {
      type: "boolean",
      description: "with --check: only flushed writes must be there",
    },
    timeout: {
      type: "string",
      valueHint: "SECONDS",
      default: "30",
      description: "what the backend may take for anything",
    },
    "spin-us": {
      type: "string",
      valueHint: "MICROSECONDS",
      default: "0",
      description: "look for ended requests this long before sleeping",
      integer: { minimum: 0, maximum: 1_000_000 },
    },
    indirect: { type: "boolean", description: "use indirect descriptors" },
    packed: { type: "boolean", description: "use packed rings" },
    "memory-slots": { type: "boolean", description: "share memory by ADD_MEM_REG" },
    "without-event-idx": { type: "boolean", description: "do not negotiate EVENT_IDX" },
    "without-reply-ack": { type: "boolean", description: "do not negotiate REPLY_ACK" },
    reconnect: {
      type: "boolean",
      description: "outlive a backend that ends: wait for the next one, within --timeout",
    },
    "without-inflight": {
      type: "boolean",
      description: "with --reconnect: do not negotiate INFLIGHT_SHMFD",
    },
    json: { type: "boolean", description: "print the result as JSON" },
  },
  run: ({ args }) => {
    const settings: BenchSettings = {
      socketPath: args.socket,
      workload: workloadOf(args.workload),
      blockBytes: sizeOf("--block-size", args["block-size"]),
      queueDepth: integerArgument(args["queue-depth"]),
      queueCount: integerArgument(args.queues),
      segments: integerArgument(args.segments),
      seconds: args.time === undefined ? undefined : secondsOf("--time", args.time),
      warmupSeconds: secondsOf("--warmup", args.warmup),
      offsetBytes: sizeOf("--offset", args.offset),
      sizeBytes: args.size === undefined ? undefined : sizeOf("--size", args.size),
      seed: integerArgument(args.seed),
      flushEvery: integerArgument(args["flush-every"]),
      spinUs: integerArgument(args["spin-us"]),
      timeoutMs: Math.max(1, secondsOf("--timeout", args.timeout) * 1000),
      pid: integerArgument(args.pid),
      journalPath: args.journal,
      checkPath: args.check,
      isPowerLoss: args["power-loss"] === true,
      usesEventIndex: args["without-event-idx"] !== true,
      usesReplyAck: args["without-reply-ack"] !== true,
      usesMemorySlots: args["memory-slots"] === true,
      isIndirect: args.indirect === true,
      isPacked: args.packed === true,
      isReconnecting: args.reconnect === true,
      usesInflight: args["without-inflight"] !== true,
    };
    checkTogether(settings);
    const report = runBench(settings);
    writeSync(1, `${args.json === true ? JSON.stringify(report) : reportText(report)}\n`);
  },
});

// --- internal ---

function workloadOf(text: string): WorkloadName {
  const name = WORKLOADS.find((workload) => workload === text);
  if (name === undefined) {
    throw new UbiError("E_USAGE", `--workload: ${text} is not one of ${WORKLOADS.join(", ")}`);
  }
  return name;
}

/** Always whole sectors. */
function sizeOf(flag: string, text: string): number {
  const bytes = sizeArgument(flag, text);
  if (bytes % SECTOR_BYTES !== 0) {
    throw new UbiError("E_USAGE", `${flag}: ${text} is not a multiple of ${SECTOR_BYTES}`);
  }
  return bytes;
}

function secondsOf(flag: string, text: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(seconds <= SECONDS_MAX)) {
    const shown = JSON.stringify(text);
    throw new UbiError("E_USAGE", `${flag}: ${shown} is not from 0 to ${SECONDS_MAX} seconds`);
  }
  return seconds;
}

function checkTogether(settings: BenchSettings): void {
  const { blockBytes, segments, workload, journalPath, checkPath } = settings;
  if (blockBytes < SECTOR_BYTES || blockBytes > BLOCK_BYTES_MAX) {
    const limits = `${SECTOR_BYTES} to ${BLOCK_BYTES_MAX}`;
    throw new UbiError("E_USAGE", `--block-size: ${blockBytes} bytes are not in ${limits}`);
  }
  if (segments > blockBytes) {
    throw new UbiError("E_USAGE", "--segments: a segment needs at least one byte");
  }
  if (journalPath !== undefined && checkPath !== undefined) {
    throw new UbiError("E_USAGE", "--journal and --check: one at a time");
  }
  if (journalPath !== undefined && workload !== "write" && workload !== "randwrite") {
    throw new UbiError("E_USAGE", "--journal: records write and randwrite only");
  }
  if (settings.isPowerLoss && checkPath === undefined) {
    throw new UbiError("E_USAGE", "--power-loss: only with --check");
  }
}
